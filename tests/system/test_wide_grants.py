"""Networks that are let in: the kernel's set of ranges."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from doorward.errors import FirewallError
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Nftables
from doorward.firewall.ruleset import Part
from doorward.values import FirewallMode, Grant, IPNetwork, LiveGrant, Service
from system.test_nftables import NO_FILE, firewall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

SSH = Service.parse("tcp/22")
WIDE = Needs(parts=frozenset({Part.WIDE}))


def grant(network: str, seconds: int, name: str | None = None) -> Grant:
    one: IPNetwork = ipaddress.ip_network(network)
    return Grant(one.network_address, (SSH,), seconds, name=name, prefix=one.prefixlen)


@pytest.fixture
def made(ns: Namespace) -> Iterator[Nftables]:
    with ns.inside():
        opened = Nftables(NO_FILE, FirewallMode.GUARD, lambda: {SSH}, needs=WIDE)
    opened.prepare()
    yield opened
    opened.close()


def held(made: Nftables) -> list[tuple[str, bool]]:
    """The networks, and whether each is open for long."""
    return [(one.whence, one.remaining > 60) for one in made.grants()]


def test_overlapping_networks_are_open_as_long_as_the_longest(made: Nftables) -> None:
    made.open(grant("192.0.2.0/24", 50, "alice"))
    made.open(grant("192.0.2.0/24", 55, "alice"))
    assert held(made) == [("192.0.2.0/24", False)]
    made.open(grant("192.0.2.0/25", 600, "bob"))
    assert held(made) == [("192.0.2.0/25", True), ("192.0.2.128/25", False)]
    made.open(grant("192.0.0.0/16", 40))
    kept = dict(held(made))
    assert kept["192.0.2.0/25"]
    assert "192.0.2.128/25" in kept
    assert sum(ipaddress.ip_network(one).num_addresses for one in kept) == 2**16
    made.open(grant("192.0.0.0/16", 700))
    assert held(made) == [("192.0.0.0/16", True)]
    made.open(grant("2001:db8::/64", 30))
    assert ("2001:db8::/64", False) in held(made)


def test_a_network_is_closed_by_each_of_its_addresses_and_opened_again_in_a_new_table(made: Nftables) -> None:
    made.open(grant("192.0.2.0/24", 600, "alice"))
    made.open(grant("198.51.100.0/25", 600))
    made.open(grant("198.51.100.0/24", 30))
    live = made.grants()
    assert made.withdraw(ipaddress.ip_address("192.0.2.77")) == 1
    assert "192.0.2.0/24" not in dict(held(made))
    made.flush()
    assert held(made) == []
    overlapping = LiveGrant(ipaddress.ip_address("198.51.100.0"), SSH, 20, prefix=26)
    made.reopen([*live, overlapping])
    assert [(one.whence, one.name) for one in made.grants()] == [(one.whence, one.name) for one in live]


def test_a_removed_clients_network_is_closed_and_what_others_have_of_it_stays(made: Nftables) -> None:
    alices, bobs = grant("192.0.2.0/24", 300, "alice"), grant("192.0.2.0/26", 200, "bob")
    plain = Grant(ipaddress.ip_address("192.0.2.200"), (SSH,), 300, name="alice")
    for one in (alices, bobs, plain):
        made.open(one)
    made.end(LiveGrant.of(alices), [*LiveGrant.of(bobs), *LiveGrant.of(plain)])
    assert [(one.whence, one.name) for one in made.grants()] == [("192.0.2.0/26", "bob"), ("192.0.2.200", "alice")]
    made.end([*LiveGrant.of(bobs), *LiveGrant.of(plain)], [])
    assert made.grants() == ()


def test_a_table_that_was_removed_is_made_again_for_a_network(ns: Namespace, made: Nftables) -> None:
    ns.nft("delete table inet doorward")
    made.open(grant("192.0.2.0/24", 600))
    assert held(made) == [("192.0.2.0/24", True)]


def test_a_table_without_the_sets_refuses_networks_in_a_sentence(ns: Namespace) -> None:
    with firewall(ns) as old:
        old.prepare()
        with pytest.raises(FirewallError, match="has nothing for grants with wide, which are refused"):
            old.open(grant("192.0.2.0/24", 600))
        old.open(Grant(ipaddress.ip_address("192.0.2.7"), (SSH,), 30))
        assert len(old.grants()) == 1


def test_a_range_of_roots_own_is_no_grant_and_no_obstacle(ns: Namespace, made: Nftables) -> None:
    ns.nft("add element inet doorward open_wide4 { 203.0.113.4-203.0.113.9 . 6 . 22 timeout 60s }")
    ns.nft("add element inet doorward open_wide4 { 203.0.113.64/26 . 6 . 22-23 timeout 60s }")
    made.open(grant("192.0.2.0/24", 600))
    assert held(made) == [("192.0.2.0/24", True)]
    assert made.withdraw(ipaddress.ip_address("192.0.2.1")) == 1
