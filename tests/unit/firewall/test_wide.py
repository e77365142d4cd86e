"""Networks that are let in: however they overlap, each address is open as long as the longest of them."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import WireError
from doorward.firewall.wide import commands, ended, painted
from doorward.values import Grant, LiveGrant, Nat, Networks, Service

SSH, WEB = Service.parse("tcp/22"), Service.parse("tcp/443")
ROOM = ipaddress.ip_network("192.0.2.0/27")


def live(network: str, seconds: float, service: Service = SSH, name: str | None = None) -> LiveGrant:
    one = ipaddress.ip_network(network)
    return LiveGrant(one.network_address, service, seconds, name=name, prefix=one.prefixlen)


networks = st.builds(
    lambda length, place: str(ipaddress.ip_network((int(ROOM[0]) + place, length), strict=False)),
    st.integers(26, 31),
    st.integers(0, 31),
)
grants = st.builds(live, networks, st.integers(1, 5).map(float), st.sampled_from([SSH, WEB]))


def seconds_of(held: list[LiveGrant]) -> dict[tuple[Any, Service | None], float]:
    """How long each address is open; the kernel takes no two networks that overlap."""
    found: dict[tuple[Any, Service | None], float] = {}
    for one in held:
        for address in one.network:
            assert (address, one.service) not in found, "an overlap"
            found[address, one.service] = one.remaining
    return found


@given(st.lists(grants, max_size=6))
def test_each_address_is_open_as_long_as_the_longest_of_its_grants(wanted: list[LiveGrant]) -> None:
    held: list[LiveGrant] = []
    expected: dict[tuple[Any, Service | None], float] = {}
    for one in wanted:
        gone, new = painted(held, one)
        assert all(each in held for each in gone)
        held = [each for each in held if each not in gone] + new
        for address in one.network:
            expected[address, one.service] = max(expected.get((address, one.service), 0), one.remaining)
        assert seconds_of(held) == expected


@given(st.lists(grants, max_size=4), st.lists(grants, max_size=3))
def test_what_is_closed_stays_open_where_other_grants_have_it(kept: list[LiveGrant], closed: list[LiveGrant]) -> None:
    held: list[LiveGrant] = []
    for one in [*kept, *closed]:
        gone, new = painted(held, one)
        held = [each for each in held if each not in gone] + new
    said = ended(held, closed, kept)
    after = carried_out(held, said)
    expected: dict[tuple[Any, Service | None], float] = {}
    for one in kept:
        for address in one.network:
            expected[address, one.service] = max(expected.get((address, one.service), 0), one.remaining)
    closing = {(address, one.service) for one in closed for address in one.network}
    for place, seconds in seconds_of(after).items():
        assert place in closing or seconds == seconds_of(held)[place], "what nobody closed has changed"
        assert place not in closing or seconds == expected[place]
    assert {place for place in expected if place in closing} <= set(seconds_of(after))


def carried_out(held: list[LiveGrant], commands_: str) -> list[LiveGrant]:
    """The elements after nft has run the commands; adding one inside another is refused, as the kernel does."""
    found = {(str(one.network), str(one.service)): one for one in held}
    for line in commands_.splitlines():
        verb, _, _, _, _, _, network, _, protocol, _, port, *rest = line.split()
        key = (network if "/" in network else f"{network}/32", f"{'tcp' if protocol == '6' else 'udp'}/{port}")
        if verb == "delete":
            del found[key]
            continue
        one = live(key[0], float(rest[1].removesuffix("s")), Service.parse(key[1]))
        around = [each for each in found.values() if each.service == one.service and each.network != one.network]
        assert not any(each.network.overlaps(one.network) for each in around), line
        found.setdefault(key, one)
    return list(found.values())


def test_a_part_keeps_the_name_of_its_grant_and_the_other_family_is_left_alone() -> None:
    held = [live("192.0.2.0/30", 10, name="alice"), live("2001:db8::/64", 10)]
    gone, new = painted(held, live("192.0.2.0/31", 20, name="bob"))
    assert gone == held[:1]
    assert {(str(one.network), one.name, one.remaining) for one in new} == {
        ("192.0.2.0/31", "bob", 20),
        ("192.0.2.2/31", "alice", 10),
    }


def test_the_commands_delete_before_they_add_and_expired_elements_are_no_error() -> None:
    said = commands([live("192.0.2.0/30", 1)], live("192.0.2.0/29", 2.2, name="alice"))
    assert said.splitlines() == [
        "add element inet doorward open_wide4 { 192.0.2.0/30 . 6 . 22 timeout 1s }",
        "delete element inet doorward open_wide4 { 192.0.2.0/30 . 6 . 22 }",
        'add element inet doorward open_wide4 { 192.0.2.0/29 . 6 . 22 timeout 3s comment "alice" }',
    ]
    assert commands([live("192.0.2.0/29", 3)], live("192.0.2.0/30", 2)) == "", "it is open for longer already"


GRANT = Grant(ipaddress.ip_address("192.0.2.0"), (SSH,), 30, prefix=24)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"source": ipaddress.ip_address("192.0.2.1")}, "has bits behind the prefix"),
        ({"prefix": 32}, "no network of IPv4 with a prefix of 32 is let in"),
        ({"prefix": 7}, "no network of IPv4 with a prefix of 7"),
        ({"source": ipaddress.ip_address("2001:db8::"), "prefix": 31}, "no network of IPv6 with a prefix of 31"),
        ({"source": ipaddress.ip_address("2001:db8::1"), "prefix": 64}, "has bits behind the prefix"),
        ({"source": ipaddress.ip_address("169.0.0.0"), "prefix": 8}, "another host on each link"),
        ({"nat": Nat(None, 2222)}, "without NAT"),
        ({"os": "Linux"}, "without NAT, and without another condition"),
        ({"destination": ipaddress.ip_address("192.0.2.9")}, "without another condition"),
    ],
)
def test_a_network_that_cannot_be_let_in_is_no_grant(changes: dict[str, Any], problem: str) -> None:
    assert GRANT.whence == "192.0.2.0/24"
    with pytest.raises(WireError, match=problem):
        replace(GRANT, **changes)


@pytest.mark.parametrize(
    ("networks_", "network", "expected"),
    [
        (["192.0.2.0/24"], "192.0.2.0/24", True),
        (["192.0.2.0/24"], "192.0.2.128/25", True),
        (["192.0.2.0/24"], "192.0.2.0/23", False),
        (["192.0.2.0/25", "192.0.2.128/25"], "192.0.2.0/24", False),
        (["192.0.2.0/24"], "198.51.100.0/24", False),
        (["192.0.2.0/24"], "2001:db8::/64", False),
        (["192.0.2.0/24", "2001:db8::/32"], "2001:db8:5::/48", True),
        (["2001:db8::/64"], "2001:db8::/63", False),
    ],
)
def test_a_network_lies_in_source_as_a_whole_or_not(networks_: list[str], network: str, expected: object) -> None:
    one = ipaddress.ip_network(network)
    source = Networks.of(map(ipaddress.ip_network, networks_))
    assert source.covers(one.network_address.packed, one.prefixlen) is expected
