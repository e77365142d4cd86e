"""Whose a connection is: of whom its source and service were granted to when it began."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from doorward.host.who import through
from doorward.linux.sessions import End, Flow
from doorward.record.granted import Granted, Record
from doorward.values import Grant, IPAddress, Nat, Protocol, Service

NOW = 1_800_000_000.0
HOST, INNER = ipaddress.ip_address("198.51.100.1"), ipaddress.ip_address("10.0.0.5")
SOURCE, OTHER = ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("192.0.2.8")
SSH = Service.parse("tcp/22")


def flow(port: int = 22, source: IPAddress = SOURCE, began: float | None = None) -> Flow:
    here = End(HOST, port)
    return Flow(Protocol.TCP, End(source, 50000), here, here, b"key", established=True, began=began)


def granted(at: float = NOW - 100, name: str | None = "laptop", **changes: object) -> list[Granted]:
    grant = Grant(SOURCE, (SSH,), 30, name=name)
    return list(Granted.of(replace(grant, **changes), at))  # type: ignore[arg-type]


def whose(one: Flow, *record: Granted) -> tuple[str | None, ...] | None:
    found = list(through([one], Record(record), NOW))
    assert len(found) <= 1
    return found[0].names if found else None


def test_a_connection_is_of_the_client_that_was_granted_its_service() -> None:
    assert whose(flow(), *granted()) == ("laptop",)
    assert whose(flow(), *granted(name=None)) == (None,)


@pytest.mark.parametrize(
    "other",
    [
        flow(23),
        flow(source=OTHER),
        replace(flow(), protocol=Protocol.UDP),
        replace(flow(), established=False),
        flow(began=NOW - 103),
        flow(began=NOW - 68),
    ],
    ids=["another port", "another source", "another protocol", "not established", "too early", "too late"],
)
def test_what_came_through_no_grant_is_left_out(other: Flow) -> None:
    assert whose(other, *granted()) is None


def test_two_clients_behind_one_address_are_told_apart_by_the_time_or_both_are_named() -> None:
    record = (*granted(NOW - 100, "ann"), *granted(NOW - 50, "bob"))
    assert whose(flow(), *record) == ("ann", "bob")
    assert whose(flow(began=NOW - 90), *record) == ("ann",)
    assert whose(flow(began=NOW - 40), *record) == ("bob",)
    assert whose(flow(), *granted(NOW - 100, "ann"), *granted(NOW - 50, "ann")) == ("ann",)


def test_the_time_is_exact_or_the_first_and_the_last_moment() -> None:
    record = (*granted(NOW - 100), *granted(NOW - 10))
    (one,) = through([flow()], Record(record), NOW)
    assert (one.first, one.last) == (NOW - 100, NOW), "not in the future"
    (one,) = through([flow(began=NOW - 95)], Record(record), NOW)
    assert (one.first, one.last) == (NOW - 95, NOW - 95)
    (one,) = through([flow()], Record(record[:1]), NOW)
    assert (one.first, one.last) == (NOW - 100, NOW - 70)


def test_a_network_a_ghost_service_and_everything_are_found_by_what_was_dialled() -> None:
    network = granted(source=ipaddress.ip_address("192.0.2.0"), prefix=24)
    assert whose(flow(), *network) == whose(flow(source=OTHER), *network) == ("laptop",)
    assert whose(flow(source=ipaddress.ip_address("192.0.3.1")), *network) is None
    ghost = granted(nat=Nat(None, 2222))
    assert whose(replace(flow(), answering=End(HOST, 2222)), *ghost) == ("laptop",)
    led = granted(nat=Nat(INNER, 2222))
    assert whose(replace(flow(), answering=End(INNER, 2222)), *led) == ("laptop",)
    dialled = replace(flow(), asked=End(INNER, 2222), answering=End(INNER, 2222), is_for_us=False)
    assert whose(dialled, *led) == ("laptop",)
    assert whose(replace(dialled, asked=End(OTHER, 2222)), *led) is None, "what only passes through is another's"
    assert whose(replace(dialled, asked=End(INNER, 22)), *led) is None
    everything = granted(nat=Nat.to_everywhere(4))
    assert whose(flow(4711), *everything) == ("laptop",)
    assert whose(replace(flow(4711), is_for_us=False), *everything) == ("laptop",)
    assert whose(replace(flow(), is_for_us=False), *granted()) is None
