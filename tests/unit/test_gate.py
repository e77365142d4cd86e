"""One datagram to one verdict."""

from __future__ import annotations

import ipaddress
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from doorward.config.stanza import Commands, Cycle
from doorward.crypto import sealing, symmetric
from doorward.denials import Bug, CommandFailed, FirewallFailed, StoreFailed
from doorward.errors import FirewallError, HelperError, ReplayError
from doorward.gate import FUTURE_MAX, RECENT_MAX, Gate, Verdict
from doorward.record import line as record_line
from doorward.replay import ReplayStore
from doorward.values import EncryptionMode, Execution, Networks, Reason, Service
from doorward.wire import fwknop
from doorward.wire.fwknop import MessageType
from unit.making import (
    KEYS,
    NOW,
    ORIGIN,
    ORIGIN6,
    OTHER_KEYS,
    Door,
    Memory,
    datagram,
    message,
    payload,
    stanza,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doorward.config.stanza import Stanza
    from doorward.values import Datagram, SymmetricKeys
    from doorward.wire.fwknop import Message

SSH = Service.parse("tcp/22")
ELSEWHERE = Networks.of([ipaddress.ip_network("203.0.113.0/24")])


def judge(
    knock: Datagram, *stanzas: Stanza, door: Door | None = None, memory: Memory | None = None, max_age: int | None = 120
) -> Verdict:
    chosen = door or Door()
    gate = Gate(stanzas or (stanza(),), memory or Memory(), chosen.open, max_age)
    verdict = gate.judge(knock, NOW)
    assert verdict.granted == bool(chosen.grants)
    return verdict


def knock(made: Message | None = None, **changes: Any) -> Datagram:
    return datagram(payload(made or message(**changes)))


def test_a_good_knock_opens_what_it_asks_for() -> None:
    door = Door()
    verdict = judge(knock(), door=door)
    assert (verdict.reason, verdict.stanza, verdict.user) == (Reason.GRANTED, 1, "alice")
    (grant,) = door.grants
    assert (str(grant.source), grant.services, grant.seconds) == ("192.0.2.7", (SSH,), 30)


def test_every_verdict_of_a_stanza_has_its_name() -> None:
    laptop, phone = stanza(name="laptop"), stanza(2, keys=OTHER_KEYS, name="phone")
    cycle = Cycle("/bin/true", None, None)
    once, sent = Memory(), knock()
    given: list[tuple[Verdict, str, str]] = [
        (judge(sent, laptop, phone, memory=once), "granted", "laptop"),
        (judge(sent, laptop, phone, memory=once), "replay", "laptop"),
        (judge(datagram(payload(message(), OTHER_KEYS)), laptop, phone), "granted", "phone"),
        (judge(datagram(b"A" * 200), laptop, phone), "hmac", "laptop"),
        (judge(knock(), replace(laptop, expires=1)), "expired", "laptop"),
        (judge(knock(), replace(laptop, require_username="bob")), "username", "laptop"),
        (
            judge(datagram(payload(message(), replace(OTHER_KEYS, hmac_key=KEYS.hmac_key))), laptop),
            "decryption",
            "laptop",
        ),
    ]
    assert [(str(verdict.reason), verdict.name) for verdict, *_ in given] == [tuple(wanted) for _, *wanted in given]
    runs = Gate((replace(laptop, cycle=cycle),), Memory(), Door().open, 120, execute=lambda _: None)
    assert runs.judge(knock(), NOW).name == "laptop"
    assert judge(knock(), replace(laptop, source=ELSEWHERE)).name is None, "no stanza decided"
    line = record_line.line(given[0][0])
    assert " stanza=1 name=laptop user=alice " in line
    assert "name=" not in record_line.line(judge(knock()))


def test_a_packet_sent_again_after_a_reload_has_the_name_that_it_was_seen_under() -> None:
    before, sent = Gate((stanza(name="laptop"),), Memory(), Door().open, 120), knock()
    before.judge(sent, NOW)
    after = Gate((stanza(name="phone"),), Memory(), Door().open, 120)
    after.go_on_from(before)
    verdict = after.judge(sent, NOW)
    assert (verdict.reason, verdict.name) == (Reason.REPLAY, "laptop")


def test_an_unspecified_source_means_the_origin_in_both_families() -> None:
    door = Door()
    for origin in (ORIGIN, ORIGIN6):
        judge(datagram(payload(message(text="0.0.0.0,tcp/22")), origin), door=door)
    assert [grant.source.packed for grant in door.grants] == [ORIGIN, ORIGIN6]


def padded_with(padding: Callable[[int], bytes], count: int, keys: SymmetricKeys = KEYS) -> Datagram:
    """A knock whose last block lacks `count` bytes, from a client that pads in another way."""
    made = (
        fwknop.serialize(message(user="u" * user, version=version)) for user in range(1, 20) for version in ("3", "30")
    )
    plaintext = next(one for one in made if -len(one) % 16 == count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "_pad", lambda text: text + padding(count))
        return datagram(symmetric.seal(plaintext, keys, b"saltsalt"))


@pytest.mark.parametrize("mode", list(EncryptionMode))
def test_a_plaintext_that_fills_its_last_block_needs_no_padding(mode: EncryptionMode) -> None:
    keys = replace(KEYS, mode=mode)
    assert judge(padded_with(bytes, 0, keys), stanza(keys=keys)).granted


@pytest.mark.parametrize("padding", [bytes, lambda count: bytes(count - 1) + bytes([count])], ids=["zeros", "X9.23"])
@pytest.mark.parametrize("count", [2, 7, 15])
def test_padding_of_another_kind_is_refused(padding: Callable[[int], bytes], count: int) -> None:
    verdict = judge(padded_with(padding, count))
    assert (verdict.reason, verdict.stanza) == (Reason.DECODE, 1)


def test_an_ipv6_source_is_granted_as_it_is() -> None:
    door = Door()
    judge(knock(text="2001:db8::5,tcp/22"), door=door)
    assert [str(grant.source) for grant in door.grants] == ["2001:db8::5"]


def test_a_service_asked_for_twice_is_opened_once() -> None:
    door = Door()
    judge(knock(text="192.0.2.7,tcp/22,udp/53,tcp/22"), door=door)
    assert door.grants[0].services == (SSH, Service.parse("udp/53"))


REFUSED: dict[str, tuple[Datagram, dict[str, Any], Reason]] = {
    "an empty payload": (datagram(b""), {}, Reason.MALFORMED),
    "a payload with its prefix": (datagram(b"U2FsdGVkX1" + payload()), {}, Reason.MALFORMED),
    "a payload with padding": (datagram(payload() + b"="), {}, Reason.MALFORMED),
    "a stranger's network": (knock(), {"source": ELSEWHERE}, Reason.NO_STANZA),
    "another destination": (knock(), {"destination": ELSEWHERE}, Reason.NO_STANZA),
    "an expired stanza": (knock(), {"expires": int(NOW)}, Reason.EXPIRED),
    "another pair's keys": (datagram(payload(keys=OTHER_KEYS)), {}, Reason.HMAC),
    "a wrong encryption key under the right HMAC key": (
        datagram(payload(keys=type(KEYS)(OTHER_KEYS.key, KEYS.hmac_key))),
        {},
        Reason.DECRYPTION,
    ),
    "a packet made 121 s ago": (knock(time=int(NOW) - 121), {}, Reason.STALE),
    "a packet made 121 s ahead": (knock(time=int(NOW) + 121), {}, Reason.FUTURE),
    "a packet made two years ago by our clock": (knock(time=int(NOW) - 2 * 365 * 86400), {}, Reason.CLOCK),
    "a packet made in two years by our clock": (knock(time=int(NOW) + 2 * 365 * 86400), {}, Reason.CLOCK),
    "another user": (knock(), {"require_username": "bob"}, Reason.USERNAME),
    "no source where one is required": (
        knock(text="0.0.0.0,tcp/22"),
        {"require_source_address": True},
        Reason.SOURCE_REQUIRED,
    ),
    "a source outside SOURCE": (
        knock(text="203.0.113.1,tcp/22"),
        {"source": Networks.of([ipaddress.ip_network("192.0.2.0/24")])},
        Reason.SOURCE,
    ),
    "a command": (knock(type=MessageType.COMMAND, text="192.0.2.7,id"), {}, Reason.UNSUPPORTED),
    "a NAT request": (knock(type=MessageType.NAT, nat_access="10.0.0.1,22"), {}, Reason.UNSUPPORTED),
    "a service that is not open": (knock(text="192.0.2.7,tcp/23"), {"open_ports": {SSH}}, Reason.SERVICES),
    "one service too many": (knock(text="192.0.2.7,tcp/22,tcp/23"), {"open_ports": {SSH}}, Reason.SERVICES),
    "a restricted service": (knock(), {"restrict_ports": {SSH}, "open_ports": {SSH}}, Reason.SERVICES),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_knock_is_refused_and_the_same_knock_without_its_fault_is_granted(name: str) -> None:
    refused, limits, reason = REFUSED[name]
    assert judge(refused, stanza(**limits)).reason is reason
    assert judge(knock()).reason is Reason.GRANTED


@pytest.mark.parametrize("age", [-120, 0, 120])
def test_the_accepted_age_includes_its_ends(age: int) -> None:
    assert judge(knock(time=int(NOW) - age)).granted


def test_ageing_can_be_off_and_then_replays_are_kept_for_ever() -> None:
    memory = Memory()
    assert judge(knock(time=1), memory=memory, max_age=None).granted
    assert set(memory.kept.values()) == {2**62}


def test_the_client_chooses_the_window_up_to_the_longest() -> None:
    door = Door()
    for wish in (0, 10, 300, 301):
        judge(knock(type=MessageType.ACCESS_TIMEOUT, timeout=wish), door=door)
    assert [grant.seconds for grant in door.grants] == [30, 10, 300, 300]


def test_a_replay_is_refused_from_everywhere() -> None:
    memory, first = Memory(), knock()
    assert judge(first, memory=memory).granted
    assert judge(first, memory=memory).reason is Reason.REPLAY
    assert judge(first._replace(origin=ORIGIN6), memory=memory).reason is Reason.REPLAY


def test_more_packets_than_are_kept_at_hand_are_still_known() -> None:
    memory, door = Memory(), Door()
    gate = Gate((stanza(),), memory, door.open, 120)
    first = knock()
    assert gate.judge(first, NOW).granted
    for _ in range(RECENT_MAX + 1):
        assert gate.judge(knock(), NOW).granted
    assert gate.judge(first, NOW).reason is Reason.REPLAY


def test_an_expired_stanza_does_not_hide_that_the_others_keys_did_not_fit() -> None:
    expired, other = stanza(1, expires=1), stanza(2, keys=OTHER_KEYS)
    for order in ((expired, other), (other, expired)):
        assert judge(knock(), *order).reason is Reason.HMAC
    assert judge(knock(), expired, stanza(2, expires=2)).stanza == 1


def test_a_refused_packet_is_remembered_too() -> None:
    memory, early = Memory(), knock(time=int(NOW) + 200)
    assert judge(early, memory=memory).reason is Reason.FUTURE
    gate = Gate((stanza(),), memory, Door().open, 120)
    assert gate.judge(early, NOW + 200).reason is Reason.REPLAY
    assert min(memory.kept.values()) > NOW + 200 + 120


def test_one_clients_packets_from_the_future_do_not_fill_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doorward.gate.FUTURE_MAX", 3)
    assert FUTURE_MAX > 3
    memory, door = Memory(), Door()
    gate = Gate((stanza(),), memory, door.open, 120)
    reasons = [gate.judge(knock(time=10**11 + number), NOW).reason for number in range(6)]
    assert reasons == [Reason.CLOCK] * 3 + [Reason.STORE] * 3
    assert len(memory.kept) == 3
    assert gate.judge(knock(), NOW).granted


def test_nothing_is_remembered_for_strangers() -> None:
    memory = Memory()
    judge(datagram(payload(keys=OTHER_KEYS)), memory=memory)
    assert not memory.kept


def test_a_packet_under_two_stanzas_with_the_same_keys_is_no_replay_of_itself() -> None:
    first, second = stanza(1, open_ports={Service.parse("tcp/80")}), stanza(2, open_ports={SSH})
    verdict = judge(knock(), first, second)
    assert (verdict.reason, verdict.stanza) == (Reason.GRANTED, 2)


def test_a_packet_cut_differently_by_two_stanzas_is_still_one_packet() -> None:
    bare = type(KEYS)(KEYS.key, None)
    memory = Memory()
    sealed = payload()
    assert judge(datagram(sealed), memory=memory).granted
    without_tag = datagram(sealed[: -KEYS.tag_length])
    assert judge(without_tag, stanza(keys=bare), memory=memory).reason is Reason.REPLAY
    assert judge(without_tag, stanza(keys=bare)).granted


def test_the_refusal_that_came_furthest_is_reported() -> None:
    verdict = judge(knock(time=int(NOW) - 999), stanza(1, keys=OTHER_KEYS), stanza(2), stanza(3, keys=OTHER_KEYS))
    assert (verdict.reason, verdict.stanza) == (Reason.STALE, 2)


def test_without_the_store_nothing_opens() -> None:
    verdict = judge(knock(), memory=Memory(ReplayError("the disk is full")))
    assert verdict.denial == StoreFailed("the disk is full")


def test_a_firewall_that_refuses_is_a_verdict_of_its_own() -> None:
    verdict = judge(knock(), door=Door(FirewallError("no such table")))
    assert verdict.denial == FirewallFailed("no such table")


def test_a_command_that_nobody_takes_is_a_verdict_of_its_own() -> None:
    def gone(_: Execution) -> None:
        msg = "doorward-exec does not keep up"
        raise HelperError(msg)

    runs = (stanza(cycle=Cycle("/bin/x $IP", None, 7)),)
    assert Gate(runs, Memory(), Door().open, 120, execute=gone).judge(knock(), NOW).denial == CommandFailed(
        "doorward-exec does not keep up"
    )
    verdict = Gate(runs, Memory(), Door().open, 120).judge(knock(), NOW)
    assert verdict.denial == CommandFailed("nothing runs commands here, and stanza 1 needs it")
    assert verdict.execution is not None
    assert verdict.execution.seconds == 7


def test_of_many_stanzas_whose_keys_do_not_fit_the_first_is_named() -> None:
    verdict = judge(knock(), *(stanza(number, keys=OTHER_KEYS) for number in (3, 1, 2)))
    assert (verdict.reason, verdict.stanza) == (Reason.HMAC, 3)


def test_a_bug_becomes_a_verdict_and_opens_nothing() -> None:
    broken = Memory(RuntimeError("unforeseen"))  # type: ignore[arg-type]  # the point is an error nobody expects
    verdict = judge(knock(), memory=broken)
    assert verdict.denial == Bug("RuntimeError: unforeseen")


def test_the_audit_line_of_a_grant_says_who_what_and_how_long() -> None:
    assert record_line.line(judge(knock())) == (
        "verdict=granted reason=granted origin=192.0.2.7 origin_port=40000 stanza=1 user=alice"
        " source=192.0.2.7 services=tcp/22 seconds=30"
    )


def test_the_audit_line_of_a_stranger_says_where_it_came_from() -> None:
    line = record_line.line(judge(datagram(payload()), stanza(source=ELSEWHERE)))
    assert line == "verdict=denied reason=no_stanza origin=192.0.2.7 origin_port=40000"


def test_the_audit_line_cannot_be_forged_from_inside() -> None:
    line = record_line.line(judge(knock(user="al verdict^granted'x"), stanza(require_username="bob")))
    assert line.startswith("verdict=denied reason=username origin=192.0.2.7 origin_port=40000 stanza=1 ")
    assert 'user="al verdict^granted\'x" ' in line


@pytest.mark.parametrize("nobody", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"])  # noqa: S104  nothing is bound
def test_a_packet_from_an_address_that_is_nobodys_runs_and_opens_nothing(nobody: str) -> None:
    ran: list[Execution] = []
    runs = stanza(cycle=Cycle("/bin/x $IP", None, None), open_ports={SSH})
    commands = stanza(commands=Commands())
    origins = [ipaddress.ip_address(nobody).packed, ORIGIN]
    for one, asked in (
        (stanza(), message(text="0.0.0.0,tcp/22")),
        (runs, message(text="0.0.0.0,tcp/22")),
        (runs, message()),
        (commands, message(type=MessageType.COMMAND, text="0.0.0.0,id")),
    ):
        door = Door()
        gate = Gate((one,), Memory(), door.open, 120, execute=ran.append)
        reasons = [gate.judge(datagram(payload(asked), origin), NOW).reason for origin in origins]
        assert reasons == [Reason.SOURCE, Reason.GRANTED]
        assert len(door.grants) + len(ran) == 1
        ran.clear()


@pytest.mark.parametrize("nobody", ["224.0.0.1", "255.255.255.255"])
def test_a_source_that_is_nobodys_is_refused_although_source_is_any(nobody: str) -> None:
    assert judge(knock(text=f"{nobody},tcp/22")).reason is Reason.SOURCE
    assert judge(knock(text="192.0.2.9,tcp/22")).granted


def test_a_knock_that_the_store_could_not_take_is_granted_to_nobody_later(tmp_path: Path) -> None:
    store, door, sent = ReplayStore(tmp_path / "replay.db"), Door(), knock(text="0.0.0.0,tcp/22")
    gate = Gate((stanza(),), store, door.open, 120)
    other = sqlite3.connect(tmp_path / "replay.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert gate.judge(sent, NOW).reason is Reason.STORE
    other.execute("ROLLBACK")
    assert gate.judge(sent._replace(origin=ORIGIN6), NOW + 1).reason is Reason.REPLAY
    assert gate.judge(knock(), NOW + 1).granted
    assert gate.judge(sent._replace(origin=ORIGIN6), NOW + 2).reason is Reason.REPLAY
    other.close()
    store.close()
