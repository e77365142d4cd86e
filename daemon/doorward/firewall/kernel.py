"""Tables, sets, chains and rules of nftables as the kernel has them.

nft's own listings fetch every rule and set of the host: slow where other tables are large, and unreadable where a table
has flags that this nft does not know. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from contextlib import closing
from typing import TYPE_CHECKING, Final

from doorward.firewall import ruleset
from doorward.firewall.ruleset import Part, Shape
from doorward.frozen import dataclass
from doorward.linux import netlink
from doorward.linux.netlink import Netlink, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES: Final = 5  # with a table that is modified concurrently
FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}  # NFPROTO_*
NUMBERS: Final = {name: number for number, name in FAMILIES.items()}
INET: Final = 1
NAME: Final = ruleset.TABLE.split()[1]
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")  # NF_INET_*
DORMANT: Final = 1  # NFT_TABLE_F_DORMANT: such a table filters nothing
ANONYMOUS, _INTERVAL, TIMEOUT = 1, 4, 16  # NFT_SET_*
_TYPES: Final = {"string": 5, "ipv4_addr": 7, "ipv6_addr": 8, "inet_proto": 12, "inet_service": 13, "classid": 23}
_TYPE_BITS: Final = 6  # nft's include/datatype.h
_NUMBER: Final = struct.Struct("!I")
_SIGNED: Final = struct.Struct("!i")
_LONG: Final = struct.Struct("!Q")
# NFTA_TABLE_*, NFTA_CHAIN_*, NFTA_RULE_*, NFTA_SET_*: the table is the first of each
TABLE, TABLE_FLAGS, _TABLE_HANDLE = 1, 2, 4
CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 3, 4, 5, 7
RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_USERDATA = 2, 3, 4, 7
SET_NAME, SET_FLAGS, SET_KEY, SET_DATA = 2, 3, 4, 6
ELEMENTS_SET: Final = 2  # NFTA_SET_ELEM_LIST_SET
_SET_PARTS: Final = (SET_NAME, SET_FLAGS, SET_KEY, SET_DATA)
CHANGING: Final = frozenset({b"counter", b"quota", b"last"})  # expressions that count packets
META_KEY, META_SREG, META_MARK = 2, 3, 3  # NFTA_META_*, NFT_META_MARK
BITWISE_XOR, BITWISE_MASK, VALUE = 5, 4, 1  # NFTA_BITWISE_*, NFTA_DATA_VALUE
_MARK: Final = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain; `hook` is empty for a chain that is only reached by a jump. `flavour` distinguishes equal names."""

    family: str
    table: str
    name: str
    hook: str = ""
    kind: str = ""  # filter, nat or route
    priority: int = 0
    drops: bool = False  # by its policy
    flavour: str = ""

    def __str__(self) -> str:
        """`table ip filter, chain INPUT`."""
        return f"{self.flavour}table {self.family} {self.table}, chain {self.name}"


@dataclass(frozen=True, slots=True)
class Table:
    """Our table. A table that was made again has another handle.

    `kind` is `drop`, `guard` or `observe`; a `dormant` table filters nothing; `timed_sets` are those whose elements
    expire; `serves` are the kinds of grants that it has sets for, `plain` those whose sets hold no ranges; `marks` are
    the bits that its rules set; `parts` are its sets, chains and rules in comparable form.
    """

    handle: int
    kind: str
    dormant: bool
    sets: frozenset[str]
    chains: frozenset[str]
    timed_sets: tuple[str, ...]
    serves: frozenset[Part]
    plain: frozenset[Part]
    marks: int
    parts: frozenset[object]

    @property
    def hooked(self) -> frozenset[str]:
        """The names of its chains that packets reach without a jump."""
        return frozenset(one.name for one in self.parts if isinstance(one, Chain) and one.hook)

    @property
    def serves_grants(self) -> bool:
        """Whether it has the sets of plain grants."""
        return Part.GRANTS in self.serves

    @property
    def closes_forwarded(self) -> bool:
        """Whether it closes services that other programs forward, as it closes those of this host's sockets."""
        return self.kind != "observe" and ruleset.PUBLISHED_CHAIN in self.chains

    def lacks(self, before: Table | None) -> bool:
        """Whether this is the table `before` with parts missing; false for another table, made by a swap."""
        return before is not None and before.handle == self.handle and not before.parts <= self.parts


@dataclass(frozen=True, slots=True)
class _Set:
    """Definition of a set or map: the numbers of its types, and its flags."""

    key: int
    value: int
    flags: int

    def takes_grants(self, shape: Shape) -> bool:
        """Whether its elements expire and have the types of `shape`."""
        return bool(self.flags & TIMEOUT) and (self.key, self.value) == (_types(shape.key), _types(shape.value))


def tables(kernel: Netlink) -> Iterator[tuple[str, str]]:
    """Family and name of each table that filters."""
    for family, found in kernel.listed(netlink.LIST_TABLES):
        if family in FAMILIES and not number(found.get(TABLE_FLAGS)) & DORMANT:
            yield FAMILIES[family], words(found[TABLE])


def chains(kernel: Netlink, family: int = 0) -> Iterator[Chain]:
    """Every chain of the host, or of one family."""
    for one, found in kernel.listed(netlink.LIST_CHAINS, family):
        if one in FAMILIES:
            yield _chain(FAMILIES[one], found)


def rules(kernel: Netlink, family: str, table: str, chain: str | None = None) -> Iterator[dict[int, bytes]]:
    """The attributes of each rule of a table, or of one of its chains, in their order."""
    wanted = [netlink.text(TABLE, table)] + ([] if chain is None else [netlink.text(RULE_CHAIN, chain)])
    for _, found in kernel.listed(netlink.LIST_RULES, NUMBERS[family], *wanted):
        yield found


def expressions(rule: dict[int, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each expression of a rule."""
    for _, content in attributes(rule.get(RULE_EXPRESSIONS, b"")):
        expression = dict(attributes(content))
        yield expression[1].rstrip(b"\0"), expression.get(2, b"")  # NFTA_EXPR_NAME, NFTA_EXPR_DATA


def read_table(kernel: Netlink, name: str = NAME) -> Table | None:
    """Our table, or another of its family, or None; read again where something changes meanwhile."""
    for _ in range(TRIES):
        before = kernel.generation()
        table = _read(kernel, name)
        if kernel.generation() == before:
            break
    return table


def _read(kernel: Netlink, name: str) -> Table | None:
    listed = kernel.listed(netlink.LIST_TABLES, INET)
    ours = [found for _, found in listed if words(found[TABLE]) == name]
    if not ours:
        return None
    in_sets = [found for _, found in kernel.listed(netlink.LIST_SETS, INET, netlink.text(TABLE, name))]
    sets = {words(found[SET_NAME]): _set(found) for found in in_sets}
    held = [chain for chain in chains(kernel, INET) if chain.table == name]
    ruled = list(rules(kernel, FAMILIES[INET], name))
    hooked = [chain for chain in held if chain.hook]
    serves = _serves(sets, hooked)
    return Table(
        _LONG.unpack(ours[0][_TABLE_HANDLE])[0],
        _kind(hooked),
        bool(number(ours[0].get(TABLE_FLAGS)) & DORMANT),
        frozenset(named for named, one in sets.items() if not one.flags & ANONYMOUS),
        frozenset(chain.name for chain in held),
        tuple(sorted(named for named, one in sets.items() if one.flags & TIMEOUT)),
        serves,
        frozenset(part for part in serves if not _holds_ranges(part, sets)),
        _marks(ruled),
        frozenset([*held, *map(_comparable, ruled), *(tuple(map(found.get, _SET_PARTS)) for found in in_sets)]),
    )


def is_there() -> bool:
    """Whether our table is there, dormant or not."""
    with closing(Netlink()) as kernel:
        return any(words(found[TABLE]) == NAME for _, found in kernel.listed(netlink.LIST_TABLES, INET))


def is_ours(family: str, name: str) -> bool:
    """Whether a table is the one of our name."""
    return f"{family} {name}" == ruleset.TABLE


def words(content: bytes) -> str:
    """The text of an attribute."""
    return content.rstrip(b"\0").decode("utf-8", "replace")


def value(content: bytes) -> bytes:
    """The value inside an attribute that holds data."""
    return dict(attributes(content)).get(VALUE, b"")


def sets_mark(rule: dict[int, bytes]) -> bool:
    """Whether a rule writes the mark of a packet."""
    for name, content in expressions(rule):
        if name == b"meta":
            meta = dict(attributes(content))
            if META_SREG in meta and number(meta.get(META_KEY)) == META_MARK:
                return True
    return False


def _marks(ruled: list[dict[int, bytes]]) -> int:
    """The bits that rules add to the mark of a packet."""
    found = 0
    for rule in filter(sets_mark, ruled):
        for name, content in expressions(rule):
            added = value(dict(attributes(content)).get(BITWISE_XOR, b"")) if name == b"bitwise" else b""
            found |= _MARK.unpack(added)[0] if len(added) == _MARK.size else 0
    return found


def _chain(family: str, found: dict[int, bytes]) -> Chain:
    names = (family, words(found[TABLE]), words(found[CHAIN_NAME]))
    if CHAIN_HOOK not in found:
        return Chain(*names)
    hook = dict(attributes(found[CHAIN_HOOK]))
    hooked = number(hook[1])  # NFTA_HOOK_HOOKNUM
    name = _HOOKS[hooked] if family != "netdev" else "egress" if hooked else "ingress"
    return Chain(
        *names,
        hook=name,
        kind=words(found.get(CHAIN_TYPE, b"")),
        priority=_SIGNED.unpack(hook[2])[0],  # NFTA_HOOK_PRIORITY
        drops=CHAIN_POLICY in found and number(found[CHAIN_POLICY]) == 0,  # NF_DROP
    )


def _set(found: dict[int, bytes]) -> _Set:
    return _Set(*(number(found.get(key)) for key in (SET_KEY, SET_DATA, SET_FLAGS)))


def number(content: bytes | None) -> int:
    """The number of an attribute; 0 where it is missing."""
    return 0 if content is None else int(_NUMBER.unpack(content)[0])


def _types(names: tuple[str, ...]) -> int:
    """The number by which nft records the types of a concatenation in the kernel."""
    concatenated = 0
    for name in names:
        concatenated = concatenated << _TYPE_BITS | _TYPES[name]
    return concatenated


def _comparable(rule: dict[int, bytes]) -> object:
    """A rule without its handle and its counters."""
    said = tuple((name, b"" if name in CHANGING else content) for name, content in expressions(rule))
    return rule[RULE_CHAIN], said, rule.get(RULE_USERDATA)


def _kind(hooked: list[Chain]) -> str:
    """The treatment of packets that no grant covers, by a table with these base chains."""
    inputs = [chain for chain in hooked if chain.hook == "input" and chain.name != ruleset.OBSERVE_CHAIN]
    if any(chain.drops for chain in inputs):
        return "drop"
    return "guard" if inputs else "observe"


def _holds_ranges(part: Part, sets: dict[str, _Set]) -> bool:
    """Whether one of a part's sets may hold ranges."""
    return any(sets[name].flags & _INTERVAL for name in ruleset.SHAPES[part])


def _serves(sets: dict[str, _Set], hooked: list[Chain]) -> frozenset[Part]:
    """The parts whose sets are there in the shape that open() writes to; NAT needs chains of that type too."""
    leading = {chain.hook for chain in hooked if chain.kind == "nat"}
    return frozenset(
        part
        for part, shapes in ruleset.SHAPES.items()
        if all(name in sets and sets[name].takes_grants(shape) for name, shape in shapes.items())
        and (part is not Part.NAT or {"prerouting", "postrouting"} <= leading)
    )
