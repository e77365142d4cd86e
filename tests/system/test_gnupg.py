"""GnuPG knocks against a running doorwardd: who gets in, what bombs cost, and that good knocks never wait for them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from doorward.linux import privileges
from doorward.values import Secret, SymmetricKeys
from doorward.wire import fwknop
from gnupg_keys import PASSPHRASE, fingerprint_of, gpg, keyrings
from system import netns
from system.doorwardd import HMAC_KEY, KEY, command, doorwardd, environment, eventually, send, write
from system.test_pcap_file import written
from unit.making import message
from unit.making import payload as symmetric_payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.wire.fwknop import Message
    from gnupg_keys import Keyrings
    from system.doorwardd import Running
    from system.netns import Namespace

HMAC: Final = b"gnupg-hmac"
KEYS: Final = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
RUN: Final = Path("/run/doorward-gnupg")
_RANDOM: Final = random.Random(4)  # noqa: S311  numbers in test packets


@pytest.fixture(scope="module")
def rings() -> Iterator[Keyrings]:
    with keyrings() as made:
        yield made


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with netns.network("host", "client") as (host, client):
        yield host, client


def access(rings: Keyrings, *lines: str, hmac: bool = False, recipient: str = "host", source: str = "ANY") -> str:
    password = f"GPG_DECRYPT_PW {PASSPHRASE}" if recipient == "host-locked" else "GPG_ALLOW_NO_PW Y"
    signers = ",".join(rings.fingerprints[name] for name in ("alice", "locked", "ed25519"))
    named = [] if any(line.startswith("GPG_") for line in lines) else [f"GPG_FINGERPRINT_ID {signers}"]
    stanza = [
        f"SOURCE {source}", "OPEN_PORTS tcp/22", f"GPG_HOME_DIR {rings.host}",
        f"GPG_DECRYPT_ID {rings.fingerprints[recipient]}", password, *named, *lines,
    ]  # fmt: skip
    return "\n".join([*stanza, *([f"HMAC_KEY {HMAC.decode()}"] if hmac else [])]) + "\n\n"


SYMMETRIC: Final = f"SOURCE ANY\nOPEN_PORTS tcp/22\n{KEY}\n{HMAC_KEY}\n\n"


def fresh() -> Message:
    return message(time=int(time.time()), random=f"{_RANDOM.randrange(10**16):016d}")


class Knocker:
    """Sends packets and reads the verdict of each, by its order: one packet is under way at a time, or it says so."""

    def __init__(self, daemon: Running, host: Namespace, client: Namespace, rings: Keyrings) -> None:
        self.daemon = daemon
        self.rings = rings
        self._host = host
        self._client = client

    def send(self, payload: bytes) -> None:
        send(self._client, payload, self._host.ipv4)

    def verdict(self, payload: bytes) -> str:
        """Return the verdict of a payload that is the only one under way."""
        before = len(self.daemon.verdicts)
        self.send(payload)
        self.daemon.wait_for("verdict=", count=before + 1)
        return self.daemon.verdicts[before]

    def reason(self, payload: bytes) -> str:
        return self.verdict(payload).split("reason=")[1].split()[0]

    def reasons_since(self, before: int) -> list[str]:
        """Return the reasons of all verdicts but the first ones."""
        return [line.split("reason=")[1].split()[0] for line in self.daemon.verdicts[before:]]

    def good(self, **changes: Any) -> bytes:
        return self.rings.payload(fresh(), **changes)

    def let_in(self) -> None:
        """Fail where a good knock of either kind is not granted."""
        assert self.reason(symmetric_payload(fresh(), KEYS)) == "granted"
        self.let_in_by_gnupg()

    def let_in_by_gnupg(self) -> None:
        """Fail where a good GnuPG knock is not granted."""
        assert self.reason(self.good()) == "granted"


@contextlib.contextmanager
def running(pair: tuple[Namespace, Namespace], rings: Keyrings, folder: Path, text: str) -> Iterator[Knocker]:
    host, client = pair
    with doorwardd(host, folder, text) as daemon:
        yield Knocker(daemon, host, client, rings)


@pytest.fixture(scope="module")
def knocker(rings: Keyrings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knocker]:
    """A daemon with a symmetric stanza and one for alice, locked and ed25519, without an HMAC key."""
    folder = tmp_path_factory.mktemp("gnupg")
    text = SYMMETRIC + access(rings)
    with netns.network("host", "client") as (host, client), running((host, client), rings, folder, text) as made:
        yield made


class Who(NamedTuple):
    """What a stanza says, and who gets in by it."""

    lines: tuple[str, ...]
    granted: tuple[str | None, ...]
    refused: tuple[str | None, ...]


class _End(str):
    """A fingerprint; `:.8` is its end, as an ID is."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return self[-int(spec[1:]) :] if spec else str(self)


# ---- who gets in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signer", ["alice", "locked", "ed25519"])
def test_whoever_the_stanza_names_gets_in(knocker: Knocker, signer: str) -> None:
    assert knocker.reason(knocker.good(signer=signer)) == "granted"


@pytest.mark.parametrize(
    ("signer", "words"),
    [
        (None, "not signed"),
        ("stranger", "missing key"),
        ("untrusted", "untrusted"),
        ("expired", "expired"),
        ("revoked", "revoked"),
        ("bob", "which GPG_FINGERPRINT_ID does not name"),
    ],
)
def test_nobody_elses_signature_counts(knocker: Knocker, signer: str | None, words: str) -> None:
    line = knocker.verdict(knocker.good(signer=signer))
    assert "reason=signature" in line
    assert words in line
    knocker.let_in()


def test_a_signature_over_another_text_does_not_count(knocker: Knocker) -> None:
    alice, plaintext = knocker.rings.fingerprints["alice"], fwknop.serialize(fresh())
    words = ("--sign", "--compress-algo", "none", "--local-user", alice)
    signed = gpg(knocker.rings.client, *words, content=plaintext)
    place = signed.index(plaintext)
    forged = signed[:place] + bytes([signed[place] ^ 1]) + signed[place + 1 :]
    for content, reason in ((forged, "signature"), (signed, "granted")):
        assert knocker.reason(as_packet(wrap(knocker.rings, content))) == reason


def test_a_knock_is_taken_once_whatever_frame_it_comes_in(knocker: Knocker) -> None:
    sealed = knocker.good()
    assert knocker.reason(sealed) == "granted"
    assert knocker.reason(sealed) == "replay"
    blob = fwknop.decode_blob(b"hQ" + sealed)
    end = 3 + int.from_bytes(blob[1:3], "big")
    assert blob[0] == 0x85
    twice = blob[:end] + blob  # the session key for the same recipient again: other bytes, the same message
    assert "reason=replay" in knocker.verdict(as_packet(twice))


@pytest.mark.parametrize(
    "who",
    [
        Who(("GPG_DISABLE_SIG Y",), (None, "stranger"), ()),
        Who(("GPG_REMOTE_ID {alice:.8}",), ("alice",), ("ed25519", None)),
        Who(("GPG_REMOTE_ID {alice:.16}", "GPG_FINGERPRINT_ID {alice}"), ("alice",), ("ed25519",)),
        Who(("GPG_REMOTE_ID {ed25519:.8}", "GPG_FINGERPRINT_ID {alice}"), (), ("ed25519", "alice")),
        Who(
            ("GPG_FINGERPRINT_ID {expired},{untrusted}", "GPG_IGNORE_SIG_VERIFY_ERROR Y"),
            ("expired", "untrusted"),
            ("alice", None),
        ),
    ],
)
@pytest.mark.parametrize("hmac", [False, True])
def test_the_stanza_says_whose_signature_counts(
    pair: tuple[Namespace, Namespace],
    rings: Keyrings,
    tmp_path: Path,
    who: Who,
    hmac: bool,  # noqa: FBT001  a parameter of pytest
) -> None:
    names = {name: _End(text) for name, text in rings.fingerprints.items()}
    chosen = [line.format_map(names) for line in who.lines]
    key = HMAC if hmac else None
    with running(pair, rings, tmp_path, access(rings, *chosen, hmac=hmac)) as knocker:
        for signers, reason in ((who.granted, "granted"), (who.refused, "signature")):
            for signer in signers:
                assert knocker.reason(knocker.good(signer=signer, hmac_key=key)) == reason, signer
        other = rings.payload(fresh(), hmac_key=b"another key")
        assert (knocker.reason(other) == "hmac") is hmac


def test_stanzas_are_tried_in_their_order_and_the_first_that_fits_decides(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    both = (
        f"SOURCE ANY\nOPEN_PORTS tcp/22\n{KEY}\n{HMAC_KEY}\n"
        + access(rings, recipient="host-locked").partition("OPEN_PORTS tcp/22\n")[2]
    )
    bobs = access(rings, f"GPG_FINGERPRINT_ID {rings.fingerprints['bob']}")
    with running(pair, rings, tmp_path, bobs + both + access(rings)) as knocker:
        assert "stanza=3 " in knocker.verdict(knocker.good())
        assert "stanza=1 " in knocker.verdict(knocker.good(signer="bob"))
        assert "reason=signature" in knocker.verdict(knocker.good(signer="stranger"))
        hmac_of_both = b"h" * 64
        locked = knocker.good(recipient="host-locked", hmac_key=hmac_of_both)
        assert " stanza=2 " in knocker.verdict(locked)
        assert " stanza=2 " in knocker.verdict(symmetric_payload(fresh(), KEYS))


# ---- bombs -----------------------------------------------------------------------------------------------------------


def as_packet(blob: bytes) -> bytes:
    """Return what a client sends for an OpenPGP message, whatever it is."""
    sealed = fwknop.encode_blob(blob)
    assert sealed.startswith(b"hQ"), sealed[:4]
    return sealed[2:]


def wrap(rings: Keyrings, packets: bytes) -> bytes:
    """Return OpenPGP packets encrypted to the host as they are: gpg would put them into a literal packet."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "packets"
        file.write_bytes(packets)
        return gpg(rings.client, "--trust-model", "always", "--recipient", rings.fingerprints["host"], "--no-literal",
                   "--compress-algo", "none", "--output", "-", "--encrypt", str(file))  # fmt: skip


def key_id(rings: Keyrings) -> bytes:
    """Return the ID of the key that decrypts, as a message for it names it."""
    return rings.message(b"x")[4:12]


def session_key(identity: bytes, size: int = 256, first: int = 0x85) -> bytes:
    """Return a session key packet of noise."""
    body = b"\x03" + identity + b"\x01" + (size * 8).to_bytes(2, "big") + b"\xff" + _RANDOM.randbytes(size - 1)
    return bytes([first]) + len(body).to_bytes(2, "big") + body


def encrypted(size: int) -> bytes:
    return b"\xd2\xff" + (size + 1).to_bytes(4, "big") + b"\x01" + _RANDOM.randbytes(size)


def bombs(rings: Keyrings) -> dict[str, tuple[bytes, str]]:
    """Return what strangers may send, and what is said of it."""
    mine = key_id(rings)
    slow = b"\x8c\x0d\x04\x09\x03\x0aSALTSALT\xff"  # a passphrase, hashed 65 011 712 times
    return {
        "noise of 400 characters": (b"A" * 398 + b"Qw", "no OpenPGP message as fwknop sends it"),
        "noise in a whole frame": (fwknop.encode_blob(_RANDOM.randbytes(1101)), ""),
        "many session keys": (
            as_packet(session_key(mine) + 26 * (b"\x84\x1d\x03" + mine + b"\x01\x00\x88" + bytes(17))),
            "not session keys and one encrypted block",
        ),
        "passphrases with the most rounds": (
            as_packet(session_key(mine) + 50 * slow + encrypted(40)), "not session keys and one encrypted block",
        ),
        "a session key alone": (as_packet(session_key(mine, 384)), "not session keys and one encrypted block"),
        "the right key and noise": (as_packet(session_key(mine) + encrypted(200)), "decryption failed"),
        "a hidden key and noise": (as_packet(session_key(bytes(8)) + encrypted(200)), "encrypted to"),
        "two keys and noise": (as_packet(session_key(mine) + session_key(mine) + encrypted(99)), "decryption failed"),
        "an enormous session key": (as_packet(session_key(mine, 1000) + encrypted(60)), "decryption failed"),
        "somebody else's": (as_packet(rings.message(b"x" * 60, recipient="bob")), "encrypted to"),
        "20 MB of zeros, compressed": (
            as_packet(rings.message(bytes(20_000_000), "--compress-algo", "bzip2")), "does not begin as one does",
        ),
        "a text that is no knock": (as_packet(rings.message(b"hello " * 20, "-z", "0")), "does not begin as one does"),
    }  # fmt: skip


def test_bombs_are_refused_and_good_knocks_go_on(knocker: Knocker) -> None:
    knocker.let_in()
    for name, (bomb, words) in bombs(knocker.rings).items():
        line = knocker.verdict(bomb)
        assert "reason=decryption" in line, (name, line)
        assert words in line, (name, line)
        knocker.let_in()


def test_a_flood_of_bombs_does_not_delay_a_good_symmetric_knock(knocker: Knocker) -> None:
    """The process that runs gpg stands still, so that no machine is too busy to send the good one before it is done."""
    mine = key_id(knocker.rings)
    before = len(knocker.daemon.verdicts)
    _, worker = unsealers(knocker.daemon)
    os.kill(worker, signal.SIGSTOP)
    try:
        for _ in range(40):
            knocker.send(as_packet(session_key(mine) + encrypted(200)))
        knocker.send(symmetric_payload(fresh(), KEYS))
        assert eventually(lambda: "granted" in knocker.reasons_since(before)), "the good knock waited for gpg"
        assert "decryption" not in knocker.reasons_since(before), "gpg answered, so nothing was shown"
    finally:
        os.kill(worker, signal.SIGCONT)
    knocker.daemon.wait_for("verdict=", count=before + 41)
    assert sorted(set(knocker.reasons_since(before))) == ["busy", "decryption", "granted"]
    knocker.let_in()


# ---- what breaks -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging() -> Iterator[Path]:
    """A gpg that never answers a packet, for as long as the file `hang` is beside it; everybody may run it."""
    folder = Path(tempfile.mkdtemp(prefix="dw", dir="/tmp"))
    folder.chmod(0o755)
    script = folder / "gpg"
    waits = f"*--decrypt*) [ -e {folder}/hang ] && sleep 987654;;"
    script.write_text(f"""#!/bin/sh\ncase "$*" in {waits} esac\nexec gpg "$@"\n""")
    script.chmod(0o755)
    (folder / "hang").touch()
    yield script
    shutil.rmtree(folder)


def sleeping() -> bool:
    return bool(processes("987654"))


def processes(word: str) -> list[int]:
    """Return the processes of ours that have a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_a_gpg_that_hangs_is_ended_with_all_it_started_and_nobody_waits_for_it(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path, hanging: Path
) -> None:
    text = SYMMETRIC + access(rings, hmac=True).rstrip() + f"\nGPG_EXE {hanging}\n"
    with running(pair, rings, tmp_path, text) as knocker:
        for _ in range(10):
            knocker.send(knocker.good(hmac_key=HMAC))
        assert eventually(sleeping)
        assert knocker.daemon.wait_for("reason=busy", count=2)
        knocker.send(symmetric_payload(fresh(), KEYS))
        knocker.daemon.wait_for("reason=granted")
        assert not [line for line in knocker.daemon.verdicts if "gpg took longer" in line], "the good knock waited"
        (hanging.parent / "hang").unlink()
        assert "reason=decryption" in knocker.daemon.wait_for("gpg took longer than 10 s")
        knocker.daemon.wait_for("reason=granted", count=8)
        assert eventually(lambda: not sleeping())


def unsealers(daemon: Running) -> tuple[int, int]:
    """Return supervisor and worker of a daemon."""
    (listener,) = children(daemon.process.pid)
    (supervisor,) = children(listener)
    (worker,) = children(supervisor)
    return supervisor, worker


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def folders() -> set[str]:
    return {path.name for path in RUN.iterdir()} if RUN.exists() else set()


def test_a_worker_that_is_killed_is_followed_by_another_one(knocker: Knocker) -> None:
    _, worker = unsealers(knocker.daemon)
    os.kill(worker, signal.SIGKILL)
    knocker.daemon.wait_for("gnupg: the process that runs gpg has ended; another one begins")
    knocker.let_in()
    assert unsealers(knocker.daemon)[1] != worker


def test_without_the_supervisor_other_knocks_go_on_and_the_log_says_it(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    others = folders()
    with running(pair, rings, tmp_path, SYMMETRIC + access(rings)) as knocker:
        knocker.let_in()
        (left,) = folders() - others
        supervisor, worker = unsealers(knocker.daemon)
        os.kill(supervisor, signal.SIGKILL)
        knocker.daemon.wait_for("the process that runs gpg is gone")
        assert eventually(lambda: not Path(f"/proc/{worker}/exe").exists())
        assert knocker.reason(symmetric_payload(fresh(), KEYS)) == "granted"
        assert knocker.reason(knocker.good()) == "busy"
        write(tmp_path / "access.conf", access(rings))  # the symmetric key is revoked
        knocker.daemon.signal(signal.SIGHUP)
        knocker.daemon.wait_for("the configuration was read again")
        assert knocker.reason(symmetric_payload(fresh(), KEYS)) != "granted"
        assert any("until doorwardd is restarted" in line for line in knocker.daemon.lines)
    assert left in folders(), "nobody was there to remove it"
    with running(pair, rings, tmp_path, SYMMETRIC + access(rings)) as knocker:
        knocker.let_in()
        assert left not in folders()


def test_nothing_is_left_behind_and_the_home_is_never_written(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    def listing() -> dict[str, tuple[int, bytes]]:
        files = (path for path in rings.host.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    home, before = listing(), folders()
    with running(pair, rings, tmp_path, SYMMETRIC + access(rings)) as knocker:
        knocker.let_in()
        (mine,) = folders() - before
        supervisor, worker = unsealers(knocker.daemon)
        agents = children(worker)
        assert len(agents) == 1
        assert (RUN / mine).stat().st_mode & 0o777 == 0o700
    assert folders() == before
    assert listing() == home
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in (supervisor, worker, *agents))


def test_no_process_runs_where_no_stanza_needs_it(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    with running(pair, rings, tmp_path, SYMMETRIC) as knocker:
        (listener,) = children(knocker.daemon.process.pid)
        assert not children(listener)
        write(tmp_path / "access.conf", SYMMETRIC + access(rings))
        knocker.daemon.signal(signal.SIGHUP)
        knocker.daemon.wait_for("doorwardd serves them once it is restarted")
        knocker.daemon.wait_for("the configuration was read again")
        assert knocker.reason(symmetric_payload(fresh(), KEYS)) == "granted"
        assert knocker.reason(knocker.good()) == "busy"


def test_a_reload_takes_new_keys_and_refuses_what_cannot_be_used(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    gpg(home, "--import", content=gpg(rings.host, "--export-secret-keys", rings.fingerprints["host"]))
    old = access(rings).replace(str(rings.host), str(home))
    with running(pair, rings, tmp_path, SYMMETRIC + old) as knocker:
        assert "missing key" in knocker.verdict(knocker.good())
        gpg(home, "--import", content=gpg(rings.client, "--export", rings.fingerprints["alice"]))
        gpg(home, "--import-ownertrust", content=f"{rings.fingerprints['alice']}:6:\n".encode())
        assert fingerprint_of(home, rings.fingerprints["alice"])
        knocker.daemon.signal(signal.SIGHUP)
        knocker.daemon.wait_for("the configuration was read again")
        knocker.let_in()
        write(tmp_path / "access.conf", SYMMETRIC + old + "GPG_EXE /bin/false\n")
        knocker.daemon.signal(signal.SIGHUP)
        knocker.daemon.wait_for("the configuration is refused, the old one stays")
        knocker.let_in()
        write(tmp_path / "access.conf", SYMMETRIC)
        knocker.daemon.signal(signal.SIGHUP)
        knocker.daemon.wait_for("the configuration was read again", count=2)
        assert knocker.reason(symmetric_payload(fresh(), KEYS)) == "granted"
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)


def test_packets_under_way_at_a_reload_that_is_refused_have_their_verdicts(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path, hanging: Path
) -> None:
    text = SYMMETRIC + access(rings, hmac=True).rstrip() + f"\nGPG_EXE {hanging}\n"
    with running(pair, rings, tmp_path, text) as knocker:
        for _ in range(3):
            knocker.send(knocker.good(hmac_key=HMAC))
        assert eventually(sleeping)
        knocker.send(symmetric_payload(fresh(), KEYS))
        knocker.daemon.wait_for("reason=granted")  # so the others have been taken as well, and wait
        write(tmp_path / "access.conf", text.replace(str(hanging), "/bin/false"))
        knocker.daemon.signal(signal.SIGHUP)
        knocker.daemon.wait_for("the configuration is refused, the old one stays")
        knocker.daemon.wait_for("reason=busy", count=2)
        knocker.daemon.wait_for("gpg took longer than 10 s")


def test_signers_whose_signatures_would_be_refused_are_named_at_the_start_and_at_a_reload(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    known, made = "nobody says whose its key is (trust)", rings.fingerprints
    doubted = {
        made["stranger"]: "its key is not in the keyring",
        made["untrusted"]: known,
        made["expired"]: "its key has expired",
        made["revoked"]: "its key is revoked",
    }
    names = ", ".join([made["alice"], made["ed25519"], *doubted])
    text = access(rings, f"GPG_FINGERPRINT_ID {names}")
    with running(pair, rings, tmp_path, text) as knocker:
        start = f"gnupg: {tmp_path}/access.conf:1: GPG_FINGERPRINT_ID "
        told = [line for line in knocker.daemon.lines if line.endswith("what it signs is refused")]
        assert sorted(told) == sorted(f"{start}{one}: {why}: what it signs is refused" for one, why in doubted.items())
        assert knocker.reason(knocker.good(signer="untrusted")) == "signature"
        assert knocker.reason(knocker.good(signer="ed25519")) == "granted"
        write(tmp_path / "access.conf", access(rings, f"GPG_REMOTE_ID {made['untrusted'][-8:]}"))
        knocker.daemon.signal(signal.SIGHUP)
        knocker.daemon.wait_for(f"GPG_REMOTE_ID {made['untrusted'][-8:]}: {known}: what it signs is refused")
        text = access(rings, f"GPG_REMOTE_ID {made['untrusted'][-8:]}", "GPG_IGNORE_SIG_VERIFY_ERROR Y")
        write(tmp_path / "access.conf", text)
        knocker.daemon.signal(signal.SIGHUP)
        knocker.daemon.wait_for("the configuration was read again", count=2)
        assert knocker.reason(knocker.good(signer="untrusted")) == "granted"
        told = [line for line in knocker.daemon.lines if line.endswith("what it signs is refused")]
        assert len(told) == len(doubted) + 1, "gpg's word does not matter there"


@contextlib.contextmanager
def a_busy_host() -> Iterator[None]:
    """Keep every processor of this machine busy, twice over, for the duration of the block."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
        assert [loop.poll() for loop in loops] == [None] * len(loops), "the host was busy all the time"
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.parametrize("hmac", [False, True], ids=["without HMAC", "with HMAC"])
def test_a_busy_host_grants_every_good_knock_to_a_key_with_a_passphrase(
    pair: tuple[Namespace, Namespace],
    rings: Keyrings,
    tmp_path: Path,
    hmac: bool,  # noqa: FBT001  a case
) -> None:
    text = access(rings, hmac=hmac, recipient="host-locked")
    with running(pair, rings, tmp_path, text) as knocker:
        key = {"hmac_key": HMAC} if hmac else {}
        knocks = [knocker.good(recipient="host-locked", **key) for _ in range(12)]
        stranger = knocker.good(recipient="host-locked", signer="stranger", **key)
        with a_busy_host():
            verdicts = [knocker.reason(one) for one in knocks]
            assert knocker.reason(stranger) == "signature"
        assert verdicts == 12 * ["granted"]


def test_a_knock_without_hmac_from_before_a_restart_opens_nothing_after_it(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    """It may have been refused as busy, which no disk remembers."""
    with running(pair, rings, tmp_path, access(rings)) as knocker:
        missed = knocker.good()
        knocker.let_in_by_gnupg()
    with running(pair, rings, tmp_path, access(rings)) as knocker:
        assert knocker.reason(missed) == "replay"
        knocker.let_in_by_gnupg()


def test_explain_looks_at_gnupg_packets_too(pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path) -> None:
    file = write(tmp_path / "access.conf", access(rings))
    words = ["explain", "--origin", "192.0.2.7", "-a", str(file), "-d", str(tmp_path / "none.db")]
    for signer, said in (("alice", "verdict=granted"), ("stranger", "reason=signature")):
        packet = rings.payload(fresh(), signer=signer).decode()
        done = pair[0].run(*command(*words), input=packet, env=environment(), check=False)
        assert said in done.stdout, done


def test_explain_runs_gpg_on_no_packet_as_root(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outer:  # pytest's own folder is root's alone
        noted, gpg = Path(outer, "uids"), Path(outer, "gpg")
        Path(outer).chmod(0o711)
        noted.touch()
        noted.chmod(0o666)
        write(gpg, f'#!/bin/sh\ngrep Uid: /proc/self/status >>{noted}\nexec gpg "$@"\n').chmod(0o755)
        file = write(tmp_path / "access.conf", access(rings).rstrip() + f"\nGPG_EXE {gpg}\n")
        words = ["explain", "--origin", "192.0.2.7", "-a", str(file), "-d", str(tmp_path / "none.db")]
        packet = rings.payload(fresh(), signer="alice").decode()
        done = pair[0].run(*command(*words), input=packet, env=environment(), check=False)
        assert "verdict=granted" in done.stdout, done
        uids = {uid for line in noted.read_text().splitlines() for uid in line.split()[1:]}
        assert uids == {str(privileges.account().pw_uid)}
    assert not list(Path("/run").glob("tmp*/1")), "the copies of the keyring are gone"


def test_a_capture_file_has_every_packet_looked_at_before_its_end(
    pair: tuple[Namespace, Namespace], rings: Keyrings, tmp_path: Path
) -> None:
    header = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=7, dport=62201)
    packets = [header / Raw(rings.payload(fresh())) for _ in range(12)]
    file = written(tmp_path / "knocks.pcap", 101, *packets)
    write(tmp_path / "access.conf", access(rings))
    write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/firewall.nft;\n")
    words = ("-f", "-c", str(tmp_path / "doorwardd.conf"), "-a", str(tmp_path / "access.conf"), "-r", str(tmp_path))
    done = pair[0].run(*command(*words, "--pcap-file", str(file)), env=environment())
    assert done.stderr.count("reason=granted") == len(packets), done.stderr
