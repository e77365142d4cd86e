"""Grants that one gateway tells the other."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from doorward.config.access import Access
from doorward.errors import FirewallError, ReplayError
from doorward.listener import carrying
from doorward.listener.carrying import CODEC, Carrier, Told
from doorward.record.line import line
from doorward.values import NO_PERMISSIONS, Grant, Service
from unit.making import NOW, OTHER_KEYS, Memory, stanza

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.config.stanza import Stanza
    from doorward.record.line import Carried
    from doorward.record.log import Log
    from unit.resp_server import Server

SSH = Service.parse("tcp/22")
LAPTOP = stanza(name="laptop", open_ports=frozenset({SSH}))
GRANT = Grant(ipaddress.ip_address("192.0.2.7"), (SSH,), 30, name="laptop")


class Gateway:
    """One of two gateways: what it opened, and what it said."""

    def __init__(
        self, server: Server, lines: Log, *stanzas: Stanza, open_grant: Callable[[Grant], None] | None = None
    ) -> None:
        self.opened: list[Grant] = []
        self.said: list[Carried] = []
        self.store = Memory()
        self.share = server.share(lines)
        self.carrier = Carrier(self.share, self.store, open_grant or self.opened.append, self.said.append)
        self.carrier.follow(Access(stanzas or (LAPTOP,), ()), NO_PERMISSIONS, 120)


def two(server: Server, lines: Log, *others: Stanza) -> tuple[Gateway, Gateway]:
    return Gateway(server, lines), Gateway(server, lines, *others)


def test_a_grant_is_opened_by_the_other_gateway_for_what_is_left_and_once(server: Server, lines: Log) -> None:
    one, other = two(server, lines)
    other.carrier.take(NOW)
    one.carrier.post(LAPTOP, GRANT, NOW)
    other.carrier.take(NOW + 2.5)
    one.carrier.take(NOW + 2.5)
    assert other.opened == [replace(GRANT, seconds=27)]
    assert (one.opened, one.said) == ([], []), "its own grant is none of the other one's"
    assert [line(said) for said in other.said] == [
        "verdict=carried reason=granted name=laptop source=192.0.2.7 services=tcp/22 seconds=27"
    ]
    server.add(server.entries[0])
    other.share.close()
    other.share.revive()
    other.carrier.take(NOW + 3)
    assert len(other.opened) == len(other.said) == 1
    (until,) = other.store.kept.values()
    assert until >= NOW + 240, "it is remembered as long as the packets of its time"


def test_a_grant_that_is_over_is_not_opened_and_has_no_line(server: Server, lines: Log) -> None:
    one, other = two(server, lines)
    one.carrier.post(LAPTOP, GRANT, NOW)
    other.carrier.take(NOW + 29.5)
    assert (other.opened, other.said) == ([], [])


@pytest.mark.parametrize(
    ("ahead", "opened", "said"),
    [
        (0, 1, ""),
        (-10, 0, "granted 10 s from now: the clocks of the gateways are apart"),
        (10, 1, "granted 10 s ago: the clocks of the gateways are apart, or it came late"),
        (60, 0, "granted 60 s ago: the clocks of the gateways are apart, or it came late"),
    ],
)
def test_clocks_that_are_apart_are_named_and_lengthen_no_window(
    server: Server, lines: Log, ahead: int, opened: int, said: str
) -> None:
    one, other = two(server, lines)
    other.carrier.take(NOW + ahead)
    one.carrier.post(LAPTOP, GRANT, NOW)
    other.carrier.take(NOW + ahead)
    assert [grant.seconds for grant in other.opened] == [30 - max(0, ahead)] * opened
    assert [one.detail for one in other.said] == [said]


def test_a_clock_that_is_a_little_behind_lengthens_no_window(server: Server, lines: Log) -> None:
    one, other = two(server, lines)
    one.carrier.post(LAPTOP, GRANT, NOW)
    other.carrier.take(NOW - 4)
    assert [grant.seconds for grant in other.opened] == [30]


def test_a_record_with_the_end_of_a_line_in_it_is_told_like_every_other(
    server: Server, lines: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two(server, lines)
    other.carrier.take(NOW)
    monkeypatch.setattr(os, "urandom", lambda size: b"\r\n" * (size // 2))
    one.carrier.post(LAPTOP, GRANT, NOW)
    assert b"\r\n" in server.entries[0]
    other.carrier.take(NOW)
    assert other.opened == [GRANT]


def test_a_record_that_no_key_here_made_is_one_line(server: Server, lines: Log) -> None:
    one, other = two(server, lines, stanza(keys=OTHER_KEYS, name="laptop"))
    one.carrier.post(LAPTOP, GRANT, NOW)
    one.carrier.post(LAPTOP, GRANT, NOW)
    other.carrier.take(NOW)
    why = "no stanza here has the keys that it names"
    (said,) = map(line, other.said)
    assert said == f'verdict=carried reason=refused detail="2 records, of which the last one: {why}"'
    assert not other.store.kept, "what anybody writes does not fill the store"
    third = Gateway(server, lines)
    record = bytearray(server.entries[0])
    record[-1] ^= 1
    server.entries = [bytes(record), server.entries[0][:8], b""]
    third.carrier.take(NOW)
    assert [said.detail.partition(",")[0] for said in third.said] == ["3 records"]
    key = third.carrier._keyed[server.entries[1]].key  # noqa: SLF001  a doorward of another version
    server.add(key.seal(b"Gnew", bytes(12)))
    third.carrier.take(NOW)
    assert "another version of doorward" in third.said[-1].detail
    assert third.opened == other.opened == []


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (replace(LAPTOP, open_ports=frozenset({Service.parse("tcp/80")})), "tcp/22 is not in OPEN_PORTS"),
        (replace(LAPTOP, name="phone"), "name laptop"),
        (replace(LAPTOP, expires=int(NOW) - 1), "expired"),
        (replace(LAPTOP, fw_access_timeout=9, max_fw_timeout=9), "window 30"),
    ],
)
def test_only_what_a_stanza_with_these_keys_allows_here_is_opened(
    server: Server, lines: Log, here: Stanza, why: str
) -> None:
    one, other = two(server, lines, here)
    one.carrier.post(LAPTOP, GRANT, NOW)
    other.carrier.take(NOW)
    assert other.opened == []
    (said,) = other.said
    assert why in said.detail
    assert "reason=refused" in line(said)


def test_of_several_stanzas_with_one_key_one_is_enough(server: Server, lines: Log) -> None:
    one, other = two(server, lines, replace(LAPTOP, open_ports=frozenset({Service.parse("tcp/80")})), LAPTOP)
    one.carrier.post(LAPTOP, GRANT, NOW)
    other.carrier.take(NOW)
    assert other.opened == [GRANT]


def test_what_the_packet_filter_or_the_store_refuses_has_its_line(server: Server, lines: Log) -> None:
    def refuse(_grant: Grant) -> None:
        msg = "the table is gone"
        raise FirewallError(msg)

    one, other = Gateway(server, lines), Gateway(server, lines, open_grant=refuse)
    one.carrier.post(LAPTOP, GRANT, NOW)
    other.carrier.take(NOW)
    assert [(said.opened, said.detail) for said in other.said] == [(False, "the table is gone")]
    failing = Gateway(server, lines)
    failing.carrier._store = Memory(ReplayError("the disk is full"))  # noqa: SLF001  as one that fails later
    failing.carrier.take(NOW)
    assert (failing.opened, failing.said[0].detail) == ([], "the disk is full")
    failing.carrier.post(LAPTOP, GRANT, NOW)
    assert failing.said[1].detail == "the other gateway is not told: the disk is full"
    assert len(server.entries) == 1


def test_a_share_that_is_away_is_told_what_is_still_open(
    server: Server, lines: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two(server, lines)
    server.stop("away")
    other.carrier.take(NOW)
    one.carrier.post(LAPTOP, replace(GRANT, seconds=5), NOW)
    one.carrier.post(LAPTOP, GRANT, NOW)
    one.carrier.tell(NOW + 1)
    assert server.entries == []
    server.down = ""
    for gateway in (one, other):
        gateway.share.revive()
    one.carrier.tell(NOW + 10)
    one.carrier.tell(NOW + 10)
    other.carrier.take(NOW + 10)
    assert [grant.seconds for grant in other.opened] == [20]
    monkeypatch.setattr(carrying, "UNTOLD_MAX", 1)
    server.stop("away")
    for _ in range(3):
        one.carrier.post(LAPTOP, GRANT, NOW)
    server.down = ""
    one.share.revive()
    one.carrier.tell(NOW)
    assert len(server.entries) == 2, "the newest ones are kept"


def test_a_stanza_that_nothing_secret_authenticates_tells_nobody(server: Server, lines: Log) -> None:
    one, _ = two(server, lines)
    one.carrier.post(stanza(keys=None), GRANT, NOW)
    assert (server.entries, one.store.kept, one.said) == ([], {}, [])


def test_the_longest_grant_has_room_in_a_record() -> None:
    services = tuple(Service.parse(f"tcp/{port}") for port in range(1, 65))
    longest = Grant(ipaddress.ip_address("2001:db8::7"), services, 30, name="x" * 100)
    told = Told(longest, 1 << 60)
    assert CODEC.decode(CODEC.encode(told)) == told
