"""Every mode, digest, HMAC, message type and carrier with every other, in both directions against Debian's fwknop.

Nothing is left out: both clients send all 12 054 packets for real, through the kernel from one namespace to another,
and what arrives is captured and read by the other side's daemon. Only what the daemons do then is left to
test_end_to_end.py: fwknopd reads the capture with --test, and doorward judges it without a packet filter. The capture
of fwknop's own client is read by fwknopd as well, which shows that the road loses nothing and the files agree.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from doorward.crypto import symmetric
from doorward.values import DigestType, Reason, address
from doorward.wire.fwknop import MessageType
from interop.formats import COMBINATIONS, COMMAND, USER, Combination
from interop.peers import judge, read_by_fwknopd, send_by_doorward, send_by_fwknop
from interop.road import Capture, acceptor, capture, road

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from doorward.gate import Verdict
    from interop.peers import Read, Sent
    from system.netns import Namespace

EVERY = pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda combination: combination.name)


@dataclass(frozen=True)
class Trip:
    """What one client sent, by the combinations' numbers, and what both daemons made of it."""

    sent: list[Sent]
    by_fwknopd: dict[str, list[Read]]
    by_doorward: dict[str, list[Verdict]]
    arrived: Capture


def trip(send: Callable[[Namespace, Path], list[Sent]], folder: Path) -> Trip:
    with road() as (host, client), acceptor(host), capture(host) as arrived:
        sent = send(client, folder)
        arrived.end(host, client)
    file = arrived.write(folder / "arrived.pcap")
    return Trip(sent, read_by_fwknopd(file, folder, len(arrived.frames)), judge(file, folder), arrived)


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trip]:
    """What each client's packets came to. Where that cannot be found out, not every test has to say so."""
    try:
        return {
            "fwknop": trip(send_by_fwknop, tmp_path_factory.mktemp("from-fwknop")),
            "doorward": trip(send_by_doorward, tmp_path_factory.mktemp("from-doorward")),
        }
    except Exception as error:  # noqa: BLE001  whatever it is, it is said once
        traceback.print_exc()
        pytest.exit(f"no packets to compare: {error}", returncode=1)


@pytest.fixture(scope="module")
def from_fwknop(trips: dict[str, Trip]) -> Trip:
    return trips["fwknop"]


@pytest.fixture(scope="module")
def from_doorward(trips: dict[str, Trip]) -> Trip:
    return trips["doorward"]


@EVERY
def test_doorward_understands_what_fwknop_sends(combination: Combination, from_fwknop: Trip) -> None:
    sent = from_fwknop.sent[combination.number]
    (verdict,) = from_fwknop.by_doorward[str(combination.source)]
    assert verdict.reason is Reason.GRANTED, verdict.denial
    assert verdict.datagram.payload == sent.payload
    assert str(address(verdict.datagram.origin)) == combination.way.origin
    assert (verdict.stanza, verdict.user) == (combination.way.number, USER)
    assert symmetric.unseal(sent.payload, combination.way.symmetric_keys()).decode() == sent.plaintext
    assert verdict.grant == combination.granted
    if combination.granted is None:
        assert verdict.execution is not None
        assert (verdict.execution.command, verdict.execution.source) == (COMMAND, combination.source)


@EVERY
def test_fwknopd_understands_what_doorward_sends(combination: Combination, from_doorward: Trip) -> None:
    sent = from_doorward.sent[combination.number]
    (read,) = from_doorward.by_fwknopd[str(combination.source)]
    assert taken_by_fwknopd(combination, from_doorward)
    assert {label: read.fields[label] for label in ("Encoded Data", "SPA Data Digest", "Username")} == {
        "Encoded Data": sent.fields["Encoded Data"],
        "SPA Data Digest": sent.fields["SPA Data Digest"],
        "Username": USER,
    }
    assert read.fields["Message String"] == combination.text
    assert read.fields["Nat Access"] == (combination.nat_text or "<NULL>")
    assert read.fields["Client Timeout"] == str(combination.timeout or 0)
    assert _number(read.fields["Message Type"]) == combination.type
    assert _number(read.fields["Digest Type"]) == combination.digest.value
    assert _number(read.fields["HMAC Type"]) == (combination.way.hmac.value if combination.way.hmac else 0)
    assert _number(read.fields["Encryption Mode"]) == combination.way.mode.value


def taken_by_fwknopd(combination: Combination, trip: Trip) -> bool:
    """Say whether fwknopd would have opened for a packet, by the stanza that was meant."""
    line = f"[{combination.way.origin}] (stanza #{combination.way.number}) --test mode enabled, skip"
    return [line in read.outcome for read in trip.by_fwknopd.get(str(combination.source), [])] == [True]


def _number(text: str) -> int:
    """Return the number in front of a name in fwknop's dump."""
    return int(text.split(" ", 1)[0])


def test_the_matrix_is_whole() -> None:
    modes, digests, hmacs, types, carriers = 6, len(DigestType), len(DigestType) + 1, len(MessageType), 6
    without_legacy_hmacs = modes * hmacs - len(DigestType)
    assert len({combination.name for combination in COMBINATIONS}) == without_legacy_hmacs * digests * types * carriers


def test_fwknopd_takes_all_that_fwknop_sends(from_fwknop: Trip) -> None:
    """What the road or the files lose would be lost here too."""
    assert [combination.name for combination in COMBINATIONS if not taken_by_fwknopd(combination, from_fwknop)] == []


def test_neither_daemon_takes_a_packet_that_was_changed_on_its_way(from_fwknop: Trip, tmp_path: Path) -> None:
    """What this sees as refused, the tests above would have seen too."""
    frames = [_changed(frame) for frame in from_fwknop.arrived.frames]
    file = Capture(frames).write(tmp_path / "changed.pcap")
    assert not any("skipping" in read.outcome for reads in by_source(file, tmp_path, frames) for read in reads)
    verdicts = judge(file, tmp_path)
    assert list(verdicts) == ["None"]
    assert len(verdicts["None"]) == len(COMBINATIONS)
    assert {verdict.reason for verdict in verdicts["None"]} <= {Reason.HMAC, Reason.DECRYPTION, Reason.DECODE}


def by_source(file: Path, folder: Path, frames: list[bytes]) -> Iterable[list[Read]]:
    return read_by_fwknopd(file, folder, len(frames)).values()


def _changed(frame: bytes) -> bytes:
    """Return a frame with one character of the ciphertext in it changed."""
    packet = re.search(rb"[A-Za-z0-9+/_-]{120,}", frame)
    assert packet
    place = packet.start() + 40
    return frame[:place] + (b"A" if frame[place : place + 1] != b"A" else b"B") + frame[place + 1 :]
