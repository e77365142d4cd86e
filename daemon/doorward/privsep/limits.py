"""What the helper will open at most, from its own reading of access.conf: no more than what some stanza allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward import policy
from doorward.policy import Abilities
from doorward.values import Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doorward.config.stanza import Stanza
    from doorward.values import Grant, IPAddress

NO_ABILITIES: Final = Abilities()

LIVE_MAX: Final = 128  # live services one source may have; a stanza's clients open a handful
FORGET_FROM: Final = 1024  # sources; fewer are kept although nothing of theirs is open any more
RATE_MAX: Final = 200  # grants in one second; ten forks on ten hosts behind one gateway make half of it


@dataclass(frozen=True, slots=True)
class Limits:
    """The stanzas as the helper read them; no key is used."""

    stanzas: tuple[Stanza, ...]
    abilities: Abilities = NO_ABILITIES

    def refuses(self, grant: Grant, now: float) -> str | None:
        """Return why no stanza allows a grant at `now` (Unix seconds), or None where one does."""
        reasons = [_refusal(stanza, self.abilities, grant, now) for stanza in self.stanzas]
        return None if None in reasons else f"no stanza allows it: {', '.join(dict.fromkeys(map(str, reasons)))}"


def _refusal(stanza: Stanza, abilities: Abilities, grant: Grant, now: float) -> str | None:
    if stanza.expires is not None and now >= stanza.expires:
        return "expired"
    if stanza.cycle is not None:
        return "commands in the packet filter's place"
    if grant.source.packed not in stanza.source:
        return f"source {grant.source}"
    if grant.seconds > max(stanza.fw_access_timeout, stanza.max_fw_timeout):
        return f"window {grant.seconds}"
    if grant.os != stanza.require_os or (grant.destination is not None) != abilities.destination_rule:
        return "another system or destination"
    return policy.refused_service(stanza, grant.services) or _refused_nat(stanza, abilities, grant)


def _refused_nat(stanza: Stanza, abilities: Abilities, grant: Grant) -> str | None:
    """Return why a stanza does not lead connections where a grant does, or None."""
    force = stanza.forwarding.force
    if force is not None:
        return None if grant.nat == policy.forwarded(stanza, abilities, *force) else "not the target of FORCE_NAT"
    nat, protocol = grant.nat, grant.services[0].protocol
    if nat is None:
        return None
    if nat.target is None:
        allowed = abilities.local_nat or abilities.forwarding
        return policy.refused_service(stanza, [Service(protocol, nat.port or 0)]) if allowed else "local NAT"
    if not abilities.forwarding:
        return "forwarding"
    if nat != policy.forwarded(stanza, abilities, nat.target, nat.port or 1):
        return "another way of NAT"
    return None if nat.port is None else policy.refused_target(stanza, nat.target, nat.port, protocol)


class Ledger:
    """What is open, as the helper opened it: bounds it, and knows what to open again when the table has gone.

    Times in seconds of a clock that never steps (time.monotonic).
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._spans: dict[IPAddress, dict[Service, tuple[float, float]]] = {}  # from when, until when
        self._second = 0
        self._in_second = 0
        self._sources_max = FORGET_FROM

    def refuses(self, grant: Grant, now: float) -> str | None:
        """Return why a grant would be too much at `now`, or None."""
        if self._second == int(now) and self._in_second >= RATE_MAX:
            return f"more than {RATE_MAX} grants in a second"
        live = {service for service, (_, end) in self._spans.get(grant.source, {}).items() if end > now}
        if len(live | set(grant.services)) > LIVE_MAX:
            return f"more than {LIVE_MAX} live services for {grant.source}"
        return None

    def record(self, grant: Grant, now: float) -> None:
        """Keep a grant that was opened at `now`."""
        self._in_second = self._in_second + 1 if self._second == int(now) else 1
        self._second = int(now)
        self._forget(now)
        self.adopt(grant.source, grant.services, now, now + grant.seconds)

    def adopt(self, source: IPAddress, services: Iterable[Service], now: float, end: float) -> None:
        """Keep what is open from `now` until `end`; it is no grant of this second, however much there is of it."""
        self._spans.setdefault(source, {}).update(dict.fromkeys(services, (now, end)))

    def withdraw(self, source: IPAddress | None, moment: float) -> None:
        """Forget what `source`, or with None everybody, was granted up to `moment`: it was closed by hand."""
        for address in [source] if source is not None else list(self._spans):
            spans = self._spans.get(address, {})
            for service in [service for service, (begun, _) in spans.items() if begun <= moment]:
                del spans[service]

    def _forget(self, now: float) -> None:
        """Forget what is over, each time that twice as many sources are kept as were open the last time."""
        if len(self._spans) > self._sources_max:
            self.live(now)
            self._sources_max = max(FORGET_FROM, 2 * len(self._spans))

    def live(self, now: float) -> list[tuple[IPAddress, Service, float]]:
        """Return source, service and remaining seconds of what is open at `now`; what is over is forgotten."""
        for source, spans in list(self._spans.items()):
            for service in [service for service, (_, end) in spans.items() if end <= now]:
                del spans[service]
            if not spans:
                del self._spans[source]
        return [
            (source, service, end - now) for source, spans in self._spans.items() for service, (_, end) in spans.items()
        ]
