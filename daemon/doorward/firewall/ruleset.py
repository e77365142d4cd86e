"""The text of our one nftables table, and the rules for a table text that others write. Pure."""

from __future__ import annotations

import enum
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from doorward.values import Service

TABLE: Final = "inet doorward"
ANYONE_SET: Final = "open_any"
GUARDED_SET: Final = "guarded"
GUARD_CHAIN: Final = "guard"
NAT_CHAIN: Final = "prerouting"


class Part(enum.Enum):
    """A part of the table, with the sets and maps that its grants go to."""

    GRANTS = "grants"  # a source to a service
    DESTINATION = "destination"  # at one address of this host only
    NAT = "nat"  # led to another port or through this host
    SYSTEMS = "systems"  # from one operating system only

    def __str__(self) -> str:
        """Return the word itself."""
        return self.value


@dataclass(frozen=True, slots=True)
class Shape:
    """What the elements of a set are made of; with a `value` it is a map. `size` is how many it holds."""

    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    size: int = 65536


def _shapes(address: str) -> dict[Part, dict[str, Shape]]:
    """Return the sets of one family of addresses, under names without its number.

    Sizes are small where there are many sets: the kernel takes 16 bytes for every place, whether it is filled or not.
    """
    service = ("inet_proto", "inet_service")
    at, many, some = (address, address, *service), 16384, 1024
    return {
        Part.GRANTS: {"open": Shape((address, *service))},
        Part.DESTINATION: {"open_at": Shape(at)},
        Part.NAT: {
            "ghost": Shape((address, *service), ("inet_service",), many),
            "ghost_at": Shape(at, ("inet_service",), many),
            "ghost_open": Shape((address, *service), size=many),
            "lead": Shape((address, *service), (address, "inet_service"), many),
            "lead_at": Shape(at, (address, "inet_service"), many),
            "lead_all": Shape((address,), (address,), some),
            "lead_all_at": Shape((address, address), (address,), some),
            "through": Shape(at, size=many),
            "through_all": Shape((address, address), size=some),
            "snat": Shape(at, (address,), many),
            "snat_all": Shape((address, address), (address,), some),
            "masquerade": Shape(at, size=many),
            "masquerade_all": Shape((address, address), size=some),
        },
    }


_FAMILIES: Final = {"4": _shapes("ipv4_addr"), "6": _shapes("ipv6_addr")}
SYSTEMS_MAP: Final = "systems"  # from the name of an operating system to the number that stands for it in a set
SHAPES: Final[dict[Part, dict[str, Shape]]] = {
    **{
        part: {f"{name}{family}": shape for family, shapes in _FAMILIES.items() for name, shape in shapes[part].items()}
        for part in (Part.GRANTS, Part.DESTINATION, Part.NAT)
    },
    Part.SYSTEMS: {
        SYSTEMS_MAP: Shape(("string",), ("classid",), 64),
        "open_os4": Shape(("classid", "ipv4_addr", "inet_proto", "inet_service"), size=16384),
        "open_os_at4": Shape(("classid", "ipv4_addr", "ipv4_addr", "inet_proto", "inet_service"), size=16384),
    },
}
GRANT_SETS: Final = {name: shape.key for name, shape in SHAPES[Part.GRANTS].items()}
GRANT_KINDS: Final = {  # what nft calls each
    **{name: "map" if shape.value else "set" for shapes in SHAPES.values() for name, shape in shapes.items()},
    ANYONE_SET: "set",
}


def _set(name: str, shape: Shape) -> str:
    """Return the definition of a set or map, on one line. A name's length is known only from where it comes from."""
    if shape.key == ("string",):
        return f"    map {name} {{ typeof osf name : meta priority; flags timeout; size {shape.size}; }}\n"
    kind, value = ("map", f" : {' . '.join(shape.value)}") if shape.value else ("set", "")
    return f"    {kind} {name} {{ type {' . '.join(shape.key)}{value}; flags timeout; size {shape.size}; }}\n"


def sets(part: Part) -> str:
    """Return the definitions of a part's sets, as they stand in every table text that has it."""
    return "".join(_set(name, shape) for name, shape in SHAPES[part].items())


# The same in every table text. open_any is for the console alone: nothing that comes from the network fills it.
SETS: Final = (
    f"{sets(Part.GRANTS)}    set {ANYONE_SET} {{ type inet_proto . inet_service; flags timeout; size 1024; }}\n"
    f"{sets(Part.DESTINATION)}"
)
# What a ghost service's rule lets in came by another port's number: who asks for its own port is not let in by it. A
# target may be another address of this host too, such as one that nobody routes here.
# The priority is that of traffic shaping, which nobody asks for on the way in: it carries the number of a system, since
# nft does not take a system's name into the key of a set.
_ACCEPTS: Final[dict[Part, str]] = {
    Part.GRANTS: """\
        ip saddr . meta l4proto . th dport @open4 accept
        ip6 saddr . meta l4proto . th dport @open6 accept
        meta l4proto . th dport @open_any accept
""",
    Part.DESTINATION: """\
        ip saddr . ip daddr . meta l4proto . th dport @open_at4 accept
        ip6 saddr . ip6 daddr . meta l4proto . th dport @open_at6 accept
""",
    Part.NAT: """\
        ct status dnat ip saddr . meta l4proto . th dport @ghost_open4 accept
        ct status dnat ip6 saddr . meta l4proto . th dport @ghost_open6 accept
        ct status dnat ip saddr . ip daddr . meta l4proto . th dport @through4 accept
        ct status dnat ip6 saddr . ip6 daddr . meta l4proto . th dport @through6 accept
""",
    Part.SYSTEMS: """\
        meta priority set osf name map @systems jump system
""",
}
GRANT_RULES: Final = _ACCEPTS[Part.GRANTS] + _ACCEPTS[Part.DESTINATION]
_SYSTEM_CHAIN: Final = """\
    chain system {
        meta priority . ip saddr . meta l4proto . th dport @open_os4 accept
        meta priority . ip saddr . ip daddr . meta l4proto . th dport @open_os_at4 accept
    }
"""
FORWARD_RULES: Final = """\
        ip saddr . ip daddr . meta l4proto . th dport @through4 accept
        ip6 saddr . ip6 daddr . meta l4proto . th dport @through6 accept
        ip saddr . ip daddr @through_all4 accept
        ip6 saddr . ip6 daddr @through_all6 accept
"""
# Only what is addressed to this host is led elsewhere, and only the first packet of a connection comes by here.
NAT_CHAINS: Final = f"""\
    chain {NAT_CHAIN} {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type != local return
        meta l4proto {{ 6, 17 }} dnat to :ip saddr . meta l4proto . th dport map @ghost4
        meta l4proto {{ 6, 17 }} dnat to :ip6 saddr . meta l4proto . th dport map @ghost6
        meta l4proto {{ 6, 17 }} dnat to :ip saddr . ip daddr . meta l4proto . th dport map @ghost_at4
        meta l4proto {{ 6, 17 }} dnat to :ip6 saddr . ip6 daddr . meta l4proto . th dport map @ghost_at6
        dnat ip to ip saddr . meta l4proto . th dport map @lead4
        dnat ip6 to ip6 saddr . meta l4proto . th dport map @lead6
        dnat ip to ip saddr . ip daddr . meta l4proto . th dport map @lead_at4
        dnat ip6 to ip6 saddr . ip6 daddr . meta l4proto . th dport map @lead_at6
        dnat ip to ip saddr map @lead_all4
        dnat ip6 to ip6 saddr map @lead_all6
        dnat ip to ip saddr . ip daddr map @lead_all_at4
        dnat ip6 to ip6 saddr . ip6 daddr map @lead_all_at6
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        snat ip to ip saddr . ip daddr . meta l4proto . th dport map @snat4
        snat ip6 to ip6 saddr . ip6 daddr . meta l4proto . th dport map @snat6
        snat ip to ip saddr . ip daddr map @snat_all4
        snat ip6 to ip6 saddr . ip6 daddr map @snat_all6
        ip saddr . ip daddr . meta l4proto . th dport @masquerade4 masquerade
        ip6 saddr . ip6 daddr . meta l4proto . th dport @masquerade6 masquerade
        ip saddr . ip daddr @masquerade_all4 masquerade
        ip6 saddr . ip6 daddr @masquerade_all6 masquerade
    }}
"""
FORWARD_CHAIN: Final = f"""\
    chain forward {{
        type filter hook forward priority filter; policy accept;
{FORWARD_RULES}    }}
"""
ALWAYS: Final = frozenset({Part.GRANTS, Part.DESTINATION})
OUR_CHAINS: Final = (GUARD_CHAIN, NAT_CHAIN, "postrouting", "forward", "system")  # of the tables that doorwardd makes
FINGERPRINTING: Final = f'table {TABLE}_fingerprints {{ chain none {{ osf name "unknown"; }}; }}'
REMOVE: Final = f"add table {TABLE}\ndelete table {TABLE}\n"  # whether it was there or not, on every kernel

# A quoted text may go over several lines, as in nft's own scanner: a brace inside it is none.
_LEXEME: Final = re.compile(r'\\\n|#[^\n]*|"[^"]*"|[{};\n]|[^\s{};"#\\]+|[\\"]')
_BREAKS: Final = frozenset("{};\n")
_DEFINITIONS: Final = ("define", "redefine", "undefine")
_OURS: Final = (["table", *TABLE.split()], ["add", "table", *TABLE.split()], ["delete", "table", *TABLE.split()])


def observe(parts: Collection[Part] = ALWAYS) -> str:
    """Return the table that only records grants and closes nothing; with NAT it leads connections all the same."""
    return f"table {TABLE} {{\n{_all_sets(parts)}{_nat(parts)}}}\n"


def guard(services: Iterable[Service], parts: Collection[Part] = ALWAYS) -> str:
    """Return the table that drops new connections to `services` unless granted, and touches nothing else.

    `related` is not let in: a conntrack helper would let a connected peer name the next port.
    """
    return (
        f"table {TABLE} {{\n{_all_sets(parts)}"
        f"    set {GUARDED_SET} {{ type inet_proto . inet_service; {_elements(services)}}}\n"
        f"    chain {GUARD_CHAIN} {{\n"
        "        type filter hook input priority filter; policy accept;\n"
        '        iif "lo" accept\n'
        "        ct state established accept\n"
        f"{grant_rules(parts)}"
        f"        meta l4proto . th dport @{GUARDED_SET} drop\n"
        f"    }}\n{_nat(parts)}}}\n"
    )


def grant_rules(parts: Collection[Part]) -> str:
    """Return the rules of an input chain that let in what was granted."""
    return "".join(rules for part, rules in _ACCEPTS.items() if part in ALWAYS or part in parts)


def widened(text: str, chains: Iterable[str]) -> str:
    """Return the transaction that makes the present table into that of `text`; live grants stay.

    `chains` are those that are there: what they held is said anew.
    """
    return "".join(f"flush chain {TABLE} {chain}\n" for chain in chains) + text


def system_number(name: str) -> str:
    """Return what stands for an operating system in a set, as nft writes such a number: two halves in hex."""
    number = zlib.crc32(name.encode())
    return f"{number >> 16:x}:{number & 0xFFFF:x}"


def _all_sets(parts: Collection[Part]) -> str:
    chosen = "".join(sets(part) for part in SHAPES if part in parts and part not in ALWAYS)
    return f"{SETS}{chosen}{_SYSTEM_CHAIN if Part.SYSTEMS in parts else ''}"


def _nat(parts: Collection[Part]) -> str:
    return NAT_CHAINS + FORWARD_CHAIN if Part.NAT in parts else ""


def regard(services: Iterable[Service]) -> str:
    """Return the transaction that makes a guard table guard exactly `services`; live grants stay."""
    elements = ", ".join(map(service_element, sorted(set(services))))
    added = f"add element {TABLE} {GUARDED_SET} {{ {elements} }}\n" if elements else ""
    return f"flush set {TABLE} {GUARDED_SET}\n{added}"


def swap(text: str) -> str:
    """Return `text` as a transaction that replaces our table, whether or not there is one."""
    return text if text.startswith(REMOVE) else REMOVE + text


def restoration(listing: str) -> str:
    """Return the transaction that brings back the table of `listing` (empty: its absence), without live grants.

    The listing must hold the elements (`nft -s`, not `-t`): terse output leaves out those of static sets too, and a
    restored table would have lost its fallback sources. Live grants are left out of the text: a transaction that adds
    elements and flushes their set crashes nftables 1.1.3 (Debian 13).
    """
    return REMOVE + normalised(listing)


def service_element(service: Service) -> str:
    """Return `6 . 22`: numbers, since a minimal system has no /etc/protocols to look names up in."""
    return f"{service.protocol:d} . {service.port:d}"


def normalised(listing: str) -> str:
    """Return a listing of `nft -s list table` without the elements of sets whose elements expire."""
    return "".join(_without_timed_elements(listing.splitlines(keepends=True)))


def refuse_foreign(text: str) -> None:
    """Refuse a table text that does anything but define our table.

    Definitions (`define`) and the add/delete pair of a swap may stand beside it. `include` is refused at any depth:
    what it names could change between the check and the next boot.

    Raises:
        FirewallError: names the statement and its line.
    """
    for line, words in _statements(text):
        if "include" in words:
            msg = f"line {line}: include is not allowed in a firewall file"
            raise FirewallError(msg)
        if words[0] not in _DEFINITIONS and words not in _OURS:
            msg = f"line {line}: {' '.join(words)[:60]!r} is not the table {TABLE}, and nothing else may be touched"
            raise FirewallError(msg)


def _elements(services: Iterable[Service]) -> str:
    """Return the elements clause of a set definition; nft refuses an empty one."""
    elements = ", ".join(map(service_element, sorted(set(services))))
    return f"elements = {{ {elements} }}; " if elements else ""


def _without_timed_elements(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a listing, passing over `elements = { … }` inside sets that have the timeout flag."""
    timed = skipping = False
    for line in lines:
        words = line.replace(",", " ").split()
        if words[:1] in (["set"], ["map"]):
            timed = False
        elif words[:1] == ["flags"]:
            timed = "timeout" in words
        skipping = skipping or (timed and words[:2] == ["elements", "="])
        if not skipping:
            yield line
        elif line.rstrip().endswith("}"):
            skipping = False


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the words of every statement outside braces, and of every include inside them."""
    depth = 0
    line = start = 1
    words: list[str] = []
    for match in _LEXEME.finditer(text):
        lexeme = match[0]
        if lexeme in _BREAKS and words and not depth:
            yield start, words
        if lexeme in _BREAKS:
            words = []
            depth = max(0, depth + {"{": 1, "}": -1}.get(lexeme, 0))
        elif lexeme == "include" and depth:
            yield line, ["include"]
        elif not lexeme.startswith(("#", "\\\n")):
            start = start if words else line
            words = [*words, lexeme]
        line += lexeme.count("\n")
    if words:
        yield start, words
