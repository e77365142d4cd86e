"""GnuPG keyrings for tests: made once and kept in `build/`, copied into a short path (an agent's socket lies in each).

`host` decrypts: its keys are `host` (no passphrase) and `host-locked`. `client` signs: `alice`, `ed25519`, `locked`,
and `stranger`, `untrusted`, `expired`, `revoked` as the host sees them; `bob` is a recipient that the host is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.crypto import openpgp
from doorward.values import Secret
from doorward.wire import fwknop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.wire.fwknop import Message

PASSPHRASE: Final = "correct horse"  # noqa: S105  of keys that live as long as a test
ULTIMATE: Final = 6  # gpg's number for an owner that is trusted like oneself
_MIXED: Final = ("ed25519", "rsa2048")  # quickly made, and fit for fwknop's format
_KINDS: Final = {
    "host": _MIXED, "host-locked": _MIXED, "bob": _MIXED, "alice": ("rsa2048", None), "locked": ("ed25519", None),
    "ed25519": ("ed25519", "cv25519"),
    "stranger": ("ed25519", None), "untrusted": ("ed25519", None), "expired": ("ed25519", None),
    "revoked": ("ed25519", None),
}  # fmt: skip
_BUILD: Final = Path(__file__).resolve().parents[1] / "build"
_LOCKED: Final = frozenset({"host-locked", "locked"})
_HOSTS: Final = frozenset({"host", "host-locked"})


@dataclass(frozen=True, slots=True)
class Keyrings:
    """Both homes, and every key's primary fingerprint by its name."""

    host: Path
    client: Path
    fingerprints: dict[str, str]

    def payload(
        self, message: Message, recipient: str = "host", signer: str | None = "alice", hmac_key: bytes | None = None
    ) -> bytes:
        """Return what our client sends."""
        return openpgp.seal(
            fwknop.serialize(message),
            self.fingerprints[recipient],
            signer=None if signer is None else self.fingerprints[signer],
            password=Secret(PASSPHRASE.encode()) if signer in _LOCKED else None,
            home=self.client,
            hmac_key=None if hmac_key is None else Secret(hmac_key),
        )

    def message(self, plaintext: bytes, *words: str, recipient: str = "host") -> bytes:
        """Return an OpenPGP message that gpg makes for a plaintext."""
        to = ("--trust-model", "always", "--recipient", self.fingerprints[recipient])
        return gpg(self.client, *to, *words, "--encrypt", content=plaintext)


@contextlib.contextmanager
def keyrings() -> Iterator[Keyrings]:
    """Yield copies of both keyrings; their agents and files are gone after the block."""
    with _homes() as folder:
        _copy(_kept(), folder)
        names = {name: "host" if name in _HOSTS else "client" for name in _KINDS}
        made = {name: fingerprint_of(folder / home, f"={name}@example.org") for name, home in names.items()}
        yield Keyrings(folder / "host", folder / "client", made)


@contextlib.contextmanager
def _homes() -> Iterator[Path]:
    """Yield a folder for keyrings; whatever agents they have are ended after the block."""
    folder = Path(tempfile.mkdtemp(prefix="dw", dir="/tmp"))
    try:
        yield folder
    finally:
        for home in folder.iterdir():
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _kept() -> Path:
    """Return the folder of the keyrings that all tests copy; whoever comes first makes it, from this very file."""
    kept = _BUILD / f"keyrings-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]}"
    _BUILD.mkdir(exist_ok=True)
    with (_BUILD / "keyrings.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with _homes() as folder:
                homes = {name: folder / name for name in ("host", "client", "other")}
                for home in homes.values():
                    home.mkdir(mode=0o700)
                made = {name: generate(homes["host" if name in _HOSTS else "client"], name) for name in _KINDS}
                _introduce(homes, made)
                half = kept.with_suffix(".half")
                shutil.rmtree(half, ignore_errors=True)
                half.mkdir()
                for name in ("host", "client"):
                    subprocess.run(["gpgconf", "--homedir", str(homes[name]), "--kill", "all"], check=True, timeout=30)
                    (half / name).mkdir(mode=0o700)
                    _copy(homes[name], half / name)
                half.rename(kept)
    return kept


def _copy(source: Path, target: Path) -> None:
    """Copy what is in a folder; not by shutil, which needs what some tests take away from Python."""
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True, timeout=30)


def generate(home: Path, name: str) -> str:
    """Make a key that signs, with one that decrypts where it shall, and return the fingerprint."""
    main, encrypting = _KINDS[name]
    words = ("--pinentry-mode", "loopback", "--passphrase", PASSPHRASE if name in _LOCKED else "")
    # made long ago: what a key says of itself within one second of its making cannot be put in order
    made = ("--faked-system-time", "20200101T000000!") if name == "expired" else ()
    gpg(home, *words, *made, "--quick-generate-key", f"{name}@example.org", main, "default", "never")
    fingerprint = fingerprint_of(home, f"={name}@example.org")
    if encrypting is not None:
        gpg(home, *words, "--quick-add-key", fingerprint, encrypting, "encr", "never")
    return fingerprint


def fingerprint_of(home: Path, name: str) -> str:
    """Return the fingerprint of a key."""
    listed = gpg(home, "--with-colons", "--list-keys", name).decode().splitlines()
    return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))


def _introduce(homes: dict[str, Path], made: dict[str, str]) -> None:
    """Let both sides know each other's keys, and the host know what became of some."""
    host, client, other = (homes[name] for name in ("host", "client", "other"))
    gpg(client, "--import", content=gpg(host, "--export"))
    known = [made[name] for name in made if name not in _HOSTS | {"stranger", "expired"}]
    gpg(host, "--import", content=gpg(client, "--export", *known))
    gpg(other, "--import", content=gpg(client, "--export-secret-keys", made["expired"]))
    gpg(other, "--quick-set-expire", made["expired"], "seconds=1")
    gpg(host, "--import", content=gpg(other, "--export", made["expired"]))
    deadline = time.monotonic() + 30
    while b"\npub:e:" not in gpg(host, "--with-colons", "--list-keys", made["expired"]):
        assert time.monotonic() < deadline, "the key does not expire"
        time.sleep(0.1)
    certificate = (client / "openpgp-revocs.d" / f"{made['revoked']}.rev").read_text()
    gpg(host, "--import", content=certificate.replace(":-----BEGIN", "-----BEGIN").encode())
    trusted = (name for name in made if name not in _HOSTS | {"stranger", "untrusted"})
    gpg(host, "--import-ownertrust", content="".join(f"{made[name]}:{ULTIMATE}:\n" for name in trusted).encode())


def gpg(home: Path, *words: str, content: bytes = b"") -> bytes:
    """Run GnuPG and return what it prints."""
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-tty", *words]
    done = subprocess.run(command, input=content, check=False, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
