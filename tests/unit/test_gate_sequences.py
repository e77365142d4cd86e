"""Sequences of ports at the gate: which stanza's they are, what it opens, and what it does not."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from doorward import replay
from doorward.config import sequence
from doorward.config.sequence import SYN, Sequence
from doorward.config.stanza import Cycle
from doorward.errors import ReplayError
from doorward.gate import Gate
from doorward.replay import ReplayStore
from doorward.values import Completed, Datagram, Networks, Reason, Service, address
from unit.making import HOST, NOW, ORIGIN, ORIGIN6, Memory, stanza

if TYPE_CHECKING:
    from pathlib import Path

    from doorward import gate
    from doorward.config.stanza import Stanza
    from doorward.gate import Verdict
    from doorward.values import Execution, Grant

STEPS = sequence.steps("tcp/7000 udp/8000 tcp/9000")
ONE = Sequence(STEPS, 20, SYN, "access.conf:2")
OTHER = Sequence(STEPS[::-1], 20, SYN, "access.conf:5")
PORTS = frozenset({Service.parse("tcp/22"), Service.parse("udp/53")})


def sent(made: Sequence = ONE, origin: bytes = ORIGIN, destination: bytes = HOST) -> Completed:
    return Completed(made.mark, origin, destination, 40000, 9000, 6)


def of(*sequences: Sequence, **changes: Any) -> Stanza:
    made = stanza(keys=None, sequences=sequences, open_ports=PORTS, name="old")
    return replace(made, **changes)


class Doors:
    """A gate and what it had opened."""

    def __init__(self, *stanzas: Stanza, memory: gate.Memory | None = None) -> None:
        self.opened: list[Grant] = []
        self.run: list[Execution] = []
        self.memory = memory or Memory()
        self.gate = Gate(stanzas, self.memory, self.opened.append, 120, execute=self.run.append)

    def judge(self, datagram: Datagram, now: float = NOW) -> Verdict:
        return self.gate.judge(datagram, now)


@pytest.mark.parametrize("origin", [ORIGIN, ORIGIN6])
def test_a_sequence_opens_all_ports_of_its_stanza_for_where_it_comes_from(origin: bytes) -> None:
    doors = Doors(stanza(), of(OTHER, number=2), of(ONE, number=3, fw_access_timeout=45))
    verdict = doors.judge(sent(origin=origin))
    assert (verdict.reason, verdict.stanza, verdict.name) == (Reason.GRANTED, 3, "old")
    (grant,) = doors.opened
    assert (grant.source, grant.services, grant.seconds) == (address(origin), tuple(sorted(PORTS)), 45)
    assert doors.judge(sent(origin=origin)).granted, "a sequence can be replayed"


def test_a_packet_with_the_same_bytes_is_no_sequence() -> None:
    doors = Doors(of(ONE))
    verdict = doors.judge(Datagram(*sent()))
    assert not verdict.granted
    assert not doors.opened
    assert doors.judge(sent()).granted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": Networks.of([])}, Reason.NO_STANZA),
        ({"destination": Networks.of([])}, Reason.NO_STANZA),
        ({"expires": int(NOW)}, Reason.EXPIRED),
        ({"restrict_ports": PORTS}, Reason.TARGET),
    ],
)
def test_a_stanzas_other_lines_hold_for_it(changes: dict[str, Any], reason: Reason) -> None:
    doors = Doors(of(ONE, **changes))
    assert doors.judge(sent()).reason is reason
    assert not doors.opened


def test_a_sequence_of_a_stanza_that_a_reload_removed_opens_nothing() -> None:
    doors = Doors(of(OTHER))
    assert doors.judge(sent()).reason is Reason.NO_STANZA
    assert doors.judge(sent(OTHER)).granted


def test_a_sequence_from_an_address_that_no_connection_has_opens_nothing() -> None:
    doors = Doors(of(ONE))
    for origin in (bytes(4), b"\xff" * 4, bytes([224, 0, 0, 1]), bytes([169, 254, 1, 1]), bytes(16)):
        assert doors.judge(sent(origin=origin)).reason is Reason.SOURCE
    assert not doors.opened


def test_a_command_cycle_runs_without_a_service() -> None:
    doors = Doors(of(ONE, open_ports=frozenset(), cycle=Cycle("/bin/true", "/bin/false", 60)))
    assert doors.judge(sent()).granted
    (execution,) = doors.run
    assert (execution.service, execution.seconds, execution.made) == (None, 60, int(NOW))


def test_a_sequence_of_a_file_opens_once_and_never_again() -> None:
    stanzas = (of(ONE, OTHER, one_time=True), of(Sequence(STEPS, 9, sequence.flags("fin")), number=2))
    doors = Doors(*stanzas)
    assert doors.judge(sent()).granted
    assert doors.judge(sent()).reason is Reason.REPLAY
    assert doors.judge(sent(origin=ORIGIN6), NOW + 10**8).reason is Reason.REPLAY
    assert doors.judge(sent(OTHER)).granted, "the others are not used"
    assert Doors(*stanzas, memory=doors.memory).judge(sent()).reason is Reason.REPLAY, "nor after a restart"
    assert len(doors.opened) == 2


@pytest.mark.parametrize("how", ["removed", "rotated"])
def test_where_the_store_was_lost_every_sequence_of_a_file_counts_as_used(tmp_path: Path, how: str) -> None:
    path, stanzas = tmp_path / "replay.db", (of(ONE, OTHER, one_time=True),)
    with contextlib.closing(ReplayStore(path)) as store:
        assert Doors(*stanzas, memory=store).judge(sent()).granted
    if how == "removed":
        path.unlink()
    else:
        replay.rotate(path, int(NOW), 120)
    with contextlib.closing(ReplayStore(path, if_new=int(NOW), if_lost=int(NOW))) as store:
        for made in (ONE, OTHER):
            assert Doors(*stanzas, memory=store).judge(sent(made)).reason is Reason.REPLAY


class Broken(Memory):
    """A memory that cannot be written."""

    def use_step(self, _name: bytes, _step: int) -> bool:
        msg = "no room"
        raise ReplayError(msg)


def test_without_a_memory_no_sequence_of_a_file_opens() -> None:
    doors = Doors(of(ONE, one_time=True), of(OTHER, number=2), memory=Broken())
    assert doors.judge(sent()).reason is Reason.STORE
    assert doors.judge(sent(OTHER)).granted, "one that can be replayed needs none"
    assert len(doors.opened) == 1
