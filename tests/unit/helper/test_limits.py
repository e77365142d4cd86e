"""What the helper remembers of what it opened."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from doorward.config.stanza import Forwarding, Target
from doorward.helper.limits import FORGET_FROM, LIVE_MAX, LOOPBACK, RATE_MAX, Ledger, Limits
from doorward.values import Grant, LiveGrant, Nat, Networks, Permissions, Protocol, Service
from unit.making import stanza

SSH = (Service.parse("tcp/22"),)
SOURCE, TARGET, OTHER = map(ipaddress.ip_address, ("192.0.2.7", "10.0.0.5", "10.0.0.6"))
BOTH = Permissions(forwarding=True, local_nat=True)
LISTED = Forwarding(
    targets=(
        Target(Networks.of([ipaddress.ip_network("10.0.0.5/32")]), 22),
        Target(Networks.of([ipaddress.ip_network("10.1.0.0/16")]), None),
    )
)


def _grant(number: int, seconds: int) -> Grant:
    return Grant(ipaddress.IPv6Address((0x2001 << 112) + number), SSH, seconds)


def test_grants_that_are_over_cost_no_memory() -> None:
    ledger = Ledger()
    for number in range(10 * FORGET_FROM):
        ledger.record(_grant(number, 30), now=float(number))
    assert len(ledger._spans) <= FORGET_FROM + 31  # noqa: SLF001  memory has no other measure
    assert len(ledger.live(10.0 * FORGET_FROM - 1)) == 30


def test_no_grant_that_is_live_is_forgotten_however_many_there_are() -> None:
    ledger = Ledger()
    for number in range(5 * FORGET_FROM):
        ledger.record(_grant(number, 30), now=number / 1000)
    assert len(ledger.live(5 * FORGET_FROM / 1000)) == 5 * FORGET_FROM


def test_what_was_closed_by_hand_is_not_what_was_granted_since() -> None:
    ledger = Ledger()
    one, two = (ipaddress.ip_address(f"192.0.2.{number}") for number in (1, 2))
    for source in (one, two):
        ledger.adopt(LiveGrant(source, SSH[0], 90), 10)
    ledger.withdraw(one, 20)
    assert [live.source for live in ledger.live(30)] == [two]
    ledger.adopt(LiveGrant(one, SSH[0], 70), 30)
    ledger.withdraw(None, 25)
    assert [(live.source, live.remaining) for live in ledger.live(40)] == [(one, 60)]
    ledger.withdraw(ipaddress.ip_address("192.0.2.9"), 99)
    assert len(ledger.live(40)) == 1


def refusal(
    nat: Nat | None, forwarding: Forwarding = LISTED, permissions: Permissions = BOTH, **changes: object
) -> str | None:
    """Return why a stanza with tcp/22, tcp/80 and udp/53 does not allow a grant for tcp/80."""
    ports = frozenset(map(Service.parse, ("tcp/22", "tcp/80", "udp/53")))
    limits = Limits((stanza(open_ports=ports, forwarding=forwarding),), permissions)
    given = {"source": SOURCE, "services": (Service.parse("tcp/80"),), "seconds": 30, "nat": nat, **changes}
    return limits.refuses(Grant(**given), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nat", "forwarding"),
    [
        (None, LISTED),
        (Nat(TARGET, 22), LISTED),
        (Nat(ipaddress.ip_address("10.1.2.3"), 8080), LISTED),
        (Nat(None, 22), LISTED),
        (Nat(OTHER, 22), Forwarding()),
        (Nat(TARGET, 22), Forwarding(force=(TARGET, 22))),
        (Nat(None, 8080), Forwarding(force=(LOOPBACK[4], 8080))),
        (Nat(ipaddress.ip_address("10.1.2.3"), None, everything=True), replace(LISTED, everything=True)),
        (Nat(TARGET, 22, masquerade=True), replace(LISTED, masquerade=True)),
        (Nat(TARGET, 22, rewrite=False), replace(LISTED, rewrite=False)),
    ],
)
def test_what_a_stanza_leads_to_is_allowed(nat: Nat | None, forwarding: Forwarding) -> None:
    assert refusal(nat, forwarding) is None


@pytest.mark.parametrize(
    ("nat", "forwarding"),
    [
        (Nat(TARGET, 23), LISTED),
        (Nat(OTHER, 22), LISTED),
        (Nat(None, 8080), LISTED),
        (Nat(LOOPBACK[4], 22), LISTED),
        (Nat(OTHER, 23), Forwarding()),
        (Nat(OTHER, 22), Forwarding(force=(TARGET, 22))),
        (Nat(TARGET, 23), Forwarding(force=(TARGET, 22))),
        (Nat(None, 22), Forwarding(force=(TARGET, 22))),
        (None, Forwarding(force=(TARGET, 22))),
        (Nat(TARGET, None, everything=True), LISTED),
        (Nat(TARGET, None, everything=True), replace(LISTED, everything=True)),  # one port of it is allowed
        (Nat(OTHER, None, everything=True), replace(LISTED, everything=True)),
        (Nat(TARGET, 22), replace(LISTED, everything=True)),
        (Nat(TARGET, 22, masquerade=True), LISTED),
        (Nat(TARGET, 22, snat=OTHER), LISTED),
        (Nat(TARGET, 22, rewrite=False), LISTED),
        (Nat(TARGET, 22), replace(LISTED, masquerade=True)),
        (Nat(TARGET, 22, snat=OTHER), replace(LISTED, snat=SOURCE)),
    ],
)
def test_a_listener_that_was_taken_over_leads_nobody_where_no_stanza_does(
    nat: Nat | None, forwarding: Forwarding
) -> None:
    assert refusal(nat, forwarding)


def test_nat_is_refused_where_the_settings_do_not_turn_it_on() -> None:
    assert refusal(Nat(TARGET, 22), permissions=Permissions(local_nat=True))
    assert refusal(Nat(None, 22), permissions=Permissions())
    assert refusal(Nat(None, 22), permissions=Permissions(local_nat=True)) is None


def test_one_service_is_led_elsewhere_and_not_a_second_one_of_another_protocol_with_it() -> None:
    both = tuple(map(Service.parse, ("tcp/80", "udp/53")))
    assert refusal(Nat(TARGET, 22), services=both)
    assert refusal(None, services=both) is None


def test_the_conditions_of_a_stanza_cannot_be_left_out_or_added() -> None:
    assert refusal(None, os="Linux")
    assert refusal(None, destination=TARGET)
    assert refusal(None, permissions=Permissions(destination_rule=True))
    assert refusal(None, permissions=Permissions(destination_rule=True), destination=TARGET) is None


def test_a_grant_has_the_name_of_a_stanza_that_allows_it() -> None:
    ports = frozenset({Service.parse("tcp/22")})
    named = (stanza(open_ports=ports, name="laptop"), stanza(2, open_ports=ports, name="phone"))
    grant = Grant(SOURCE, tuple(ports), 30, name="laptop")
    assert Limits(named).refuses(grant, 0) is None
    for name in (None, "desk"):
        assert Limits(named).refuses(replace(grant, name=name), 0)


def test_what_a_grant_leads_to_is_remembered_and_the_last_one_counts() -> None:
    ledger = Ledger()
    for nat in (None, Nat(None, 22), Nat(TARGET, 22)):
        ledger.record(Grant(SOURCE, SSH, 60, nat), 0)
    assert [live.nat for live in ledger.live(1)] == [None, Nat(TARGET, 22)]


def test_one_source_cannot_fill_the_table_with_ways() -> None:
    ledger, ports = Ledger(), iter(range(1, 1 << 16))
    grants = (Grant(SOURCE, (Service(Protocol.TCP, port),), 60, Nat(None, 22)) for port in ports)
    for number, grant in enumerate(grants):
        if ledger.refuses(grant, number / 100):
            break
        ledger.record(grant, number / 100)
    assert number == LIVE_MAX


def test_a_second_has_room_for_so_many_grants_and_the_next_one_has_it_again() -> None:
    ledger, hosts = Ledger(), map(ipaddress.IPv4Address, range(1 << 24, 1 << 25))
    for _ in range(RATE_MAX):
        grant = Grant(next(hosts), SSH, 60)
        assert ledger.refuses(grant, 7.5) is None
        ledger.record(grant, 7.5)
    another = Grant(next(hosts), SSH, 60)
    assert ledger.refuses(another, 7.9) == f"more than {RATE_MAX} grants in a second"
    assert ledger.refuses(another, 8.0) is None
