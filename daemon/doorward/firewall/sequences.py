"""Sequences of ports, counted by the kernel: no process of ours sees a packet before the last step of a good one.

A table of its own (docs/decisions/0027). The addresses in the middle of a sequence are elements with an end; the last
step is logged to a netfilter group that the listener reads, and opens nothing by itself.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import layout
from doorward.firewall.kernel import TRIES
from doorward.linux.netfilter_log import GROUP, HEADERS, PREFIX
from doorward.linux.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doorward.config.sequence import Sequence
    from doorward.firewall.layout import Layout
    from doorward.firewall.libnftables import Libnftables
    from doorward.values import Service

NAME: Final = "doorward_sequence"
TABLE: Final = f"inet {NAME}"
REMOVE: Final = f"add table {TABLE}\ndelete table {TABLE}\n"
SOURCES_MAX: Final = 16384  # addresses at one step of one sequence; what is more begins no sequence until they end
UNDERWAY_MAX: Final = 65536  # addresses in the middle of any
BEGINS_A_SECOND: Final = 2  # by one address, in the long run
BEGINS_AT_ONCE: Final = 10
_FAMILIES: Final = {"4": ("ip", "ipv4_addr"), "6": ("ip6", "ipv6_addr")}


def text(sequences: tuple[Sequence, ...]) -> str:
    """The table that counts these sequences.

    It drops nothing. Packets of connections that were answered are no steps, and neither right nor wrong. A source
    that has begun no sequence costs two look-ups, one that has begun some costs three for each of the others.
    """
    firsts = ", ".join(_element(one) for one in sorted({sequence.services[0] for sequence in sequences}))
    underway = "".join(
        f"        {ip} saddr @underway{number} goto sequences\n" for number, (ip, _) in _FAMILIES.items()
    )
    longest = max(sequence.seconds for sequence in sequences)
    return (
        f"table {TABLE} {{\n"
        f"    set first {{ type inet_proto . inet_service; elements = {{ {firsts} }}; }}\n"
        f"{''.join(_set(f'underway{number}', kind, UNDERWAY_MAX) for number, (_, kind) in _FAMILIES.items())}"
        f"{''.join(_set(f'began{number}', kind, UNDERWAY_MAX) for number, (_, kind) in _FAMILIES.items())}"
        f"{''.join(line for place, one in enumerate(sequences) for line in _sets(place, one))}"
        f"{''.join(_chain(place, one, longest) for place, one in enumerate(sequences))}"
        "    chain sequences {\n"
        f"{''.join(_too_often(number, ip) for number, (ip, _) in _FAMILIES.items())}"
        f"{''.join(f'        jump enter_{place}' + chr(10) for place in range(len(sequences)))}    }}\n"
        "    chain prerouting {\n"
        "        type filter hook prerouting priority mangle; policy accept;\n"
        "        meta l4proto != { 6, 17 } return\n"
        "        ct state established meta l4proto 17 return\n"
        "        ct state established tcp flags & (syn | ack) != syn return\n"
        "        fib daddr type != local return\n"
        f"{underway}"
        "        meta l4proto . th dport @first goto sequences\n    }\n}\n"
    )


def _too_often(number: str, ip: str) -> str:
    """The rule for who begins more often than people do: the packet is neither right nor wrong."""
    often = f"limit rate over {BEGINS_A_SECOND}/second burst {BEGINS_AT_ONCE} packets"
    return f"        meta l4proto . th dport @first update @began{number} {{ {ip} saddr timeout 10s {often} }} return\n"


def _element(service: Service) -> str:
    return f"{service.protocol:d} . {service.port:d}"


def _name(place: int) -> str:
    return f"sequence_{place}"


def _at(place: int, step: int, number: str) -> str:
    """The set of the addresses that have done so many steps of a sequence."""
    return f"{_name(place)}_step_{step}_{number}"


def _begun(place: int, number: str) -> str:
    """The set of the addresses for whose sequence there is time."""
    return f"{_name(place)}_begun_{number}"


def _set(name: str, kind: str, size: int = SOURCES_MAX) -> str:
    return f"    set {name} {{ type {kind}; flags dynamic, timeout; size {size}; }}\n"


def _sets(place: int, sequence: Sequence) -> Iterator[str]:
    for number, (_, kind) in _FAMILIES.items():
        yield from (_set(_at(place, step, number), kind) for step in range(1, len(sequence.steps)))
        yield _set(_begun(place, number), kind)


def _chain(place: int, sequence: Sequence, longest: int) -> str:
    """The chain of one sequence: the awaited port leads on, the one before it changes nothing, any other ends it.

    The first port always begins. Another chain lets in who has begun, or begins.
    """
    flags, last = sequence.flags, len(sequence.steps)
    rules = [
        *([f"tcp flags & {flags.mask:#x} != {flags.value:#x} return"] if flags.mask else []),
        *(rule for step in range(last - 1, 0, -1) for rule in _lead_on(place, sequence, step)),
        *(rule for step in range(last - 1, 0, -1) for rule in _repeat(place, sequence, step)),
        *_begin(place, sequence, longest),
        *_start_over(place, sequence),
    ]
    enters = [f"{ip} saddr @{_begun(place, number)}" for number, (ip, _) in _FAMILIES.items()]
    enter = [f"{which} goto {_name(place)}" for which in (*enters, _to(sequence.steps[0].service))]
    return _rules(_name(place), rules) + _rules(f"enter_{place}", enter)


def _rules(name: str, rules: Iterable[str]) -> str:
    return f"    chain {name} {{\n{''.join(f'        {rule}{chr(10)}' for rule in rules)}    }}\n"


def _to(service: Service) -> str:
    return f"meta l4proto {service.protocol:d} th dport {service.port}"


def _lead_on(place: int, sequence: Sequence, done: int) -> Iterator[str]:
    """The rules for the port that comes after so many steps."""
    step = sequence.steps[done]
    is_last = done == len(sequence.steps) - 1
    for number, (ip, _) in _FAMILIES.items():
        here = f"{_to(step.service)} {ip} saddr @{_at(place, done, number)}"
        leave = f"delete @{_at(place, done, number)} {{ {ip} saddr }}"
        if is_last:
            in_time = f"{ip} saddr @{_begun(place, number)} delete @{_begun(place, number)} {{ {ip} saddr }}"
            said = f'log prefix "{PREFIX}{sequence.mark.decode()}" group {GROUP} snaplen {HEADERS}'
            yield f"{here} {in_time} {leave} {said} return"
        else:
            seconds = sequence.steps[done + 1].seconds
            yield f"{here} {leave} add @{_at(place, done + 1, number)} {{ {ip} saddr timeout {seconds}s }} return"


def _repeat(place: int, sequence: Sequence, done: int) -> Iterator[str]:
    """The rules for the port of the last step that was done: the network may repeat a packet."""
    if done > 1:
        for number, (ip, _) in _FAMILIES.items():
            yield f"{_to(sequence.steps[done - 1].service)} {ip} saddr @{_at(place, done, number)} return"


def _begin(place: int, sequence: Sequence, longest: int) -> Iterator[str]:
    """The rules for the first port. Where the set of all addresses has no room, the kernel ends the rule there."""
    for number, (ip, _) in _FAMILIES.items():
        kept = {f"underway{number}": longest, _begun(place, number): sequence.seconds}
        kept[_at(place, 1, number)] = sequence.steps[1].seconds
        changes = " ".join(f"update @{name} {{ {ip} saddr timeout {seconds}s }}" for name, seconds in kept.items())
        undone = "".join(f" delete @{_at(place, step, number)} {{ {ip} saddr }}" for step in _later(sequence))
        yield f"{_to(sequence.steps[0].service)} meta nfproto ipv{number}{undone} {changes} return"


def _start_over(place: int, sequence: Sequence) -> Iterator[str]:
    """The rules for every port that does not lead on."""
    for number, (ip, _) in _FAMILIES.items():
        names = (_begun(place, number), *(_at(place, step, number) for step in (1, *_later(sequence))))
        gone = " ".join(f"delete @{name} {{ {ip} saddr }}" for name in names)
        yield f"meta nfproto ipv{number} {gone}"


def _later(sequence: Sequence) -> range:
    """The numbers of steps after which one is in the middle, beyond the first."""
    return range(2, len(sequence.steps))


class Sequences:
    """The table of the sequences. Needs CAP_NET_ADMIN in its network namespace."""

    def __init__(self, library: Libnftables) -> None:
        """Find out nothing yet.

        Raises:
            FirewallError: no netlink.
        """
        self._nft = library
        self._kernel = Netlink()
        self._wanted = ""
        self._layout: Layout | None = None

    def follow(self, wanted: Iterable[Sequence], _now: float) -> None:
        """Have the table that counts these sequences, or none; the same ones go on where they are.

        Raises:
            FirewallError: it cannot be loaded; there is none then.
        """
        chosen = tuple(wanted)
        commands = text(chosen) if chosen else ""
        if not commands:
            self.remove()
        elif commands != self._wanted:
            try:
                self._load(commands)
            except FirewallError:
                with suppress(FirewallError):
                    self.remove()
                raise
        self._wanted = commands

    def remove(self) -> None:
        """Remove the table, whoever made it; without one nothing is changed."""
        self._wanted, self._layout = "", None
        if layout.read(self._kernel, NAME) is not None:
            self._nft.run(REMOVE)

    def restore(self, _now: float) -> str | None:
        """Load the table again where others changed it; return a line for the log.

        Raises:
            FirewallError: it cannot be loaded.
        """
        if not self._wanted or layout.read(self._kernel, NAME) == self._layout:
            return None
        self._load(self._wanted)
        return "THE TABLE OF THE SEQUENCES WAS REMOVED OR CHANGED: loaded again, those under way start over"

    def close(self) -> None:
        """Give the socket back; the table stays."""
        self._kernel.close()

    def _load(self, commands: str) -> None:
        """Replace the table in one transaction; one that is changed at the same time must not be taken for ours."""
        for _ in range(TRIES):
            before = self._kernel.generation()
            self._nft.run(REMOVE + commands)
            self._layout = layout.read(self._kernel, NAME)
            if self._kernel.generation() == before + 1:
                break
