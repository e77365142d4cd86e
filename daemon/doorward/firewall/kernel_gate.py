"""The kernel gate: only packets with a live tag of the format doorward 1 reach the UDP server.

A table of its own (docs/decisions/0019): files and the dead man's switch replace ours as a whole. It is empty of tags
before the listener sends them, and the kernel takes each one out by itself when its time is over.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from doorward.capture.bpf import PAYLOAD_MAX, PAYLOAD_MIN, TAGGED
from doorward.errors import FirewallError
from doorward.firewall import kernel, layout
from doorward.firewall.kernel import TRIES
from doorward.frozen import dataclass
from doorward.linux import netlink
from doorward.linux.netlink import ACKNOWLEDGE, CREATE, DELETE_ELEMENT, NESTED, NEW_ELEMENT, Netlink, attribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from doorward.firewall.layout import Layout
    from doorward.firewall.libnftables import Libnftables

NAME: Final = "doorward_gate"
TABLE: Final = f"inet {NAME}"
TAG_SET: Final = "tag"
REMOVE: Final = f"add table {TABLE}\ndelete table {TABLE}\n"
_CHAIN: Final = "knock"
_UDP_HEADER: Final = 8  # bytes
_SIZE_MIN: Final = 1024  # elements
_INSIDE: Final = {"icmp": (136, 240), "icmpv6": (112, 400)}  # bits: protocol and port of a packet inside its error
_AT_ONCE: Final = 500  # tags in one message, some 16 KB
_KEY, _TIMEOUT = 1, 4  # NFTA_SET_ELEM_*
_PACKETS: Final = 2  # NFTA_COUNTER_PACKETS
_LONG: Final = struct.Struct("!Q")
_SAME: Final = 2.0  # seconds: the clock was not stepped where a tag's end is off by less
_SOON: Final = 1000  # milliseconds
_ADDITION: Final = (NEW_ELEMENT,)
# As Element.removed() and Element.renewed(): no error where one has just expired, and a new time on every kernel.
_REMOVAL: Final = (NEW_ELEMENT, DELETE_ELEMENT)
_RENEWAL: Final = (NEW_ELEMENT, DELETE_ELEMENT, NEW_ELEMENT)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The gate that a configuration needs: the port of the UDP server, whether packets of fwknop's lengths pass too."""

    port: int
    fwknop: bool
    clients: int  # lines of CLIENT: bounds the tags

    @property
    def text(self) -> str:
        """The table.

        What is forwarded to other hosts passes. A closed port answers with an ICMP error, which goes nowhere: a tag may
        be live while nobody reads the socket. A packet that another rule exempted from connection tracking (notrack) is
        known by the beginning of it in the error.
        """
        low, high, tagged = (length + _UDP_HEADER for length in (PAYLOAD_MIN, PAYLOAD_MAX, TAGGED))
        fwknop = f"        udp length != {tagged} udp length {low}-{high} accept\n" if self.fwknop else ""
        unreachable = "".join(
            f"        {kind} type destination-unreachable {kind} code port-unreachable {about} {self.port} drop\n"
            for kind, (protocol, port) in _INSIDE.items()
            for about in ("ct protocol 17 ct original proto-dst", f"@th,{protocol},8 17 @th,{port},16")
        )
        return (
            f"table {TABLE} {{\n"
            f"    set {TAG_SET} {{ typeof @th,64,64; flags timeout; size {self._size}; }}\n"
            f"    chain {_CHAIN} {{\n"
            f"        udp length {tagged} @th,64,64 @{TAG_SET} accept\n"
            f"{fwknop}"
            "        fib daddr type != unicast counter drop\n    }\n"
            "    chain prerouting {\n"
            "        type filter hook prerouting priority raw; policy accept;\n"
            f"        udp dport {self.port} jump {_CHAIN}\n    }}\n"
            "    chain silence {\n"
            "        type filter hook output priority filter; policy accept;\n"
            f"{unreachable}    }}\n}}\n"
        )

    @property
    def _size(self) -> int:
        """Room for the tags of three epochs, twice; a power of two, so that few reloads change the table."""
        return max(_SIZE_MIN, 1 << (6 * self.clients).bit_length())


class KernelGate:
    """The table of the gate and its tags. Needs CAP_NET_ADMIN in its network namespace."""

    def __init__(self, library: Libnftables) -> None:
        """Find out nothing yet.

        Raises:
            FirewallError: no netlink.
        """
        self._nft = library
        self._kernel = Netlink()
        self._wanted: Wanted | None = None
        self._layout: Layout | None = None
        self._tags: dict[bytes, float] = {}
        self._refused = 0  # by tables that are gone

    def follow(self, wanted: Wanted | None, now: float) -> None:
        """Have the gate that is wanted, or none; the tags stay. `now` in seconds of time.monotonic().

        Raises:
            FirewallError: it cannot be loaded; there is none then.
        """
        if wanted is None:
            self.remove()
        elif self._wanted is None or self._wanted.text != wanted.text:
            try:
                self._load(wanted)
                self._add_all(now)
            except FirewallError:
                with suppress(FirewallError):
                    self.remove()
                raise
        self._wanted = wanted

    def remove(self) -> None:
        """Remove the gate, whoever made it; without one nothing is changed."""
        self._refused = self.refused
        self._wanted, self._layout, self._tags = None, None, {}
        if is_there(self._kernel):
            self._nft.run(REMOVE)

    def let_pass(self, tags: Mapping[bytes, float], now: float) -> None:
        """Let these tags pass and no others, each until its time; times in seconds of time.monotonic().

        Raises:
            FirewallError: there is no gate, or the kernel refuses.
        """
        if self._wanted is None:
            msg = "there is no gate in the kernel"
            raise FirewallError(msg)
        live = {tag: end for tag, end in tags.items() if end > now}
        gone = [tag for tag, end in self._tags.items() if tag not in live and end > now]
        moved = {tag: end for tag, end in live.items() if abs(self._tags.get(tag, end) - end) > _SAME}
        new = {tag: end for tag, end in live.items() if tag not in self._tags}
        self._run(_REMOVAL, (element(tag, _SOON) for tag in gone))
        self._run(_RENEWAL, _timed(moved, now))
        self._run(_ADDITION, _timed(new, now))
        self._tags = live  # only now: what failed is done when the tags are said again

    def restore(self, now: float) -> str | None:
        """Load the gate again where others changed it, and its tags where they took one out; return a line for the log.

        Raises:
            FirewallError: it cannot be loaded.
        """
        if self._wanted is None:
            return None
        intact = layout.read(self._kernel, NAME) == self._layout
        if not intact:
            self._load(self._wanted)
        count = self._add_all(now)
        return None if intact else f"THE KERNEL GATE WAS REMOVED OR CHANGED: loaded again, with {count} tags"

    @property
    def refused(self) -> int:
        """How many packets this gate has refused since this object was made."""
        ours = self._layout is not None and is_there(self._kernel)  # not one that an earlier helper left behind
        return self._refused + (_count_refused(self._kernel) if ours else 0)

    def close(self) -> None:
        """Give the socket back; table and tags stay."""
        self._kernel.close()

    def _load(self, wanted: Wanted) -> None:
        """Replace the gate in one transaction; one that is changed at the same time must not be taken for ours."""
        self._refused, commands = self.refused, REMOVE + wanted.text
        for _ in range(TRIES):
            before = self._kernel.generation()
            self._nft.run(commands)
            self._layout = layout.read(self._kernel, NAME)
            if self._kernel.generation() == before + 1:
                break

    def _add_all(self, now: float) -> int:
        """Add all tags that have not ended, and return their number; those that are there already stay as they are."""
        live = {tag: end for tag, end in self._tags.items() if end > now}
        self._run(_ADDITION, _timed(live, now))
        return len(live)

    def _run(self, kinds: tuple[int, ...], tags: Iterable[bytes]) -> None:
        """Change elements, in transactions that netlink has room for."""
        waiting = iter(tags)
        while some := b"".join(islice(waiting, _AT_ONCE)):
            self._kernel.run(transaction(kinds, some))


def transaction(kinds: tuple[int, ...], elements: bytes) -> bytes:
    """The transaction that does these things with all elements, one after the other."""
    place = netlink.text(kernel.TABLE, NAME), netlink.text(kernel.ELEMENTS_SET, TAG_SET)
    listed = attribute(layout.ELEMENTS | NESTED, elements)
    changes = [
        netlink.message(kind, kernel.INET, *place, listed, flags=CREATE if kind == NEW_ELEMENT else 0)
        for kind in kinds[:-1]
    ]
    last = CREATE | ACKNOWLEDGE if kinds[-1] == NEW_ELEMENT else ACKNOWLEDGE
    changes.append(netlink.message(kinds[-1], kernel.INET, *place, listed, flags=last))
    return b"".join((netlink.FIRST, *changes, netlink.LAST))


def element(tag: bytes, milliseconds: int) -> bytes:
    """One element of the set of tags."""
    key = attribute(_KEY | NESTED, attribute(kernel.VALUE, tag))
    return attribute(1 | NESTED, key, attribute(_TIMEOUT, _LONG.pack(milliseconds)))  # 1: NFTA_LIST_ELEM


def _timed(tags: Mapping[bytes, float], now: float) -> Iterator[bytes]:
    """The elements of tags that pass until a time; no time is 0, which would be without an end."""
    return (element(tag, max(1, int((end - now) * 1000))) for tag, end in tags.items())


@dataclass(frozen=True, slots=True)
class Seen:
    """A gate in the kernel: the tags that pass, and the packets that it refused."""

    tags: int
    refused: int


def seen(nftables: Netlink) -> Seen | None:
    """The present gate, or None."""
    return Seen(_count_tags(nftables), _count_refused(nftables)) if is_there(nftables) else None


def is_there(nftables: Netlink) -> bool:
    """Whether there is a gate."""
    tables = nftables.listed(netlink.LIST_TABLES, kernel.INET)
    return NAME in [kernel.words(found[kernel.TABLE]) for _, found in tables]


def _count_refused(nftables: Netlink) -> int:
    rules = list(kernel.rules(nftables, kernel.FAMILIES[kernel.INET], NAME, _CHAIN))
    counters = (content for rule in rules for name, content in kernel.expressions(rule) if name == b"counter")
    return sum(int(_LONG.unpack(dict(netlink.attributes(one))[_PACKETS])[0]) for one in counters)


def _count_tags(nftables: Netlink) -> int:
    return sum(1 for portion in layout.portions(nftables, NAME, TAG_SET) for _ in netlink.attributes(portion))
