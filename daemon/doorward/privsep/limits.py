"""What the helper will open at most, from its own reading of access.conf: no more than what some stanza allows."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from doorward import policy
from doorward.policy import Abilities
from doorward.privsep.messages import MARK_BYTES
from doorward.values import LiveGrant, Service

if TYPE_CHECKING:
    from doorward.config.stanza import Stanza
    from doorward.values import Execution, Grant, IPAddress

NO_ABILITIES: Final = Abilities()
LOOPBACK: Final = {4: ipaddress.ip_address("127.0.0.1"), 6: ipaddress.ip_address("::1")}
_Place = tuple[Service | None, str | None, "IPAddress | None", bool]  # LiveGrant.place

LIVE_MAX: Final = 128  # live services one source may have; a stanza's clients open a handful
FORGET_FROM: Final = 1024  # sources; fewer are kept although nothing of theirs is open any more
_ON_ITS_WAY: Final = 30  # seconds an order may wait between the processes
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
    return (
        _refused_conditions(stanza, abilities, grant)
        or policy.refused_service(stanza, grant.services)
        or _refused_nat(stanza, abilities, grant)
    )


def _refused_conditions(stanza: Stanza, abilities: Abilities, grant: Grant) -> str | None:
    """Return what a grant lacks or has too much, or None."""
    if grant.os != stanza.require_os or (grant.destination is not None) != abilities.destination_rule:
        return "another system or destination"
    if grant.destination is not None and grant.destination.packed not in stanza.destination:
        return f"destination {grant.destination}"
    return "NAT of several services" if grant.nat is not None and len(grant.services) > 1 else None


def mark(stanza: Stanza) -> bytes:
    """Return a name for what a stanza lets run: two processes compare what they read under the same number."""
    read = (stanza.number, stanza.path, stanza.line, stanza.commands, stanza.cycle)
    return hashlib.sha256(repr(read).encode("utf-8", "backslashreplace")).digest()[:MARK_BYTES]


def refused_execution(stanza: Stanza, execution: Execution, now: float, max_age: int | None) -> str | None:
    """Return why a stanza does not have an execution done at `now` (Unix seconds), or None where it does.

    It asks again what policy asked: whoever sends executions is not trusted to have done so.
    """
    if stanza.expires is not None and now >= stanza.expires:
        return "expired"
    if execution.source.packed not in stanza.source or execution.origin.packed not in stanza.source:
        return f"source {execution.source}"
    if execution.destination.packed not in stanza.destination:
        return f"destination {execution.destination}"
    if max_age is not None and abs(now - execution.made) > max_age + _ON_ITS_WAY:
        return "made too long ago, or not yet"
    if execution.command is not None:
        return None if stanza.commands is not None else "commands are not enabled"
    return _refused_cycle(stanza, execution)


def _refused_cycle(stanza: Stanza, execution: Execution) -> str | None:
    if stanza.cycle is None:
        return "no command cycle"
    longest = max(stanza.max_fw_timeout, stanza.fw_access_timeout, stanza.cycle.seconds or 0)
    if execution.seconds > longest:
        return f"window {execution.seconds}"
    return None if execution.service is None else policy.refused_service(stanza, [execution.service])


def _refused_nat(stanza: Stanza, abilities: Abilities, grant: Grant) -> str | None:
    """Return why a stanza does not lead connections where a grant does, or None."""
    force = stanza.forwarding.force
    if force is not None:
        return None if grant.nat == policy.forwarded(stanza, abilities, *force) else "not the target of FORCE_NAT"
    nat, protocol = grant.nat, grant.services[0].protocol
    if nat is None:
        return "only forwarding" if stanza.forwarding.only else None
    if nat.target is None:
        return _refused_ghost(stanza, abilities, grant.source, Service(protocol, nat.port or 0))
    if not abilities.forwarding or stanza.forwarding.only is False:
        return "forwarding"
    if nat != policy.forwarded(stanza, abilities, nat.target, nat.port or 1):
        return "another way of NAT"
    return policy.refused_target(stanza, nat.target, nat.port, protocol)


def _refused_ghost(stanza: Stanza, abilities: Abilities, source: IPAddress, inner: Service) -> str | None:
    """Return why a stanza does not lead to a service of this host: it was asked for as such, or as forwarding to it."""
    if not (abilities.local_nat or abilities.forwarding):
        return "local NAT"
    refusal = policy.refused_service(stanza, [inner])
    if refusal is None or not abilities.forwarding:
        return refusal
    return policy.refused_target(stanza, LOOPBACK[source.version], inner.port, inner.protocol)


class Ledger:
    """What is open, as the helper opened it: bounds it, and knows what to open again when the table has gone.

    Times in seconds of a clock that never steps (time.monotonic).
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._spans: dict[IPAddress, dict[_Place, tuple[float, float, LiveGrant]]] = {}  # from when, until when, what
        self._second = 0
        self._in_second = 0
        self._sources_max = FORGET_FROM

    def refuses(self, grant: Grant, now: float) -> str | None:
        """Return why a grant would be too much at `now`, or None."""
        if self._second == int(now) and self._in_second >= RATE_MAX:
            return f"more than {RATE_MAX} grants in a second"
        spans = self._spans.get(grant.source, {})
        if len(spans) + len(grant.services) <= LIVE_MAX:
            return None
        live = {place for place, (_, end, _) in spans.items() if end > now}
        if len(live.union(one.place for one in LiveGrant.of(grant))) > LIVE_MAX:
            return f"more than {LIVE_MAX} live services for {grant.source}"
        return None

    def record(self, grant: Grant, now: float) -> None:
        """Keep a grant that was opened at `now`."""
        self._in_second = self._in_second + 1 if self._second == int(now) else 1
        self._second = int(now)
        self._forget(now)
        for live in LiveGrant.of(grant):
            self.adopt(live, now)

    def adopt(self, live: LiveGrant, now: float) -> None:
        """Keep what is open at `now` for as long as remains; it is no grant of this second, however much there is."""
        self._spans.setdefault(live.source, {})[live.place] = (now, now + live.remaining, live)

    def withdraw(self, source: IPAddress | None, moment: float) -> None:
        """Forget what `source`, or with None everybody, was granted up to `moment`: it was closed by hand."""
        for address in [source] if source is not None else list(self._spans):
            spans = self._spans.get(address, {})
            for place in [place for place, (begun, *_) in spans.items() if begun <= moment]:
                del spans[place]

    def _forget(self, now: float) -> None:
        """Forget what is over, each time that twice as many sources are kept as were open the last time."""
        if len(self._spans) > self._sources_max:
            self.live(now)
            self._sources_max = max(FORGET_FROM, 2 * len(self._spans))

    def live(self, now: float) -> list[LiveGrant]:
        """Return what is open at `now` with what remains of it; what is over is forgotten."""
        for source, spans in list(self._spans.items()):
            for place in [place for place, (_, end, _) in spans.items() if end <= now]:
                del spans[place]
            if not spans:
                del self._spans[source]
        kept = (one for spans in self._spans.values() for one in spans.values())
        return [replace(live, remaining=end - now) for _, end, live in kept]
