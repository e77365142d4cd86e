"""The text of our one nftables table, and the rules for a table text that others write. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doorward.values import Service

TABLE: Final = "inet doorward"
GRANT_SETS: Final = {
    "open4": ("ipv4_addr", "inet_proto", "inet_service"),
    "open6": ("ipv6_addr", "inet_proto", "inet_service"),
}
ANYONE_SET: Final = "open_any"
GUARDED_SET: Final = "guarded"
GUARD_CHAIN: Final = "guard"

# The same in every table text. open_any is for the console alone: nothing that comes from the network fills it.
SETS: Final = """\
    set open4 { type ipv4_addr . inet_proto . inet_service; flags timeout; size 65536; }
    set open6 { type ipv6_addr . inet_proto . inet_service; flags timeout; size 65536; }
    set open_any { type inet_proto . inet_service; flags timeout; size 1024; }
"""
GRANT_RULES: Final = """\
        ip saddr . meta l4proto . th dport @open4 accept
        ip6 saddr . meta l4proto . th dport @open6 accept
        meta l4proto . th dport @open_any accept
"""
REMOVE: Final = f"add table {TABLE}\ndelete table {TABLE}\n"  # whether it was there or not, on every kernel

# A quoted text may go over several lines, as in nft's own scanner: a brace inside it is none.
_LEXEME: Final = re.compile(r'\\\n|#[^\n]*|"[^"]*"|[{};\n]|[^\s{};"#\\]+|[\\"]')
_BREAKS: Final = frozenset("{};\n")
_DEFINITIONS: Final = ("define", "redefine", "undefine")
_OURS: Final = (["table", *TABLE.split()], ["add", "table", *TABLE.split()], ["delete", "table", *TABLE.split()])


def observe() -> str:
    """Return the table that only records grants and closes nothing."""
    return f"table {TABLE} {{\n{SETS}}}\n"


def guard(services: Iterable[Service]) -> str:
    """Return the table that drops new connections to `services` unless granted, and touches nothing else.

    `related` is not let in: a conntrack helper would let a connected peer name the next port.
    """
    return (
        f"table {TABLE} {{\n{SETS}"
        f"    set {GUARDED_SET} {{ type inet_proto . inet_service; {_elements(services)}}}\n"
        f"    chain {GUARD_CHAIN} {{\n"
        "        type filter hook input priority filter; policy accept;\n"
        '        iif "lo" accept\n'
        "        ct state established accept\n"
        f"{GRANT_RULES}"
        f"        meta l4proto . th dport @{GUARDED_SET} drop\n"
        "    }\n}\n"
    )


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
