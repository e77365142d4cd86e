"""The live elements of our table, in the kernel's own bytes: taken before it is replaced, and put back after.

Grants, the connections of a host from before its first table, and flows that root ended: whatever has an end keeps it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from doorward.errors import FirewallError
from doorward.firewall import kernel, layout
from doorward.firewall.kernel import number
from doorward.frozen import dataclass
from doorward.linux import netlink
from doorward.linux.netlink import ACKNOWLEDGE, CREATE, NESTED, attribute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doorward.linux.netlink import Netlink


@dataclass(frozen=True, slots=True)
class Held:
    """The elements of one set, in the portions in which the kernel listed them, and the set's types."""

    name: bytes
    types: tuple[int, int]
    portions: tuple[bytes, ...]


def taken(nftables: Netlink) -> tuple[Held, ...]:
    """The elements of each set of our table whose elements have an end."""
    return tuple(
        Held(name, types, tuple(layout.portions(nftables, kernel.NAME, kernel.words(name))))
        for name, types in _timed(nftables).items()
    )


def put_back(nftables: Netlink, held: Iterable[Held]) -> int:
    """Add elements to the sets of our table that have their types; return the number of transactions.

    A set that has no room for them stays without.
    """
    there, count = _timed(nftables), 0
    for one in held:
        for portion in one.portions if there.get(one.name) == one.types else ():
            with suppress(FirewallError):
                nftables.run(_transaction(one.name, portion))
                count += 1
    return count


def _timed(nftables: Netlink) -> dict[bytes, tuple[int, int]]:
    """Name and types of each set of our table whose elements have an end."""
    place = netlink.text(kernel.TABLE, kernel.NAME)
    try:
        listed = [found for _, found in nftables.listed(netlink.LIST_SETS, kernel.INET, place)]
    except FirewallError:  # no table
        return {}
    return {
        found[kernel.SET_NAME]: (number(found.get(kernel.SET_KEY)), number(found.get(kernel.SET_DATA)))
        for found in listed
        if number(found.get(kernel.SET_FLAGS)) & kernel.TIMEOUT
    }


def _transaction(name: bytes, portion: bytes) -> bytes:
    """The transaction that adds elements; the kernel takes them as it lists them."""
    place = netlink.text(kernel.TABLE, kernel.NAME), attribute(kernel.ELEMENTS_SET, name)
    added = attribute(layout.ELEMENTS | NESTED, portion)
    change = netlink.message(netlink.NEW_ELEMENT, kernel.INET, *place, added, flags=CREATE | ACKNOWLEDGE)
    return netlink.FIRST + change + netlink.LAST
