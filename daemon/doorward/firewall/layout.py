"""The fixed part of a table as the kernel has it, and how two of them differ.

Handles, counters, the sizes of sets and the elements of those with the flag timeout or dynamic are left out: two loads
of one text have one layout. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from doorward.firewall import kernel
from doorward.firewall.kernel import TRIES, number, words
from doorward.frozen import dataclass
from doorward.linux import netlink
from doorward.linux.netlink import attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from doorward.linux.netlink import Netlink

_DYNAMIC: Final = 32  # NFT_SET_EVAL: packets add its elements
_SET_KEY_LENGTH, _SET_DATA_LENGTH, _SET_TIMEOUT = 5, 7, 11  # NFTA_SET_*
_SET: Final = (
    *(kernel.SET_FLAGS, kernel.SET_KEY, _SET_KEY_LENGTH, kernel.SET_DATA),
    *(_SET_DATA_LENGTH, _SET_TIMEOUT),
)
_CHAIN_FLAGS: Final = 10  # NFTA_CHAIN_FLAGS
_CHAIN: Final = (kernel.CHAIN_HOOK, kernel.CHAIN_POLICY, kernel.CHAIN_TYPE, _CHAIN_FLAGS)
ELEMENTS: Final = 3  # NFTA_SET_ELEM_LIST_ELEMENTS
_ELEMENT: Final = (1, 2, 3, 9, 10)  # NFTA_SET_ELEM_*: key, data, flags, object, end of the key
_LOOKUP_SET: Final = 1  # NFTA_LOOKUP_SET


@dataclass(frozen=True, slots=True)
class Layout:
    """Chains by name: hook, priority, policy and type; the rules of each in order; sets with their fixed elements."""

    flags: int
    chains: Mapping[str, object]
    rules: Mapping[str, tuple[object, ...]]
    sets: Mapping[str, object]

    def awake(self) -> Layout:
        """The same, of a table that is not dormant."""
        return replace(self, flags=self.flags & ~kernel.DORMANT)

    def differences(self, wanted: Layout) -> tuple[str, ...]:
        """The differences of this table from the one that is wanted, in words."""
        both = self.chains.keys() & wanted.chains.keys()
        return (
            *(() if self.flags == wanted.flags else (_flags(self.flags),)),
            *_differences("chain {}", "another hook, priority or policy", self.chains, wanted.chains),
            *_differences("chain {}", "other rules", _of(self.rules, both), _of(wanted.rules, both)),
            *_differences("set {}", "another type, other flags or elements", self.sets, wanted.sets),
        )


def read(nftables: Netlink, name: str = kernel.NAME) -> Layout | None:
    """The layout of our table, or of another of its family, or None; read again where something changes meanwhile."""
    for _ in range(TRIES):
        before = nftables.generation()
        layout = _read(nftables, name)
        if nftables.generation() == before:
            break
    return layout


def portions(nftables: Netlink, table: str, of: str) -> Iterator[bytes]:
    """The elements of a set, in portions of many: each is the content of one list of the kernel."""
    place = netlink.text(kernel.TABLE, table), netlink.text(kernel.ELEMENTS_SET, of)
    for _, found in nftables.listed(netlink.LIST_ELEMENTS, kernel.INET, *place):
        if found.get(ELEMENTS):
            yield found[ELEMENTS]


def _elements(nftables: Netlink, table: str, of: str) -> Iterator[object]:
    """The elements of a set in comparable form."""
    for portion in portions(nftables, table, of):
        for _, content in attributes(portion):
            yield tuple(map(dict(attributes(content)).get, _ELEMENT))


def _read(nftables: Netlink, name: str) -> Layout | None:
    listed = nftables.listed(netlink.LIST_TABLES, kernel.INET)
    tables = [found for _, found in listed if words(found[kernel.TABLE]) == name]
    if not tables:
        return None
    sets, anonymous = _sets(nftables, name)
    chains = {
        words(found[kernel.CHAIN_NAME]): tuple(map(found.get, _CHAIN))
        for _, found in nftables.listed(netlink.LIST_CHAINS, kernel.INET)
        if words(found[kernel.TABLE]) == name
    }
    rules: dict[str, list[object]] = {chain: [] for chain in chains}
    for rule in kernel.rules(nftables, kernel.FAMILIES[kernel.INET], name):
        rules.setdefault(words(rule[kernel.RULE_CHAIN]), []).append(_rule(rule, anonymous))
    flags = number(tables[0].get(kernel.TABLE_FLAGS))
    return Layout(flags, chains, {chain: tuple(some) for chain, some in rules.items()}, sets)


def _sets(nftables: Netlink, table: str) -> tuple[dict[str, object], dict[bytes, object]]:
    """The sets of a table by their names, and those that nft named itself by the attribute that names them in rules."""
    named: dict[str, object] = {}
    anonymous: dict[bytes, object] = {}
    place = netlink.text(kernel.TABLE, table)
    for found in [found for _, found in nftables.listed(netlink.LIST_SETS, kernel.INET, place)]:
        name, flags = found[kernel.SET_NAME], number(found.get(kernel.SET_FLAGS))
        changing = flags & (kernel.TIMEOUT | _DYNAMIC)
        fixed = () if changing else _elements(nftables, table, words(name))
        content = tuple(map(found.get, _SET)), frozenset(fixed)
        if flags & kernel.ANONYMOUS:
            anonymous[name] = content
        else:
            named[words(name)] = content
    return named, anonymous


def _rule(rule: dict[int, bytes], anonymous: Mapping[bytes, object]) -> object:
    """A rule without its handle and its counters, and with the content of sets in place of numbered names."""
    said = tuple(_expression(name, content, anonymous) for name, content in kernel.expressions(rule))
    return said, rule.get(kernel.RULE_USERDATA)


def _expression(name: bytes, content: bytes, anonymous: Mapping[bytes, object]) -> object:
    if name in kernel.CHANGING:
        return name
    if name != b"lookup":
        return name, content
    found = dict(attributes(content))
    place = found.pop(_LOOKUP_SET)
    return name, anonymous.get(place, place), frozenset(found.items())


def _flags(flags: int) -> str:
    return "it is dormant" if flags & kernel.DORMANT else "it has other flags"


def _of(rules: Mapping[str, object], chains: Collection[str]) -> dict[str, object]:
    return {name: some for name, some in rules.items() if name in chains}


def _differences(kind: str, changed: str, held: Mapping[str, object], wanted: Mapping[str, object]) -> Iterator[str]:
    for name in sorted(held.keys() | wanted.keys()):
        if name not in held:
            yield f"{kind.format(name)} is missing"
        elif name not in wanted:
            yield f"{kind.format(name)} is not ours"
        elif held[name] != wanted[name]:
            yield f"{kind.format(name)} has {changed}"
