"""GnuPG packets in both directions against Debian's fwknop: with and without passwords, signed, unsigned, strangers'.

Each variant has a stanza and a road of its own. Every client sends all variants; what arrives is judged by a running
doorwardd and, from a capture, by fwknopd.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from interop.formats import USER, WAYS
from interop.peers import TESTS, read_capture, sent
from interop.road import capture, road
from system.doorwardd import doorwardd, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interop.formats import Way
    from interop.peers import Sent
    from system.netns import Namespace

PASSWORD: Final = "correct-horse"  # noqa: S105  of keys that live for this test
HMAC_KEY: Final = "aGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaA=="
HOST_KEYS: Final = {"host-open": "", "host-locked": PASSWORD}
CLIENT_KEYS: Final = {"client-open": "", "client-locked": PASSWORD, "stranger": ""}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to use GnuPG; `lines` are what the stanza says beside the keys."""

    name: str
    recipient: str = "host-open"
    signer: str | None = "client-open"
    hmac: bool = False
    lines: tuple[str, ...] = ("GPG_FINGERPRINT_ID {client-open},{client-locked}",)
    accepted: bool = True

    @property
    def way(self) -> Way:
        """Whose addresses it has."""
        return WAYS[VARIANTS.index(self)]


BY_ID: Final = ("GPG_REMOTE_ID {client-open:id}",)
UNSIGNED: Final = ("GPG_DISABLE_SIG Y",)
VARIANTS: Final = (
    Variant("signed"),
    Variant("signed, named by its ID", lines=BY_ID),
    Variant("signed with a password", signer="client-locked"),
    Variant("signed, decrypted with a password", recipient="host-locked"),
    Variant("both with a password", recipient="host-locked", signer="client-locked"),
    Variant("signed, with HMAC", hmac=True),
    Variant("signed and decrypted with a password, with HMAC", "host-locked", "client-locked", hmac=True),
    Variant("unsigned", signer=None, lines=UNSIGNED),
    Variant("unsigned, decrypted with a password", recipient="host-locked", signer=None, lines=UNSIGNED),
    Variant("unsigned, with HMAC", signer=None, hmac=True, lines=UNSIGNED),
    Variant("unsigned where a signature is required", signer=None, accepted=False),
    Variant("signed by somebody else", signer="stranger", accepted=False),
    Variant("signed by somebody else, named by an ID", signer="stranger", lines=BY_ID, accepted=False),
    Variant("signed by somebody else, with HMAC", signer="stranger", hmac=True, accepted=False),
)
EACH = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)


@dataclass(frozen=True, slots=True)
class Rings:
    """Both keyrings, and every key's fingerprint by its name."""

    host: Path
    client: Path
    fingerprints: dict[str, str]

    def access_file(self) -> str:
        """Return a stanza for each variant, for both daemons."""
        return "".join(self._stanza(variant) for variant in VARIANTS)

    def _stanza(self, variant: Variant) -> str:
        password = HOST_KEYS[variant.recipient]
        lines = [
            f"SOURCE {variant.way.origin}/32",
            f"GPG_HOME_DIR {self.host}",
            f"GPG_DECRYPT_ID {self.fingerprints[variant.recipient]}",
            f"GPG_DECRYPT_PW {password}" if password else "GPG_ALLOW_NO_PW Y",
            *(line.format_map(self._names()) for line in variant.lines),
        ]
        lines += [f"HMAC_KEY_BASE64 {HMAC_KEY}"] if variant.hmac else []
        return "\n".join(lines) + "\n\n"

    def _names(self) -> dict[str, str]:
        return {name: _Fingerprint(text) for name, text in self.fingerprints.items()}

    def client_file(self) -> str:
        """Return a stanza for each variant, for both clients."""
        return f"[default]\nSPOOF_USER {USER}\nNO_SAVE_ARGS Y\n" + "".join(map(self._client_stanza, VARIANTS))

    def _client_stanza(self, variant: Variant) -> str:
        lines = [f"[{variant.way.name}]", f"SPA_SERVER {variant.way.destination}", "USE_GPG Y"]
        lines += [f"GPG_HOMEDIR {self.client}", f"GPG_RECIPIENT {self.fingerprints[variant.recipient]}"]
        if variant.signer is not None:
            password = CLIENT_KEYS[variant.signer]
            lines += [f"GPG_SIGNER {self.fingerprints[variant.signer]}"]
            lines += [f"GPG_SIGNING_PW {password}"] if password else []
        if variant.signer is None or not CLIENT_KEYS[variant.signer]:
            lines += ["GPG_NO_SIGNING_PW Y"]
        lines += ["USE_HMAC Y", f"HMAC_KEY_BASE64 {HMAC_KEY}"] if variant.hmac else []
        return "\n".join(lines) + "\n"


class _Fingerprint(str):
    """A fingerprint, or with `:id` what fwknop calls an ID."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return self[-8:] if spec == "id" else str(self)


@pytest.fixture(scope="module")
def rings() -> Iterator[Rings]:
    """Keyrings in a short path: the agent's socket lies in them."""
    folder = Path(tempfile.mkdtemp(prefix="dw", dir="/tmp"))
    homes = {"host": folder / "host", "client": folder / "client"}
    for home in homes.values():
        home.mkdir(mode=0o700)
        write(home / "gpg.conf", "pinentry-mode loopback\n")  # fwknop's gpgme would ask at a terminal
    fingerprints = {name: generate(homes["host"], name, password) for name, password in HOST_KEYS.items()}
    fingerprints |= {name: generate(homes["client"], name, password) for name, password in CLIENT_KEYS.items()}
    gpg(homes["client"], "--import", content=gpg(homes["host"], "--export"))
    gpg(homes["host"], "--import", content=gpg(homes["client"], "--export"))
    for name in CLIENT_KEYS:  # fwknopd takes a signature for valid only from a key that is trusted
        gpg(homes["host"], "--import-ownertrust", content=f"{fingerprints[name]}:6:\n".encode())
    yield Rings(homes["host"], homes["client"], fingerprints)
    for home in homes.values():
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)


def generate(home: Path, name: str, password: str) -> str:
    """Make a key that signs and one that decrypts, and return the fingerprint."""
    words = ("--pinentry-mode", "loopback", "--passphrase", password)
    gpg(home, *words, "--quick-generate-key", name, "rsa2048", "default", "never")
    listed = gpg(home, "--with-colons", "--list-keys", name).decode().splitlines()
    fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr:"))
    gpg(home, *words, "--quick-add-key", fingerprint, "rsa2048", "encr", "never")
    return fingerprint


def gpg(home: Path, *words: str, content: bytes = b"") -> bytes:
    """Run GnuPG and return what it prints."""
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *words]
    done = subprocess.run(command, input=content, check=False, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@dataclass(frozen=True)
class Trip:
    """What a client sent, and what both daemons said of it."""

    sent: dict[str, Sent]
    by_doorwardd: dict[str, list[str]]
    by_fwknopd: str

    def doorwardd_opens(self, variant: Variant) -> bool:
        """Say whether the one verdict on a variant is a grant for what was asked."""
        (line,) = self.by_doorwardd[variant.way.origin]
        granted = " reason=granted " in line and f" stanza={variant.way.number} " in line
        return granted and f" source={variant.way.origin} services=tcp/22 " in line

    def fwknopd_opens(self, variant: Variant) -> bool:
        """Say whether fwknopd would have opened."""
        line = f"[{variant.way.origin}] (stanza #{variant.way.number}) --test mode enabled, skipping"
        return self.by_fwknopd.count(line) == 1


def trip(send: Callable[[Namespace, Path, Variant], Sent], rings: Rings, folder: Path) -> Trip:
    write(folder / "fwknoprc", rings.client_file())
    with road() as (host, client), capture(host) as arrived:
        with doorwardd(host, folder, rings.access_file()) as daemon:
            made = {variant.name: send(client, folder, variant) for variant in VARIANTS}
            count = sum(not one.failure for one in made.values())
            daemon.wait_for("verdict=", count=count, within=60)
        arrived.end(host, client)
    verdicts = {
        variant.way.origin: [line for line in daemon.verdicts if f" origin={variant.way.origin} " in line]
        for variant in VARIANTS
    }
    log = read_capture(arrived.write(folder / "arrived.pcap"), folder, len(arrived.frames), rings.access_file())
    return Trip(made, verdicts, log)


def by_fwknop(client: Namespace, folder: Path, variant: Variant) -> Sent:
    done = client.run(
        "fwknop",
        *words(folder, variant),
        check=False,
        stdin=subprocess.DEVNULL,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )
    return sent(done.returncode, done.stdout, done.stderr)


def by_doorward(client: Namespace, folder: Path, variant: Variant) -> Sent:
    done = client.run(
        sys.executable,
        str(TESTS / "interop/our_client.py"),
        input=json.dumps(words(folder, variant)),
        env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(TESTS.parent / "daemon")},
    )
    return sent(*json.loads(done.stdout))


def words(folder: Path, variant: Variant) -> list[str]:
    named = ["--rc-file", str(folder / "fwknoprc"), "--no-save-args", "-v", "-n", variant.way.name]
    return [*named, "-A", "tcp/22", "-a", variant.way.origin]


@pytest.fixture(scope="module")
def from_fwknop(rings: Rings, tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return trip(by_fwknop, rings, tmp_path_factory.mktemp("from-fwknop"))


@pytest.fixture(scope="module")
def from_doorward(rings: Rings, tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return trip(by_doorward, rings, tmp_path_factory.mktemp("from-doorward"))


@EACH
def test_doorwardd_judges_what_fwknop_sends(variant: Variant, from_fwknop: Trip) -> None:
    assert len(from_fwknop.sent[variant.name].payload) >= 400
    assert from_fwknop.doorwardd_opens(variant) is variant.accepted, from_fwknop.by_doorwardd


@EACH
def test_fwknopd_judges_what_doorward_sends(variant: Variant, from_doorward: Trip) -> None:
    assert len(from_doorward.sent[variant.name].payload) >= 400
    assert from_doorward.fwknopd_opens(variant) is variant.accepted, from_doorward.by_fwknopd


@EACH
def test_both_daemons_judge_alike_what_their_own_client_sends(
    variant: Variant, from_fwknop: Trip, from_doorward: Trip
) -> None:
    assert from_fwknop.fwknopd_opens(variant) is variant.accepted, from_fwknop.by_fwknopd
    assert from_doorward.doorwardd_opens(variant) is variant.accepted, from_doorward.by_doorwardd
