"""The keys of a copied keyring under a passphrase that costs nothing to use."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.config.files import Disk
from doorward.errors import OpenPgpError
from doorward.gnupg import worker
from doorward.gnupg.messages import Keyring
from doorward.gnupg.relocking import S2K_COUNT, relock
from doorward.values import Secret
from doorward.wire import fwknop
from gnupg_keys import PASSPHRASE, keyrings
from unit.making import MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gnupg_keys import Keyrings

GIVEN = Secret(PASSPHRASE.encode())


@pytest.fixture(scope="module")
def rings() -> Iterator[Keyrings]:
    with keyrings() as made:
        yield made


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dw") as folder:  # the path of a socket is short
        yield Path(folder) / "copy"


def ring(rings: Keyrings, password: Secret | None = GIVEN, recipient: str = "host-locked") -> Keyring:
    return Keyring(Disk().tree(rings.host), None, password, rings.fingerprints[recipient])


def hashes(home: Path, keygrips: list[str]) -> set[int]:
    """How many bytes are hashed for the passphrase of each key."""
    files = [(home / "private-keys-v1.d" / f"{keygrip}.key").read_bytes() for keygrip in keygrips]
    return {int(count) for content in files for count in re.findall(rb'#\s*"(\d+)"\s*\)', content)}


def test_the_passphrase_of_a_key_is_hashed_slowly_once_and_not_at_every_packet(rings: Keyrings, home: Path) -> None:
    with worker.keyring(ring(rings), home) as decryptor:
        grips = decryptor.keygrips()
        assert len(grips) == 2
        assert hashes(home, grips) == {S2K_COUNT}
        assert hashes(rings.host, grips).isdisjoint({S2K_COUNT})
        blob = rings.message(fwknop.serialize(MESSAGE), recipient="host-locked")
        assert decryptor.unseal(blob).plaintext == fwknop.serialize(MESSAGE)


def test_the_copy_has_a_passphrase_that_nobody_knows(rings: Keyrings, home: Path) -> None:
    with worker.keyring(ring(rings), home) as decryptor:
        assert decryptor.password is not None
        assert decryptor.password != GIVEN
        assert relock(home, decryptor.keygrips(), decryptor.password) != decryptor.password
        with pytest.raises(OpenPgpError, match="does not open"):
            relock(home, decryptor.keygrips(), GIVEN)


def test_a_wrong_passphrase_is_reported_when_the_keyring_is_opened(rings: Keyrings, home: Path) -> None:
    with (
        pytest.raises(OpenPgpError, match="the passphrase does not open the key"),
        worker.keyring(ring(rings, Secret(b"wrong: 100 %\xff")), home),
    ):
        pass


def test_keys_that_are_elsewhere_keep_their_passphrase(rings: Keyrings, home: Path) -> None:
    with worker.keyring(ring(rings, None, "host"), home) as decryptor:
        assert decryptor.password is None
        assert relock(home, ["0" * 40], GIVEN) == GIVEN


WATCHED = """
import os, tempfile, threading
from pathlib import Path
from doorward.gnupg import worker
os.dup2(os.open(os.devnull, os.O_RDONLY), 3)
seen, over = set(), threading.Event()
def watch():
    while not over.is_set():
        try:
            seen.add(os.readlink("/proc/self/fd/3"))
        except FileNotFoundError:
            seen.add("none")
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
for _ in range(5):
    with tempfile.TemporaryDirectory(dir="/tmp") as home, worker._agent(Path(home)):
        pass
over.set()
watcher.join()
print(seen)
"""


def test_the_descriptor_that_an_agent_is_given_is_never_taken_from_another_thread() -> None:
    shown = subprocess.run([sys.executable, "-c", WATCHED], check=True, capture_output=True, text=True).stdout
    assert shown == "{'/dev/null'}\n"


def test_an_agent_that_is_not_installed_is_named_with_its_package(
    rings: Keyrings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_AGENT", "gpg-agent-of-nobody")
    said = r"^gpg-agent-of-nobody cannot be started \(Debian: package gpg-agent\): No such"
    with pytest.raises(OpenPgpError, match=said), worker.keyring(ring(rings), home):
        pass


def test_an_agent_that_is_gone_is_an_error(home: Path) -> None:
    with pytest.raises(OpenPgpError, match="gpg-agent does not take a passphrase"):
        relock(home, [], GIVEN)
