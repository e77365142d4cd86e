"""The text of our nftables table, and checks of a table text from a file. Pure."""

from __future__ import annotations

import enum
import re
import zlib
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.frozen import dataclass
from doorward.values import MARK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from doorward.values import Service

TABLE: Final = "inet doorward"
ANYONE_SET: Final = "open_any"
WIDE_SET: Final = "open_wide"  # with the number of a family: networks
GUARDED_SET: Final = "guarded"
GUARD_CHAIN: Final = "guard"
OBSERVE_CHAIN: Final = "observe"  # an input chain that only marks
STOPPED_CHAIN: Final = "stopped"  # empty; its name says that root opened the host until the next boot
PRIORITY: Final = -1000  # before every chain in use: iptables' raw tables have -300
NAT_CHAIN: Final = "prerouting"
PUBLISHED_CHAIN: Final = "published"
PUBLIC_SET, NAMED_SET = (
    "public",
    "named",
)  # of the role's tables: services that stay open in `drop`, or that `guard` closes


class Part(enum.Enum):
    """A part of the table, with the sets and maps that its grants go to."""

    GRANTS = "grants"  # a source to a service
    DESTINATION = "destination"  # at one address of this host only
    NAT = "nat"  # forwarded to another port or host
    WIDE = "wide"  # a network to a service
    SYSTEMS = "systems"  # from one operating system only

    def __str__(self) -> str:
        """The word itself."""
        return self.value


@dataclass(frozen=True, slots=True)
class Shape:
    """Types of the elements of a set, or with `value` of a map; `size` is their largest number."""

    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    size: int = 65536
    interval: bool = False  # keys of networks


def _shapes(address: str) -> dict[Part, dict[str, Shape]]:
    """The sets of one family of addresses, under names without its number.

    Sizes are small where there are many sets: the kernel allocates 16 bytes for every element of `size`.
    """
    service = ("inet_proto", "inet_service")
    at, many, some = (address, address, *service), 16384, 1024
    return {
        Part.GRANTS: {"open": Shape((address, *service))},
        Part.DESTINATION: {"open_at": Shape(at)},
        Part.WIDE: {"open_wide": Shape((address, *service), size=4096, interval=True)},
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
            "through_any": Shape((address,), size=some),
            "snat_any": Shape((address,), (address,), some),
            "masquerade_any": Shape((address,), size=some),
        },
    }


_FAMILIES: Final = {"4": _shapes("ipv4_addr"), "6": _shapes("ipv6_addr")}
SYSTEMS_MAP: Final = "systems"  # from the name of an operating system to the number that stands for it in a set
SHAPES: Final[dict[Part, dict[str, Shape]]] = {
    **{
        part: {f"{name}{family}": shape for family, shapes in _FAMILIES.items() for name, shape in shapes[part].items()}
        for part in (Part.GRANTS, Part.DESTINATION, Part.NAT, Part.WIDE)
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
    """The definition of a set or map, on one line. Only `typeof` gives the length of a name."""
    if shape.key == ("string",):
        return f"    map {name} {{ typeof osf name : meta priority; flags timeout; size {shape.size}; }}\n"
    flags = "interval, timeout" if shape.interval else "timeout"
    kind, value = ("map", f" : {' . '.join(shape.value)}") if shape.value else ("set", "")
    return f"    {kind} {name} {{ type {' . '.join(shape.key)}{value}; flags {flags}; size {shape.size}; }}\n"


def sets(part: Part) -> str:
    """The definitions of a part's sets."""
    return "".join(_set(name, shape) for name, shape in SHAPES[part].items())


# The same in every table text. open_any is for the console alone: no knock adds to it.
SETS: Final = (
    f"{sets(Part.GRANTS)}    set {ANYONE_SET} {{ type inet_proto . inet_service; flags timeout; size 1024; }}\n"
    f"{sets(Part.DESTINATION)}"
    "    set ended4 { type ipv4_addr . inet_proto . inet_service; flags timeout; size 65536; }\n"
    "    set ended6 { type ipv6_addr . inet_proto . inet_service; flags timeout; size 65536; }\n"
)
# A UDP server that sends by itself would restart a flow that root ended, and its packets would count as established.
ENDED_CHAIN: Final = """\
    chain ended {
        type filter hook output priority filter; policy accept;
        ct state new ip daddr . meta l4proto . th sport @ended4 drop
        ct state new ip6 daddr . meta l4proto . th sport @ended6 drop
    }
"""
ENDED_SECONDS: Final = 86400
# The same for servers behind this host.
_ENDED_BEHIND: Final = """\
        ct state new ip daddr . meta l4proto . th sport @ended4 drop
        ct state new ip6 daddr . meta l4proto . th sport @ended6 drop
"""
# A SYN begins a new connection, even where connection tracking still holds an earlier one from the same port that the
# server closed and the client did not.
ESTABLISHED: Final = """\
        ct state established meta l4proto != 6 accept
        ct state established tcp flags & (syn | ack) != syn accept
"""
# Of a connection that is let in already, or that is none to this host.
_BELONGING: Final = f"""\
{ESTABLISHED}\
        ct state related meta l4proto {{ 1, 58 }} accept
        ct label 127 return
"""
_PORTED: Final = (6, 17)  # TCP, UDP
# A ghost service's rule only matches connections to another port that were forwarded (dnat): it does not open the
# service's own port. A target may also be an unrouted address of this host.
# The packet's priority is for traffic shaping and unused on input: it carries the number of an operating system, since
# nft does not accept an osf name in the key of a set.
# `LET IN` marks and accepts (_marking).
_ACCEPTS: Final[dict[Part, str]] = {
    Part.GRANTS: """\
        ip saddr . meta l4proto . th dport @open4 LET IN
        ip6 saddr . meta l4proto . th dport @open6 LET IN
        meta l4proto . th dport @open_any LET IN
        ct status dnat jump dialled
""",
    Part.DESTINATION: """\
        ip saddr . ip daddr . meta l4proto . th dport @open_at4 LET IN
        ip6 saddr . ip6 daddr . meta l4proto . th dport @open_at6 LET IN
""",
    Part.NAT: """\
        ct status dnat ip saddr . meta l4proto . th dport @ghost_open4 LET IN
        ct status dnat ip6 saddr . meta l4proto . th dport @ghost_open6 LET IN
        ct status dnat ip saddr . ip daddr . meta l4proto . th dport @through4 LET IN
        ct status dnat ip6 saddr . ip6 daddr . meta l4proto . th dport @through6 LET IN
""",
    Part.WIDE: """\
        ip saddr . meta l4proto . th dport @open_wide4 LET IN
        ip6 saddr . meta l4proto . th dport @open_wide6 LET IN
""",
    Part.SYSTEMS: """\
        meta priority set osf name map @systems jump system
""",
}
# Other programs' DNAT has changed the packet by now: these compare the port that was dialled. nft needs to know the
# protocol before it accepts a port of conntrack in a key.
_DIALLED: Final = """\
        meta l4proto PROTOCOL ip saddr . meta l4proto . ct original proto-dst @open4 LET IN
        meta l4proto PROTOCOL ip6 saddr . meta l4proto . ct original proto-dst @open6 LET IN
        meta l4proto PROTOCOL meta l4proto . ct original proto-dst @open_any LET IN
        meta l4proto PROTOCOL ip saddr . ct original ip daddr . meta l4proto . ct original proto-dst @open_at4 LET IN
        meta l4proto PROTOCOL ip6 saddr . ct original ip6 daddr . meta l4proto . ct original proto-dst @open_at6 LET IN
"""
_DIALLED_WIDE: Final = """\
        meta l4proto PROTOCOL ip saddr . meta l4proto . ct original proto-dst @open_wide4 LET IN
        meta l4proto PROTOCOL ip6 saddr . meta l4proto . ct original proto-dst @open_wide6 LET IN
"""
# Connections of a bridge's members to addresses of other hosts (of a container to a service of its cluster) are none to
# services of this host. Only before DNAT it is known what was dialled; a flow without the label counts as dialled here.
ELSEWHERE_CHAIN: Final = """\
    chain elsewhere {
        type filter hook prerouting priority -101; policy accept;
        ct state new meta iifkind "bridge" fib daddr type unicast ct label set 127
    }
"""
_SYSTEM_CHAIN: Final = """\
    chain system {
        meta priority . ip saddr . meta l4proto . th dport @open_os4 LET IN
        meta priority . ip saddr . ip daddr . meta l4proto . th dport @open_os_at4 LET IN
    }
"""
# Everywhere is not where only the gateway's own links lead, such as a cloud's metadata service.
_FORWARDED: Final = """\
        ip saddr . ip daddr . meta l4proto . th dport @through4 LET IN
        ip6 saddr . ip6 daddr . meta l4proto . th dport @through6 LET IN
        ip saddr . ip daddr @through_all4 LET IN
        ip6 saddr . ip6 daddr @through_all6 LET IN
        ip daddr != 169.254.0.0/16 ip saddr @through_any4 LET IN
        ip6 daddr != fe80::/10 ip6 saddr @through_any6 LET IN
"""
# Only connections to this host are forwarded, and only the first packet of a connection passes here.
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
        snat ip to ip saddr map @snat_any4
        snat ip6 to ip6 saddr map @snat_any6
        ip saddr @masquerade_any4 masquerade
        ip6 saddr @masquerade_any6 masquerade
    }}
"""
ALWAYS: Final = frozenset({Part.GRANTS, Part.DESTINATION})
OUR_CHAINS: Final = (
    GUARD_CHAIN,
    OBSERVE_CHAIN,
    NAT_CHAIN,
    "postrouting",
    "forward",
    "system",
    "ended",
    "dialled",
    "elsewhere",
    PUBLISHED_CHAIN,
    STOPPED_CHAIN,
)  # of the tables that doorwardd makes
FINGERPRINTING: Final = f'table {TABLE}_fingerprints {{ chain none {{ osf name "unknown"; }}; }}'
REMOVE: Final = f"add table {TABLE}\ndelete table {TABLE}\n"  # whether or not it existed, on every kernel

# A quoted text may span lines, as in nft's own scanner: a brace inside it does not count.
_LEXEME: Final = re.compile(r'\\\n|#[^\n]*|"[^"]*"|[{};\n]|[^\s{};"#\\]+|[\\"]')
_BREAKS: Final = frozenset("{};\n")
_DEFINITIONS: Final = ("define", "redefine", "undefine")
_OURS: Final = (["table", *TABLE.split()], ["add", "table", *TABLE.split()], ["delete", "table", *TABLE.split()])


def observe(parts: Collection[Part] = ALWAYS, mark: int = MARK) -> str:
    """The table that records and marks grants and closes nothing; with NAT it forwards connections."""
    chain = _input_chain(OBSERVE_CHAIN, grant_rules(parts, mark), mark)
    return f"table {TABLE} {{\n{_all_sets(parts, mark)}{chain}{ENDED_CHAIN}{_forwarding(parts, mark)}}}\n"


def stopped(mark: int = MARK) -> str:
    """The table of a host that root opened until the next boot, while doorwardd runs: it closes nothing."""
    return observe(mark=mark).removesuffix("}\n") + f"    chain {STOPPED_CHAIN} {{ }}\n}}\n"


def guard(services: Iterable[Service], parts: Collection[Part] = ALWAYS, mark: int = MARK) -> str:
    """The table that drops new connections to `services` unless granted, and affects nothing else.

    It drops those that another program forwards, by the port that was dialled, as well as those to a port of this host.
    `related` is not let in: a conntrack helper would let a connected peer choose the next port.
    """
    dialled = "".join(
        f"        ct status dnat meta l4proto {one} meta l4proto . ct original proto-dst @{GUARDED_SET} drop\n"
        for one in _PORTED
    )
    rules = f"{grant_rules(parts, mark)}        meta l4proto . th dport @{GUARDED_SET} drop\n{dialled}"
    return (
        f"table {TABLE} {{\n{_all_sets(parts, mark)}"
        f"    set {GUARDED_SET} {{ type inet_proto . inet_service; {_elements(services)}}}\n"
        f"{_input_chain(GUARD_CHAIN, rules, mark)}{ENDED_CHAIN}{_forwarding(parts, mark, dialled)}}}\n"
    )


def grant_rules(parts: Collection[Part] = ALWAYS, mark: int = MARK) -> str:
    """The rules of an input chain that accept granted packets."""
    return _marking("".join(rules for part, rules in _ACCEPTS.items() if part in ALWAYS or part in parts), mark)


def forward_rules(mark: int = MARK) -> str:
    """The rules of a forward chain that accept granted packets."""
    return _marking(_FORWARDED, mark)


def _marking(rules: str, mark: int) -> str:
    """Rules whose `LET IN` marks and accepts: a later chain of another firewall can still drop, or accept the mark."""
    return rules.replace("LET IN", f"meta mark set meta mark | {mark:#010x} accept")


def _unmarked(mark: int) -> str:
    """The rule that clears a mark that no grant set: a tunnel passes on the mark of the outer packet."""
    return f"        meta mark set meta mark & {mark ^ 0xFFFFFFFF:#010x}\n"


def _input_chain(name: str, rules: str, mark: int) -> str:
    return (
        f"    chain {name} {{\n"
        f"        type filter hook input priority {PRIORITY}; policy accept;\n"
        f"{_unmarked(mark)}"
        '        iif "lo" accept\n'
        f"{ESTABLISHED}"
        f"{rules}    }}\n"
    )


def widened(text: str, chains: Iterable[str]) -> str:
    """The transaction that turns the present table into that of `text`; live grants stay.

    `chains` are the existing ones, whose rules are written again.
    """
    return "".join(f"flush chain {TABLE} {chain}\n" for chain in chains) + text


def system_number(name: str) -> str:
    """The number of an operating system in a set, as nft writes it: two halves in hex."""
    number = zlib.crc32(name.encode())
    return f"{number >> 16:x}:{number & 0xFFFF:x}"


def _all_sets(parts: Collection[Part], mark: int) -> str:
    chosen = "".join(sets(part) for part in SHAPES if part in parts and part not in ALWAYS)
    rules = _DIALLED + (_DIALLED_WIDE if Part.WIDE in parts else "")
    dialled = "".join(rules.replace("PROTOCOL", str(one)) for one in _PORTED)
    chains = f"    chain dialled {{\n{dialled}    }}\n{_SYSTEM_CHAIN if Part.SYSTEMS in parts else ''}"
    return f"{SETS}{chosen}{_marking(chains, mark)}"


def _forwarding(parts: Collection[Part], mark: int, closing: str = "") -> str:
    """The chains for what passes through this host: our NAT where it is a part, and that of other programs.

    `closing` are the rules for connections that other programs forward and no grant covers.
    """
    nat, through = (NAT_CHAINS, forward_rules(mark)) if Part.NAT in parts else ("", "")
    return (
        f"{nat}{ELSEWHERE_CHAIN}"
        f"    chain {PUBLISHED_CHAIN} {{\n{_BELONGING}        jump dialled\n{closing}    }}\n"
        "    chain forward {\n"
        f"        type filter hook forward priority {PRIORITY}; policy accept;\n"
        f"{_unmarked(mark)}{_ENDED_BEHIND}{through}"
        f"        ct direction original ct status dnat jump {PUBLISHED_CHAIN}\n    }}\n"
    )


def regard(services: Iterable[Service]) -> str:
    """The transaction that makes a guard table guard exactly `services`; live grants stay."""
    elements = ", ".join(map(service_element, sorted(set(services))))
    added = f"add element {TABLE} {GUARDED_SET} {{ {elements} }}\n" if elements else ""
    return f"flush set {TABLE} {GUARDED_SET}\n{added}"


def swap(text: str) -> str:
    """The transaction that replaces our table with `text`, whether or not there is one."""
    return text if text.startswith(REMOVE) else REMOVE + text


def dormant(text: str, name: str) -> str:
    """The text of a file with its table dormant and under another name, to be loaded beside ours.

    Each block has the flag, since nft wakes a table that is named without it.
    """
    made: list[str] = []
    words: list[str] = []
    depth = end = 0
    for match in _LEXEME.finditer(text):
        lexeme = match[0]
        made.append(text[end : match.start()])
        end = match.end()
        if lexeme in _BREAKS:
            made.append(_asleep(lexeme, words if not depth else []))
            depth, words = max(0, depth + {"{": 1, "}": -1}.get(lexeme, 0)), []
        elif lexeme.startswith(("#", "\\\n")):
            made.append(" ")  # a comment would swallow the flag
        else:
            words = [*words, lexeme]
            made.append(name if not depth and words in _OURS else lexeme)
    return "".join([*made, _asleep("\n", words if not depth else []), text[end:]])


def _asleep(lexeme: str, words: list[str]) -> str:
    """The end of the statement `words`, with the flag where it names our table."""
    if words not in _OURS or words[0] == "delete":
        return lexeme
    return "{ flags dormant;" if lexeme == "{" else f" {{ flags dormant; }}{lexeme}"


def restoration(listing: str) -> str:
    """The transaction that brings back the table of `listing` (empty: its absence), without live grants.

    The listing must hold the elements (`nft -s`, not `-t`): terse output leaves out those of static sets too, and a
    restored table would have lost its fallback sources. Live grants are left out of the text: a transaction that adds
    elements and flushes their set crashes nftables 1.1.3 (Debian 13).
    """
    return REMOVE + normalised(listing)


def service_element(service: Service) -> str:
    """`6 . 22`: numbers, since a minimal system has no /etc/protocols to look names up in."""
    return f"{service.protocol:d} . {service.port:d}"


def normalised(listing: str) -> str:
    """A listing of `nft -s list table` without the elements of sets whose elements expire."""
    return "".join(_without_timed_elements(listing.splitlines(keepends=True)))


def refuse_foreign(text: str) -> None:
    """Refuse a table text that defines anything but our table.

    Definitions (`define`) and the add/delete pair of a swap may stand beside it. `include` is refused at any depth:
    the included file could change between the check and the next boot. So are flags of the table.

    Raises:
        FirewallError: names the statement and its line.
    """
    for line, words in _statements(text):
        if "include" in words:
            msg = f"line {line}: include is not allowed in a firewall file"
            raise FirewallError(msg)
        if words == ["flags"]:
            msg = f"line {line}: the table {TABLE} can have no flags: a dormant one filters nothing"
            raise FirewallError(msg)
        if words[0] not in _DEFINITIONS and words not in _OURS:
            msg = f"line {line}: {' '.join(words)[:60]!r} is not the table {TABLE}, and nothing else may be changed"
            raise FirewallError(msg)


def _elements(services: Iterable[Service]) -> str:
    """The elements clause of a set definition; nft refuses an empty one."""
    elements = ", ".join(map(service_element, sorted(set(services))))
    return f"elements = {{ {elements} }}; " if elements else ""


def _without_timed_elements(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a listing without `elements = { … }` in sets that have the timeout flag."""
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
    """Yield line and words of every statement outside braces; inside them of each include and of flags of the table."""
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
        elif depth and (lexeme == "include" or (lexeme == "flags" and depth == 1 and not words)):
            yield line, [lexeme]
        elif not lexeme.startswith(("#", "\\\n")):
            start = start if words else line
            words = [*words, lexeme]
        line += lexeme.count("\n")
    if words:
        yield start, words
