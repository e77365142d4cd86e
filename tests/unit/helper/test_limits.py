"""What the helper remembers of what it opened."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from doorward.config.stanza import Client, Forwarding, Target
from doorward.helper.limits import FORGET_FROM, LIVE_MAX, LOOPBACK, RATE_MAX, Ledger, Limits
from doorward.values import Grant, LiveGrant, Nat, Networks, Permissions, Protocol, PublicKey, Service
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


def test_what_is_open_is_counted_by_name_while_it_is_open() -> None:
    ledger = Ledger()
    for number, (name, seconds) in enumerate((("a", 10), ("b", 20), (None, 20), ("a", 30))):
        ledger.record(replace(_grant(number, seconds), name=name), now=0)
    assert ledger.count(5) == {"a": 2, "b": 1, None: 1}
    assert ledger.count(10) == {"a": 1, "b": 1, None: 1}
    assert ledger.count(30) == {}


def test_a_grant_that_is_used_lives_on_but_not_one_that_has_ended_or_was_closed() -> None:
    ledger = Ledger()
    live = LiveGrant(SOURCE, SSH[0], 10.0)
    ledger.adopt(live, 100)
    kept = replace(live, remaining=30.0)
    assert ledger.prolong(kept, 105)
    assert [one.remaining for one in ledger.live(110)] == [25]
    ledger.withdraw(SOURCE, 111)
    assert not ledger.prolong(kept, 112)
    ledger.adopt(live, 200)
    assert not ledger.prolong(kept, 210)
    assert not ledger.live(211)
    assert not ledger.prolong(replace(kept, service=Service.parse("tcp/23")), 205)


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
    ledger.adopt(LiveGrant(ipaddress.ip_address("192.0.2.0"), SSH[0], 70, prefix=28), 40)
    ledger.withdraw(ipaddress.ip_address("192.0.2.16"), 99)
    assert len(ledger.live(41)) == 2
    ledger.withdraw(ipaddress.ip_address("192.0.2.9"), 99)
    assert [live.prefix for live in ledger.live(41)] == [None], "a network is closed by each of its addresses"


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


ALICE, BOB = (PublicKey(bytes([number]) * 32) for number in (7, 9))


def test_a_client_has_its_own_stanzas_and_its_own_name() -> None:
    ports = frozenset({Service.parse("tcp/22")})
    alice, bob = Client(ALICE, "alice"), Client(BOB)
    limits = Limits(
        (
            stanza(open_ports=ports, name="family", keys=None, clients=(alice, bob)),
            stanza(2, open_ports=frozenset({Service.parse("tcp/80")}), keys=None, clients=(alice,)),
            stanza(3, open_ports=ports, name="fwknop"),
        )
    )
    grant = Grant(SOURCE, tuple(ports), 30, name="alice", key=ALICE)
    assert limits.refuses(grant, 0) is None
    assert limits.refuses(replace(grant, services=(Service.parse("tcp/80"),)), 0) is None
    assert limits.refuses(replace(grant, name="family", key=BOB), 0) is None
    assert limits.refuses(replace(grant, name="fwknop", key=None), 0) is None
    for name, key in (("family", ALICE), ("alice", BOB), ("alice", None), ("fwknop", ALICE), (None, ALICE)):
        assert "name" in str(limits.refuses(replace(grant, name=name, key=key), 0))
    assert limits.refuses(replace(grant, key=PublicKey(bytes([5]) * 32)), 0) == "no stanza allows it: unknown key"
    assert limits.keys == {ALICE, BOB}
    assert limits.names_of({ALICE}) == {"alice"}
    assert limits.names_of({BOB, ALICE}) == {"alice", "family"}
    assert not Limits((stanza(keys=None, clients=(bob,)),)).names_of({BOB}), "it has none"


def _of(key: PublicKey | None, seconds: int = 60, name: str = "", **changes: object) -> Grant:
    return replace(Grant(SOURCE, SSH, seconds, name=name or None, key=key), **changes)  # type: ignore[arg-type]


def test_the_grants_of_a_removed_client_are_forgotten_and_no_others() -> None:
    ledger = Ledger()
    ledger.record(_of(ALICE, name="alice"), 0)
    ledger.record(_of(BOB, source=OTHER, name="alice"), 0)
    ledger.record(_of(None, source=TARGET, name="alice"), 0)
    assert [live.source for live in ledger.revoke({ALICE}, {"alice"}, 1)] == [SOURCE]
    assert [live.source for live in ledger.live(1)] == [OTHER, TARGET]
    assert ledger.revoke({ALICE}, {"alice"}, 1) == ()
    assert [live.source for live in ledger.revoke({BOB, ALICE}, (), 1)] == [OTHER]
    assert ledger.revoke({BOB}, (), 61) == ()


@pytest.mark.parametrize("last", [ALICE, BOB])
def test_a_service_that_two_clients_opened_from_one_source_stays_for_the_other(last: PublicKey) -> None:
    ledger, first = Ledger(), BOB if last == ALICE else ALICE
    ledger.record(_of(first, 90), 0)
    ledger.record(_of(last, 60), 10)
    closed = ledger.revoke({ALICE}, (), 20)
    assert [live.remaining for live in closed] == ([60] if last == ALICE else [])
    assert [live.remaining for live in ledger.live(20)] == [70 if last == ALICE else 50]
    assert len(ledger.revoke({BOB}, (), 20)) == 1
    assert ledger.live(20) == []


def test_a_grant_that_has_ended_for_the_last_client_comes_back_for_none() -> None:
    ledger = Ledger()
    ledger.record(_of(BOB, 90), 0)
    ledger.record(_of(ALICE, 5), 10)
    assert ledger.revoke({ALICE}, (), 20) == ()
    assert ledger.live(20) == []
    ledger.record(_of(BOB, 5), 30)
    ledger.record(_of(ALICE, 60), 31)
    assert len(ledger.revoke({ALICE}, (), 40)) == 1
    assert ledger.live(40) == [], "the other one's had ended"


def test_a_knock_for_another_target_takes_the_place_of_the_one_before() -> None:
    ledger = Ledger()
    ledger.record(_of(BOB, nat=Nat(TARGET, 22)), 0)
    ledger.record(_of(ALICE, nat=Nat(OTHER, 22)), 1)
    assert [live.nat for live in ledger.revoke({ALICE}, (), 2)] == [Nat(OTHER, 22)]
    assert ledger.live(2) == []


def test_a_grant_from_before_the_start_is_known_by_its_name() -> None:
    ledger = Ledger()
    ledger.adopt(LiveGrant(SOURCE, SSH[0], 60, name="alice"), 0)
    ledger.adopt(LiveGrant(OTHER, SSH[0], 60), 0)
    assert [live.source for live in ledger.revoke({ALICE}, {"alice"}, 1)] == [SOURCE]
    assert [live.source for live in ledger.live(1)] == [OTHER]


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
