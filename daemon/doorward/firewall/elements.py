"""Grants as elements of the sets and maps of our table, and back. Pure."""

from __future__ import annotations

import ipaddress
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from doorward.errors import FirewallError, WireError
from doorward.firewall import ruleset
from doorward.firewall.ruleset import Part
from doorward.values import LiveGrant, Nat, Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doorward.values import IPAddress

# The unspecified address stands for anybody: no grant from the network can have it (values.Grant refuses it).
ANYONE: Final = ipaddress.IPv4Address(0)
_TWO: Final = 2  # fields of a way without protocol and port
_CLASS: Final = re.compile("[0-9a-f]{1,4}:[0-9a-f]{1,4}")  # how nft lists what stands for an operating system
_RIVALS: Final = {"ghost": "lead", "lead": "ghost", "ghost_at": "lead_at", "lead_at": "ghost_at"}
_PROTOCOLS: Final = {
    name: protocol for protocol in Protocol for name in (str(protocol), int(protocol), str(int(protocol)))
}


@dataclass(frozen=True, slots=True)
class Element:
    """One element as nft writes it: where it goes, its key, and in a map what it leads to."""

    place: str
    key: str
    value: str = ""

    def added(self, seconds: int) -> str:
        """Return the command that adds it for so many seconds; one that is there stays as it is."""
        return f"add element {ruleset.TABLE} {self.place} {{ {self.timed(seconds)} }}\n"

    def added_for_good(self) -> str:
        """Return the command that adds it without an end."""
        return f"add element {ruleset.TABLE} {self.place} {{ {self.key} : {self.value} }}\n"

    def deleted(self) -> str:
        """Return the command that deletes it; one that is not there is an error."""
        return f"delete element {ruleset.TABLE} {self.place} {{ {self.key} }}\n"

    def timed(self, seconds: int) -> str:
        """Return what stands inside the braces."""
        return f"{self.key} timeout {seconds:d}s{f' : {self.value}' if self.value else ''}"

    @property
    def rival(self) -> Element | None:
        """The element that would lead the same connections to the other kind of place: this host, or another one."""
        name = self.place.rstrip("46")
        if name not in _RIVALS:
            return None
        return Element(self.place.replace(name, _RIVALS[name]), self.key)

    def renewed(self, seconds: int) -> str:
        """Return add, delete, add: the only way that renews an element on every kernel (before 6.13 add leaves it)."""
        added = self.added(seconds)
        return f"{added}{self.deleted()}{added}"

    def removed(self) -> str:
        """Return add, delete: no error where the element expired a moment ago."""
        return f"{self.added(1)}{self.deleted()}"


def of(live: LiveGrant) -> tuple[Element, ...]:
    """Return the elements of one service of a grant.

    Raises:
        FirewallError: no element could express it.
    """
    if live.nat is None:
        return _plain(live)
    if live.os is not None:
        msg = "connections of one operating system only cannot be led elsewhere"
        raise FirewallError(msg)
    return _ghost(live, live.nat) if live.nat.target is None else _forwarded(live, live.nat, live.nat.target)


def part(live: LiveGrant) -> Part:
    """Return the part of the table that a grant needs."""
    if live.nat is not None:
        return Part.NAT
    if live.os is not None:
        return Part.SYSTEMS
    return Part.GRANTS if live.destination is None else Part.DESTINATION


def system(name: str) -> Element:
    """Return the element that gives an operating system its number; it has no end, and lets nobody in."""
    return Element(ruleset.SYSTEMS_MAP, f'"{name}"', f'"{ruleset.system_number(name)}"')


def _plain(live: LiveGrant) -> tuple[Element, ...]:
    source, family = _address(live.source)
    start, suffix = _start(live, family)
    if live.os is None:
        return (Element(f"open{suffix}{family}", f"{start} . {_service(live)}"),)
    if family != "4" or live.service is None or live.service.protocol is not Protocol.TCP:
        msg = f"{source} {live.service}: an operating system is told from the first packet of TCP over IPv4 only"
        raise FirewallError(msg)
    number = ruleset.system_number(live.os)
    return (Element(f"open_os{suffix}4", f'"{number}" . {start} . {_service(live)}'),)


def _ghost(live: LiveGrant, nat: Nat) -> tuple[Element, ...]:
    """Return where a connection is led, and what lets it in there."""
    source, family = _address(live.source)
    start, suffix = _start(live, family)
    protocol = live.service.protocol if live.service is not None else Protocol.TCP
    return (
        Element(f"ghost{suffix}{family}", f"{start} . {_service(live)}", f"{nat.port}"),
        Element(f"ghost_open{family}", f"{source} . {protocol:d} . {nat.port}"),
    )


def _forwarded(live: LiveGrant, nat: Nat, target: IPAddress) -> tuple[Element, ...]:
    """Return where a connection is led, what lets it through, and what gives it another source."""
    source, family = _address(live.source)
    there, snat = _of_family(target, family), None if nat.snat is None else _of_family(nat.snat, family)
    start, suffix = _start(live, family)
    if nat.everything or live.service is None:
        kind, asked, value, way = "_all", start, there, f"{source} . {there}"
    else:
        kind, asked, value = "", f"{start} . {_service(live)}", f"{there} . {nat.port}"
        way = f"{source} . {there} . {live.service.protocol:d} . {nat.port}"
    elements = [Element(f"lead{kind}{suffix}{family}", asked, value)] if nat.rewrite else []
    elements.append(Element(f"through{kind}{family}", way))
    if snat is not None:
        elements.append(Element(f"snat{kind}{family}", way, snat))
    if nat.masquerade:
        elements.append(Element(f"masquerade{kind}{family}", way))
    return tuple(elements)


def _start(live: LiveGrant, family: str) -> tuple[str, str]:
    """Return how a key begins, and the ending of its set's name: source, and where it is bound to one, destination."""
    source, _ = _address(live.source)
    return (source, "") if live.destination is None else (f"{source} . {_of_family(live.destination, family)}", "_at")


def _service(live: LiveGrant) -> str:
    if live.service is None:
        msg = "a grant without a service opens nothing"
        raise FirewallError(msg)
    return ruleset.service_element(live.service)


def _address(address: IPAddress) -> tuple[str, str]:
    """Return an address as it is written in a set, and the number of its family.

    Raises:
        FirewallError: an address with a scope, which no set could express.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return str(address), "4"
    if address.ipv4_mapped is not None:  # such a packet arrives as IPv4 and never matches an IPv6 set
        return str(address.ipv4_mapped), "4"
    if address.scope_id is not None:
        msg = f"{address}: an address with a scope cannot be granted"
        raise FirewallError(msg)
    return str(address), "6"


def _of_family(address: IPAddress, family: str) -> str:
    written, its_own = _address(address)
    if its_own != family:
        msg = f"{written} is not of the family of addresses that the connection has"
        raise FirewallError(msg)
    return written


@dataclass(frozen=True, slots=True)
class _Listed:
    """One listed element: what its key is made of, what it leads to in a map, remaining seconds."""

    place: str
    key: tuple[Any, ...]
    value: tuple[Any, ...]
    remaining: float

    @property
    def everything(self) -> bool:
        """Whether it speaks of every protocol and port."""
        return "_all" in self.place

    @property
    def sound(self) -> bool:
        """Whether a grant could have made it; root may put anything into a set."""
        if not all(isinstance(one, (str, int)) for one in (*self.key, *self.value)):  # a range, or a network
            return False
        ports = () if self.everything else (self.key[-1], *self.value[-1:])
        return self.everything or (self.key[-2] in _PROTOCOLS and 0 not in ports)

    @property
    def service(self) -> Service | None:
        """The service at the end of the key."""
        return None if self.everything else Service(_PROTOCOLS[self.key[-2]], self.key[-1])

    @property
    def addresses(self) -> tuple[IPAddress, IPAddress | None]:
        """The source, and the address of this host that it is bound to."""
        source, *further = self.key[1:] if self.place.startswith("open_os") else self.key
        bound = ipaddress.ip_address(further[0]) if "_at" in self.place else None
        return ipaddress.ip_address(source), bound

    @property
    def way(self) -> tuple[Any, ...]:
        """Where it leads from where: source and target, and then protocol and port."""
        return (self.key[0], self.value[0], *(() if self.everything else (self.key[-2], self.value[1])))


class Listing:
    """The elements of our table as nft lists them in JSON."""

    def __init__(self, entries: Iterable[dict[str, Any]]) -> None:
        """Keep the elements of the sets that grants go to, by the set's name without the number of its family."""
        self._listed: dict[str, list[_Listed]] = {}
        for entry in entries:
            for kind, listed in entry.items():
                if kind in {"set", "map"} and listed["name"] in ruleset.GRANT_KINDS:
                    found = [_read(listed["name"], element) for element in listed.get("elem", ())]
                    self._listed.setdefault(listed["name"].rstrip("46"), []).extend(found)

    def of_source(self, source: IPAddress) -> list[Element]:
        """Return every element that belongs to the grants of one address."""
        written, _ = _address(source)
        return [
            Element(one.place, _written(one.key), _written(one.value))
            for name, listed in self._listed.items()
            if name not in {ruleset.SYSTEMS_MAP, ruleset.ANYONE_SET}
            for one in listed
            if one.key[1 if name.startswith("open_os") else 0] == written
        ]

    def grants(self) -> tuple[LiveGrant, ...]:
        """Return what is open, ordered by source and service. An element without an end remains infinitely."""
        found = [*self._anyone(), *self._plain(), *self._ghosts(), *self._forwarded()]
        return tuple(sorted(found, key=_order))

    def _anyone(self) -> Iterator[LiveGrant]:
        for one in self._in(ruleset.ANYONE_SET):
            yield LiveGrant(ANYONE, one.service, one.remaining)

    def _plain(self) -> Iterator[LiveGrant]:
        systems = {one.value[0]: one.key[0] for one in self._listed.get(ruleset.SYSTEMS_MAP, ())}
        for one in self._in("open", "open_at", "open_os", "open_os_at"):
            source, destination = one.addresses
            system = systems.get(one.key[0], "unknown") if one.place.startswith("open_os") else None
            yield LiveGrant(source, one.service, one.remaining, None, system, destination)

    def _ghosts(self) -> Iterator[LiveGrant]:
        for one in self._in("ghost", "ghost_at"):
            source, destination = one.addresses
            yield LiveGrant(source, one.service, one.remaining, Nat(None, one.value[0]), None, destination)

    def _forwarded(self) -> Iterator[LiveGrant]:
        """Yield what is led to a target, and what is let through without that (DISABLE_DNAT)."""
        sources = {one.key: ipaddress.ip_address(one.value[0]) for one in self._in("snat", "snat_all")}
        masquerading = {one.key for one in self._in("masquerade", "masquerade_all")}

        def nat(way: tuple[Any, ...], *, rewrite: bool) -> Nat:
            snat, masquerade = sources.get(way), way in masquerading and way not in sources
            target, port = ipaddress.ip_address(way[1]), None if len(way) == _TWO else way[3]
            return Nat(target, port, everything=port is None, rewrite=rewrite, snat=snat, masquerade=masquerade)

        ways = set()
        for one in self._in("lead", "lead_at", "lead_all", "lead_all_at"):
            ways.add(one.way)
            source, destination = one.addresses
            with suppress(WireError):
                yield LiveGrant(source, one.service, one.remaining, nat(one.way, rewrite=True), None, destination)
        for one in self._in("through", "through_all"):
            if one.key not in ways:
                source, _ = one.addresses
                with suppress(WireError):
                    yield LiveGrant(source, one.service, one.remaining, nat(one.key, rewrite=False))

    def _in(self, *names: str) -> Iterator[_Listed]:
        for name in names:
            yield from (one for one in self._listed.get(name, ()) if one.sound)


def _read(place: str, listed: Any) -> _Listed:  # noqa: ANN401  as JSON has it
    """Return one element as it is listed: bare, with times, or in a map beside its value."""
    key, value = listed if isinstance(listed, list) else (listed, None)
    timed = key.get("elem", key) if isinstance(key, dict) else {"val": key}
    remaining = float(timed.get("expires", math.inf))
    return _Listed(place, _fields(timed.get("val", timed)), () if value is None else _fields(value), remaining)


def _fields(listed: Any) -> tuple[Any, ...]:  # noqa: ANN401  as JSON has it
    return tuple(listed["concat"]) if isinstance(listed, dict) else (listed,)


def _written(fields: tuple[Any, ...]) -> str:
    """Return the fields of a key as they are written in a command; a system's number needs its quotes."""
    return " . ".join(f'"{one}"' if _CLASS.fullmatch(str(one)) else str(one) for one in fields)


def _order(grant: LiveGrant) -> tuple[Any, ...]:
    service = (grant.service.protocol, grant.service.port) if grant.service else (0, 0)
    return grant.source.version, grant.source, service, grant.nat is not None, str(grant.destination), grant.os or ""
