"""Packets with one-time codes on their way through the gate, with the store on the disk."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from doorward.crypto.one_time_code import code, step_of
from doorward.denials import CodeDenied, CodeFault, ServiceClosed, StoreFailed, WrongSource
from doorward.errors import ReplayError
from doorward.gate import Gate, Verdict
from doorward.record import fwknop as fwknop_log
from doorward.record import line as record_line
from doorward.replay import Past, ReplayStore, ReplayView
from doorward.values import Networks, Reason, Secret, Service
from doorward.wire.doorward import Ports
from unit.making import NOW, Door, Memory, datagram
from unit.test_gate_doorward import HOST, PHONE, SOURCE6, clients, message, packet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = Secret(b"s" * 20)
STANZA = clients(one_time_code=SECRET)
STEP = step_of(NOW)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplayStore]:
    opened = ReplayStore(tmp_path / "replay.db")
    yield opened
    opened.close()


def made(memory: object, door: Door | None = None, *stanzas: object) -> Gate:
    return Gate(stanzas or (STANZA,), memory, (door or Door()).open, 120, host_key=HOST)  # type: ignore[arg-type]


def knock(
    gate: Gate, step: int | None = STEP, now: float = NOW, given: int | None = None, **changes: object
) -> Verdict:
    chosen = given if step is None else code(SECRET, step)
    return gate.judge(datagram(packet(message(now, code=chosen, **changes))), now)


def test_a_knock_needs_the_code_of_a_step_and_each_step_once(store: ReplayStore) -> None:
    door = Door()
    gate = made(store, door)
    faults = [
        (knock(gate, None), CodeFault.MISSING),
        (knock(gate, None, given=(code(SECRET, STEP) + 1) % 10**6), CodeFault.WRONG),
        (knock(gate, STEP - 2), CodeFault.WRONG),
        (knock(gate, STEP + 2), CodeFault.WRONG),
    ]
    assert [verdict.denial for verdict, _ in faults] == [CodeDenied(fault) for _, fault in faults]
    assert not door.grants
    assert knock(gate, STEP - 1).granted
    assert knock(gate, STEP).granted
    assert knock(gate, STEP).denial == CodeDenied(CodeFault.USED)
    assert knock(gate, STEP - 1).denial == CodeDenied(CodeFault.USED)
    assert knock(gate, STEP + 1).granted
    assert len(door.grants) == 3


def test_a_used_code_is_used_after_a_restart_and_for_root(store: ReplayStore, tmp_path: Path) -> None:
    assert knock(made(store)).granted
    store.close()
    view = ReplayView(tmp_path / "replay.db")
    assert knock(made(view)).denial == CodeDenied(CodeFault.USED)
    assert knock(made(view), STEP + 1).granted
    view.close()
    again = ReplayStore(tmp_path / "replay.db")
    moved = replace(STANZA, number=7, line=70)
    assert knock(made(again, None, moved)).denial == CodeDenied(CodeFault.USED), "the stanza moved in the file"
    assert knock(made(again), STEP + 1).granted, "explain has used nothing up"
    again.close()


def test_a_store_that_was_lost_takes_the_codes_of_its_time_for_used(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    first = ReplayStore(path)
    assert knock(made(first), STEP + 1).granted
    first.close()
    path.unlink()
    second = ReplayStore(path, if_lost=int(NOW) + 64)
    assert second.past is Past.LOST
    thief = NOW + 65
    assert knock(made(second), STEP + 1, thief - 30).reason is Reason.REPLAY, "its packets are refused for a time"
    ahead = message(thief, code=code(SECRET, STEP + 1))
    assert made(second).judge(datagram(packet(ahead)), thief - 30).denial == CodeDenied(CodeFault.USED)
    later = NOW + 240
    assert knock(made(second), step_of(later), later).granted
    second.close()


def test_a_code_is_of_one_client(store: ReplayStore) -> None:
    both = replace(STANZA, clients=(*STANZA.clients, *clients(1, (PHONE, "phone")).clients))
    gate = made(store, None, both)
    assert knock(gate).granted
    of_the_phone = packet(message(code=code(SECRET, STEP)), PHONE)
    assert gate.judge(datagram(of_the_phone), NOW).granted


def test_what_would_be_denied_anyway_uses_up_no_code(store: ReplayStore) -> None:
    gate = made(store)
    web = Service.parse("tcp/8080")
    refused = knock(gate, services=(Ports(web.protocol, 8080, 8080),))
    assert refused.denial == ServiceClosed(web)
    assert knock(gate).granted


def test_two_sources_need_one_code(store: ReplayStore) -> None:
    door = Door()
    assert knock(made(store, door), second=SOURCE6).granted
    assert len(door.grants) == 2


def test_a_code_is_used_for_the_source_that_is_let_in_and_by_none_that_is_not(store: ReplayStore) -> None:
    inside = Networks.of([ipaddress.ip_network("0.0.0.0/0")])
    gate = made(store, None, replace(STANZA, source=inside))
    assert knock(gate, source=SOURCE6).denial == WrongSource(SOURCE6)
    verdict = knock(gate, second=SOURCE6)
    assert (verdict.granted, verdict.other) == (True, WrongSource(SOURCE6))
    assert knock(gate, second=SOURCE6).denial == CodeDenied(CodeFault.USED)


def test_a_thousand_guesses_leave_the_door_closed_and_its_owner_gets_in(store: ReplayStore) -> None:
    door = Door()
    gate = made(store, door)
    right = {code(SECRET, STEP + shift) for shift in (-1, 0, 1)}
    wrong = (number for number in range(10**6) if number not in right)
    reasons = {knock(gate, None, given=next(wrong)).reason for _ in range(1000)}
    assert reasons == {Reason.CODE}
    assert knock(gate, STEP).denial == CodeDenied(CodeFault.TOO_MANY)
    other = made(store, door)
    other.go_on_from(gate)
    assert knock(other, STEP + 1, NOW + 30).denial == CodeDenied(CodeFault.FIRST_OF_TWO), "after a reload too"
    assert not door.grants
    assert knock(other, STEP + 2, NOW + 60).granted
    assert len(door.grants) == 1


def test_a_code_that_cannot_be_remembered_opens_nothing(store: ReplayStore) -> None:
    class Torn(Memory):
        def use_step(self, name: bytes, step: int) -> bool:  # noqa: ARG002  as there
            raise ReplayError("full")  # noqa: EM101  a test's error

    door = Door()
    assert knock(made(Torn(), door)).denial == StoreFailed("full")
    store.close()
    with pytest.raises(ReplayError, match="cannot be written"):
        store.use_step(b"x", 1)
    assert not door.grants


def test_a_wrong_code_has_its_line_and_none_of_fwknopds(store: ReplayStore) -> None:
    verdict = knock(made(store), None)
    assert record_line.line(verdict).endswith(
        'reason=code origin=192.0.2.7 origin_port=40000 stanza=1 name=laptop detail="the packet has no one-time code"'
    )
    assert fwknop_log.entries(verdict, NOW) == ()


def test_a_stanza_without_codes_minds_none(store: ReplayStore) -> None:
    assert knock(made(store, None, clients()), None, given=123456).granted
