"""What each packet filter can do for a grant, and what a configuration asks that it cannot. Pure.

It is asked when the configuration is read: what is missing is refused then, with the stanza's line, and never left out
when somebody knocks.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.errors import Problem
from doorward.values import FirewallBackend, IPAddress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from doorward.config.stanza import Stanza, Target

WAYS_MAX: Final = 256  # every way costs rules that each new connection may have to pass
SECONDS_MAX: Final = (1 << 31) // 1000  # an ipset keeps nothing for longer
_FULL: Final = {4: (1 << 32) - 1, 6: (1 << 128) - 1}  # the mask of one address
Way = tuple[IPAddress | None, int]  # where connections are led; None is this host


class Ability(enum.Enum):
    """One thing that a grant may ask for; the value says it in a table."""

    GRANTS = "one source to a service of this host, IPv4 and IPv6, closed by the kernel"
    DESTINATION = "only at the address that was knocked at (`ENABLE_DESTINATION_RULE`)"
    GHOST = "ghost services: a port of `OPEN_PORTS` through another port's number (`ENABLE_IPT_LOCAL_NAT`)"
    ANY_GHOST = "the same without `OPEN_PORTS`, to any port"
    FORCED = "to one inner host (`FORCE_NAT`)"
    LISTED = "to the inner host that the client names, out of exact addresses and ports in `NAT_TARGETS`"
    CHOSEN = "to any inner host that the client names, or out of networks or with any port in `NAT_TARGETS`"
    SOURCE = "under another source (`FORCE_SNAT`, `FORCE_MASQUERADE`, `ENABLE_IPT_SNAT`)"
    SOURCES = "under different sources to the same inner port"
    EVERYTHING = "every protocol and port to one inner host (`FORWARD_ALL`)"
    AS_IS = "through this host without rewriting (`DISABLE_DNAT`)"
    DESTINATION_NAT = "`ENABLE_DESTINATION_RULE` for connections that are led elsewhere"
    SYSTEMS = "only from one operating system (`REQUIRE_OS`)"
    LONG = f"windows beyond {SECONDS_MAX} s, 24 days"
    ESTABLISHED = "established connections live on without a rule of the host's own"
    CLOSED_HOST = "the host closed under a dead man's switch (`doorward firewall`, role `doorward.spa.firewall`)"


_PLAIN: Final = frozenset(
    {
        Ability.GRANTS, Ability.DESTINATION, Ability.GHOST, Ability.FORCED, Ability.LISTED, Ability.SOURCE,
        Ability.EVERYTHING, Ability.AS_IS,
    }
)  # fmt: skip  # a list of names reads better in lines of many
ABILITIES: Final[Mapping[FirewallBackend, frozenset[Ability]]] = {
    FirewallBackend.NFTABLES: frozenset(Ability),
    FirewallBackend.IPTABLES: _PLAIN,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the settings let packets ask for."""

    forwarding: bool = False
    local_nat: bool = False
    snat: bool = False
    destination: bool = False


def lacking(stanzas: Iterable[Stanza], asked: Asked, backend: FirewallBackend) -> list[Problem]:
    """Return a problem for each thing that a stanza asks of a packet filter and that it cannot do."""
    served = [stanza for stanza in stanzas if stanza.cycle is None]  # commands take the packet filter's place there
    able = ABILITIES[backend]
    problems = [
        Problem(stanza.path, stanza.line, f"FIREWALL_BACKEND {backend.value} cannot serve {words}")
        for stanza in served
        for ability, words in _needs(stanza, asked)
        if ability not in able
    ]
    if Ability.CHOSEN in able:
        return problems
    return problems + _crossing(served, asked)


def ways(stanza: Stanza, asked: Asked) -> frozenset[Way]:
    """Return every place that a stanza may lead to, as far as they can be counted."""
    if stanza.cycle is not None:
        return frozenset()
    if stanza.forwarding.force is not None:
        return frozenset([stanza.forwarding.force])
    found: set[Way] = set()
    if asked.forwarding:
        found |= {way for target in stanza.forwarding.targets or () for way in _exact(target)}
    if asked.local_nat:
        named = (stanza.open_ports or frozenset()) - stanza.restrict_ports
        found |= {(None, service.port) for service in named}
    return frozenset(found)


def _needs(stanza: Stanza, asked: Asked) -> Iterator[tuple[Ability, str]]:
    """Yield what a stanza asks for, each with the words for it and what to do."""
    force, forwarding = stanza.forwarding.force, stanza.forwarding
    longest = max(stanza.fw_access_timeout, stanza.max_fw_timeout)
    if stanza.require_os is not None:
        yield Ability.SYSTEMS, "REQUIRE_OS: leave it out, or use FIREWALL_BACKEND nftables"
    if longest > SECONDS_MAX:
        yield Ability.LONG, f"a window of {longest} s: at most {SECONDS_MAX} in FW_ACCESS_TIMEOUT and MAX_FW_TIMEOUT"
    if force is None and asked.local_nat and stanza.open_ports is None:
        yield Ability.ANY_GHOST, "ENABLE_IPT_LOCAL_NAT without OPEN_PORTS: name the ports that may be led to"
    if force is None and asked.forwarding and not _are_exact(forwarding.targets):
        what = "list single addresses with their ports in NAT_TARGETS, or set FORCE_NAT"
        yield Ability.CHOSEN, f"ENABLE_IPT_FORWARDING to whatever a packet names: {what}"
    if asked.destination and (force is not None or asked.forwarding or asked.local_nat):
        yield Ability.DESTINATION_NAT, "ENABLE_DESTINATION_RULE together with NAT: leave one of them out"


def _crossing(stanzas: Iterable[Stanza], asked: Asked) -> list[Problem]:
    """Return a problem for each stanza whose ways cannot stand beside those of stanzas before it."""
    problems: list[Problem] = []
    sources: dict[Way, tuple[object, ...]] = {}
    for stanza in stanzas:
        forwarding = stanza.forwarding
        kind = (forwarding.snat, forwarding.masquerade)
        theirs = ways(stanza, asked)
        if any(sources.get(way, kind) != kind for way in theirs if way[0] is not None):
            words = (
                "another FORCE_SNAT or FORCE_MASQUERADE than a stanza before has for the same target: use one for all"
            )
            problems.append(Problem(stanza.path, stanza.line, f"FIREWALL_BACKEND iptables cannot serve {words}"))
        sources |= dict.fromkeys(theirs, kind)
        if len(sources) > WAYS_MAX:
            words = f"more than {WAYS_MAX} places to lead to: have fewer OPEN_PORTS or NAT_TARGETS, or use nftables"
            problems.append(Problem(stanza.path, stanza.line, f"FIREWALL_BACKEND iptables cannot serve {words}"))
            break
    return problems


def _are_exact(targets: tuple[Target, ...] | None) -> bool:
    return targets is not None and all(
        target.port is not None
        and not target.networks.everywhere
        and all(mask == _FULL[4] for _, mask in target.networks.v4)
        and all(mask == _FULL[6] for _, mask in target.networks.v6)
        for target in targets
    )


def _exact(target: Target) -> Iterator[Way]:
    """Yield the addresses of a target, each with its port."""
    if target.port is not None and _are_exact((target,)):
        for address, _ in target.networks.v4:
            yield ipaddress.IPv4Address(address), target.port
        for address, _ in target.networks.v6:
            yield ipaddress.IPv6Address(address), target.port
        for named in target.addresses:
            yield named, target.port


def table() -> str:
    """Return the table of abilities for the documentation."""
    head = "| what a grant may ask for | " + " | ".join(backend.value for backend in FirewallBackend) + " |"
    lines = [head, "|---|" + "---|" * len(FirewallBackend)]
    for ability in Ability:
        said = ("yes" if ability in ABILITIES[backend] else "no" for backend in FirewallBackend)
        lines.append(f"| {ability.value} | {' | '.join(said)} |")
    return "\n".join(lines) + "\n"
