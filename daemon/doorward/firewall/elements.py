"""Grants as elements of the sets and maps of our table, and back. Pure."""

from __future__ import annotations

import ipaddress
import math
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from doorward.errors import FirewallError, WireError
from doorward.firewall import ruleset
from doorward.firewall.ruleset import Part
from doorward.frozen import dataclass
from doorward.values import EVERY_ADDRESS, LiveGrant, Nat, Protocol, Service, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doorward.values import IPAddress

# The unspecified address stands for everybody: no grant from the network can have it (values.Grant refuses it).
ANYONE: Final = ipaddress.IPv4Address(0)
_TWO: Final = 2  # fields of a way without protocol and port
_CLASS: Final = re.compile("[0-9a-f]{1,4}:[0-9a-f]{1,4}")  # how nft lists the number of an operating system
_RIVALS: Final = {"ghost": "lead", "lead": "ghost", "ghost_at": "lead_at", "lead_at": "ghost_at"}
_PROTOCOLS: Final = {
    name: protocol for protocol in Protocol for name in (str(protocol), int(protocol), str(int(protocol)))
}


@dataclass(frozen=True, slots=True)
class Element:
    """One element as nft writes it: its set or map, its key, in a map its value, and the stanza's name as a comment."""

    place: str
    key: str
    value: str = ""
    name: str | None = None

    def added(self, seconds: int) -> str:
        """The command that adds it for `seconds`; an existing element does not change."""
        return f"add element {ruleset.TABLE} {self.place} {{ {self.timed(seconds)} }}\n"

    def added_for_good(self) -> str:
        """The command that adds it without an end."""
        return f"add element {ruleset.TABLE} {self.place} {{ {self.key} : {self.value} }}\n"

    def deleted(self) -> str:
        """The command that deletes it; an error where it is missing."""
        return f"delete element {ruleset.TABLE} {self.place} {{ {self.key} }}\n"

    def timed(self, seconds: int) -> str:
        """The text inside the braces."""
        comment = "" if self.name is None else f' comment "{self.name}"'
        return f"{self.key} timeout {seconds:d}s{comment}{f' : {self.value}' if self.value else ''}"

    @property
    def of_any_time(self) -> tuple[str, str]:
        """Its set and its key: an element of these is the same, whatever its time and its comment."""
        return self.place, self.key

    @property
    def rival(self) -> Element | None:
        """The element that would forward the same connections to the other kind of target (this host, or another)."""
        name = self.place.rstrip("46")
        if name not in _RIVALS:
            return None
        return Element(self.place.replace(name, _RIVALS[name]), self.key)

    def renewed(self, seconds: int) -> str:
        """Add, delete, add: the only way that renews an element on every kernel (before 6.13 add leaves it)."""
        added = self.added(seconds)
        return f"{added}{self.deleted()}{added}"

    def removed(self) -> str:
        """Add, delete: no error where the element expired a moment ago."""
        return f"{self.added(1)}{self.deleted()}"


def of(live: LiveGrant) -> tuple[Element, ...]:
    """The elements of one service of a grant.

    Raises:
        FirewallError: no element could express it.
    """
    if live.nat is None:
        return _named(live, _plain(live))
    if live.os is not None:
        msg = "connections of one operating system cannot be forwarded"
        raise FirewallError(msg)
    target = live.nat.target
    return _named(live, _ghost(live, live.nat) if target is None else _forwarded(live, live.nat, target))


def _named(live: LiveGrant, found: tuple[Element, ...]) -> tuple[Element, ...]:
    return found if live.name is None else tuple(replace(one, name=live.name) for one in found)


def part(live: LiveGrant) -> Part:
    """The part of the table that a grant needs."""
    if live.nat is not None:
        return Part.NAT
    if live.os is not None:
        return Part.SYSTEMS
    if live.prefix is not None:
        return Part.WIDE
    return Part.GRANTS if live.destination is None else Part.DESTINATION


def system(name: str) -> Element:
    """The element that gives an operating system its number; it has no end, and lets nobody in."""
    return Element(ruleset.SYSTEMS_MAP, f'"{name}"', f'"{ruleset.system_number(name)}"')


def _plain(live: LiveGrant) -> tuple[Element, ...]:
    source, family = _address(live.source)
    if live.prefix is not None:
        return (Element(f"open_wide{family}", f"{live.network} . {_service(live)}"),)
    start, suffix = _start(live, family)
    if live.os is None:
        return (Element(f"open{suffix}{family}", f"{start} . {_service(live)}"),)
    if family != "4" or live.service is None or live.service.protocol is not Protocol.TCP:
        msg = f"{source} {live.service}: an operating system is recognised by the first packet of TCP over IPv4 only"
        raise FirewallError(msg)
    number = ruleset.system_number(live.os)
    return (Element(f"open_os{suffix}4", f'"{number}" . {start} . {_service(live)}'),)


def _ghost(live: LiveGrant, nat: Nat) -> tuple[Element, ...]:
    """The elements that forward a connection to another port of this host, and let it in there."""
    source, family = _address(live.source)
    start, suffix = _start(live, family)
    protocol = live.service.protocol if live.service is not None else Protocol.TCP
    return (
        Element(f"ghost{suffix}{family}", f"{start} . {_service(live)}", f"{nat.port}"),
        Element(f"ghost_open{family}", f"{source} . {protocol:d} . {nat.port}"),
    )


def _forwarded(live: LiveGrant, nat: Nat, target: IPAddress) -> tuple[Element, ...]:
    """The elements that forward a connection, let it through, and give it another source."""
    source, family = _address(live.source)
    there, snat = _of_family(target, family), None if nat.snat is None else _of_family(nat.snat, family)
    start, suffix = _start(live, family)
    if nat.everywhere:
        kind, asked, value, way = "_any", start, "", source
    elif nat.everything or live.service is None:
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
    """The beginning of a key (source, and destination if the grant has one), and the suffix of its set's name."""
    source, _ = _address(live.source)
    return (source, "") if live.destination is None else (f"{source} . {_of_family(live.destination, family)}", "_at")


def _service(live: LiveGrant) -> str:
    if live.service is None:
        msg = "a grant without a service opens nothing"
        raise FirewallError(msg)
    return ruleset.service_element(live.service)


def _address(address: IPAddress) -> tuple[str, str]:
    """An address as it is written in a set, and the number of its family.

    Raises:
        FirewallError: an address with a scope, which no set can express.
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
        msg = f"{written} has another address family than the connection"
        raise FirewallError(msg)
    return written


@dataclass(frozen=True, slots=True)
class _Listed:
    """One listed element: the fields of its key and of its value in a map, remaining seconds, its comment if a name."""

    place: str
    key: tuple[Any, ...]
    value: tuple[Any, ...]
    remaining: float
    name: str | None

    @property
    def everything(self) -> bool:
        """Whether it covers every protocol and port."""
        return self.place != ruleset.ANYONE_SET and ("_all" in self.place or "_any" in self.place)

    @property
    def sound(self) -> bool:
        """Whether it can come from a grant; root may put anything into a set."""
        if not all(isinstance(one, (str, int)) for one in (*self.key, *self.value)):  # a range, or a network
            return False
        ports = () if self.everything else (self.key[-1], *self.value[-1:])
        return self.everything or (self.key[-2] in _PROTOCOLS and 0 not in ports)

    @property
    def service(self) -> Service | None:
        """The service at the end of the key."""
        return None if self.everything else listed_service(*self.key[-2:])

    @property
    def addresses(self) -> tuple[IPAddress, IPAddress | None]:
        """The source, and the address of this host that the grant is limited to."""
        source, *further = self.key[1:] if self.place.startswith("open_os") else self.key
        bound = ipaddress.ip_address(further[0]) if "_at" in self.place else None
        return ipaddress.ip_address(source), bound

    @property
    def target(self) -> IPAddress:
        """The target that a key without rewriting names; one of everywhere is its source alone."""
        source, *further = self.key
        return ipaddress.ip_address(further[0]) if further else EVERY_ADDRESS[ipaddress.ip_address(source).version]

    @property
    def way(self) -> tuple[Any, ...]:
        """Source and target of the forwarding, then protocol and port."""
        return (self.key[0], self.value[0], *(() if self.everything else (self.key[-2], self.value[1])))


def is_service(protocol: str | int, port: int) -> bool:
    """Whether a listed element is a service that can be granted."""
    return protocol in _PROTOCOLS and port != 0


def listed_service(protocol: str | int, port: int) -> Service:
    """The service of a listed element; nft lists a protocol by its name or number."""
    return Service(_PROTOCOLS[protocol], port)


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
        """Every element that belongs to the grants of one address."""
        written, _ = _address(source)
        return [
            Element(one.place, _written(one.key), _written(one.value))
            for name, listed in self._listed.items()
            if name not in {ruleset.SYSTEMS_MAP, ruleset.ANYONE_SET}
            for one in listed
            if (
                _is_around(one.key[0], ipaddress.ip_address(written))
                if name == ruleset.WIDE_SET
                else one.key[_at(name)] == written
            )
        ]

    def grants(self) -> tuple[LiveGrant, ...]:
        """The open grants, ordered by source and service; an element that never expires remains infinitely."""
        found = [*self._anyone(), *self._plain(), *self.wide(), *self._ghosts(), *self._forwarded()]
        return tuple(sorted(found, key=_order))

    def _anyone(self) -> Iterator[LiveGrant]:
        for one in self._in(ruleset.ANYONE_SET):
            yield LiveGrant(ANYONE, one.service, one.remaining)

    def _plain(self) -> Iterator[LiveGrant]:
        systems = {one.value[0]: one.key[0] for one in self._listed.get(ruleset.SYSTEMS_MAP, ())}
        for one in self._in("open", "open_at", "open_os", "open_os_at"):
            source, destination = one.addresses
            system = systems.get(one.key[0], "unknown") if one.place.startswith("open_os") else None
            yield LiveGrant(source, one.service, one.remaining, None, system, destination, one.name)

    def wide(self) -> Iterator[LiveGrant]:
        """The networks that are let in, none of which overlap."""
        for one in self._in(ruleset.WIDE_SET):
            network = ipaddress.ip_network(one.key[0])
            source, prefix = network.network_address, network.prefixlen
            yield LiveGrant(source, one.service, one.remaining, name=one.name, prefix=prefix)

    def _ghosts(self) -> Iterator[LiveGrant]:
        for one in self._in("ghost", "ghost_at"):
            source, destination = one.addresses
            there = Nat(None, one.value[0])
            yield LiveGrant(source, one.service, one.remaining, there, None, destination, one.name)

    def _forwarded(self) -> Iterator[LiveGrant]:
        """Grants that forward to a target, and those that are only let through (DISABLE_DNAT)."""
        sources = {one.key: ipaddress.ip_address(one.value[0]) for one in self._in("snat", "snat_all", "snat_any")}
        masquerading = {one.key for one in self._in("masquerade", "masquerade_all", "masquerade_any")}

        def nat(way: tuple[Any, ...], target: IPAddress, *, rewrite: bool) -> Nat:
            snat, masquerade = sources.get(way), way in masquerading and way not in sources
            port = None if len(way) <= _TWO else way[3]
            return Nat(target, port, everything=port is None, rewrite=rewrite, snat=snat, masquerade=masquerade)

        ways = set()
        for one in self._in("lead", "lead_at", "lead_all", "lead_all_at"):
            ways.add(one.way)
            source, destination = one.addresses
            with suppress(WireError):
                there = nat(one.way, ipaddress.ip_address(one.way[1]), rewrite=True)
                yield LiveGrant(source, one.service, one.remaining, there, None, destination, one.name)
        for one in self._in("through", "through_all", "through_any"):
            if one.key not in ways:
                source, _ = one.addresses
                with suppress(WireError):
                    there = nat(one.key, one.target, rewrite=False)
                    yield LiveGrant(source, one.service, one.remaining, there, name=one.name)

    def _in(self, *names: str) -> Iterator[_Listed]:
        for name in names:
            yield from (one for one in self._listed.get(name, ()) if one.sound)


def _read(place: str, listed: Any) -> _Listed:  # noqa: ANN401  as JSON has it
    """One element of a listing: bare, with times, or in a map beside its value."""
    key, value = listed if isinstance(listed, list) else (listed, None)
    timed = key.get("elem", key) if isinstance(key, dict) else {"val": key}
    remaining, name = float(timed.get("expires", math.inf)), _name(timed.get("comment"))
    fields = _fields(timed.get("val", timed))
    if place.startswith(ruleset.WIDE_SET):
        fields = (_network(fields[0]), *fields[1:])
    return _Listed(place, fields, () if value is None else _fields(value), remaining, name)


def _name(comment: object) -> str | None:
    """The name that a comment says; root may comment an element in any words."""
    with suppress(WireError):
        return check_name(comment) if isinstance(comment, str) else None
    return None


def _fields(listed: Any) -> tuple[Any, ...]:  # noqa: ANN401  as JSON has it
    return tuple(listed["concat"]) if isinstance(listed, dict) else (listed,)


def _network(listed: Any) -> Any:  # noqa: ANN401  as JSON has it
    """A listed network as it is written; root may put any range into the set."""
    prefix = listed.get("prefix") if isinstance(listed, dict) else None
    return listed if prefix is None else f"{prefix['addr']}/{prefix['len']}"


def _is_around(listed: object, source: IPAddress) -> bool:
    """Whether a listed network has an address."""
    return isinstance(listed, str) and source in ipaddress.ip_network(listed)


def _at(name: str) -> int:
    """Where the source stands in the keys of a set."""
    return 1 if name.startswith("open_os") else 0


def _written(fields: tuple[Any, ...]) -> str:
    """The fields of a key as a command needs them; the number of an operating system in quotes."""
    return " . ".join(f'"{one}"' if _CLASS.fullmatch(str(one)) else str(one) for one in fields)


def _order(grant: LiveGrant) -> tuple[Any, ...]:
    service = (grant.service.protocol, grant.service.port) if grant.service else (0, 0)
    return grant.source.version, grant.source, service, grant.nat is not None, str(grant.destination), grant.os or ""
