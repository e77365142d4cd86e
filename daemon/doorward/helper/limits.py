"""The helper's own limits, from its own reading of access.conf: it opens only grants that some stanza allows."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from doorward import policy
from doorward.record.words import words
from doorward.values import NO_PERMISSIONS, LiveGrant, Permissions, Service

if TYPE_CHECKING:
    from doorward.config.stanza import Stanza
    from doorward.denials import Denial
    from doorward.values import Execution, Grant, IPAddress

MARK_BYTES: Final = 16
LOOPBACK: Final = {4: ipaddress.ip_address("127.0.0.1"), 6: ipaddress.ip_address("::1")}
_Place = tuple[Service | None, str | None, "IPAddress | None", bool]  # LiveGrant.place

LIVE_MAX: Final = 128  # live services one source may have; a stanza's clients open a handful
FORGET_FROM: Final = 1024  # sources; up to here expired entries are kept
_ON_ITS_WAY: Final = 30  # seconds a request may wait between the processes
RATE_MAX: Final = 200  # grants in one second; twice that of ten hosts with ten forks behind one gateway


@dataclass(frozen=True, slots=True)
class Limits:
    """The stanzas as the helper read them; keys are not used."""

    stanzas: tuple[Stanza, ...]
    permissions: Permissions = NO_PERMISSIONS

    def refuses(self, grant: Grant, now: float) -> str | None:
        """Why no stanza allows a grant at `now` (Unix seconds), or None where one does."""
        reasons = [_refusal(stanza, self.permissions, grant, now) for stanza in self.stanzas]
        return None if None in reasons else f"no stanza allows it: {', '.join(dict.fromkeys(map(str, reasons)))}"


def _refusal(stanza: Stanza, permissions: Permissions, grant: Grant, now: float) -> str | None:
    if stanza.expires is not None and now >= stanza.expires:
        return "expired"
    if stanza.cycle is not None:
        return "commands instead of the packet filter"
    if not stanza.grants_as(grant.name):
        return f"name {grant.name}"
    if grant.source.packed not in stanza.source:
        return f"source {grant.source}"
    if grant.seconds > max(stanza.fw_access_timeout, stanza.max_fw_timeout):
        return f"window {grant.seconds}"
    return (
        _refused_conditions(stanza, permissions, grant)
        or _words(policy.refused_service(stanza, grant.services))
        or _refused_nat(stanza, permissions, grant)
    )


def _refused_conditions(stanza: Stanza, permissions: Permissions, grant: Grant) -> str | None:
    """Why operating system, destination or NAT of a grant are refused, or None."""
    if grant.os != stanza.require_os or (grant.destination is not None) != permissions.destination_rule:
        return "another system or destination"
    if grant.destination is not None and grant.destination.packed not in stanza.destination:
        return f"destination {grant.destination}"
    return "NAT of several services" if grant.nat is not None and len(grant.services) > 1 else None


def mark(stanza: Stanza) -> bytes:
    """A digest of a stanza's commands, by which two processes compare their reading of the same stanza."""
    read = (stanza.number, stanza.path, stanza.line, stanza.commands, stanza.cycle)
    return hashlib.sha256(repr(read).encode("utf-8", "backslashreplace")).digest()[:MARK_BYTES]


def refused_execution(stanza: Stanza, execution: Execution, now: float, max_age: int | None) -> str | None:
    """Why a stanza does not allow an execution at `now` (Unix seconds), or None where it does.

    It repeats the checks of policy: the sender of executions is not trusted.
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
    return None if execution.service is None else _words(policy.refused_service(stanza, [execution.service]))


def _refused_nat(stanza: Stanza, permissions: Permissions, grant: Grant) -> str | None:  # noqa: PLR0911  one a kind
    """Why a stanza does not allow the forwarding of a grant, or None."""
    force = stanza.forwarding.force
    if force is not None:
        return None if grant.nat == policy.forwarded(stanza, permissions, *force) else "not the target of FORCE_NAT"
    nat, protocol = grant.nat, grant.services[0].protocol
    if nat is None:
        return "only forwarding" if stanza.forwarding.only or stanza.forwarding.everything else None
    if nat.target is None:
        return _refused_ghost(stanza, permissions, grant.source, Service(protocol, nat.port or 0))
    if not permissions.forwarding or stanza.forwarding.only is False:
        return "forwarding"
    if nat.everywhere:
        return _refused_everywhere(stanza, permissions, grant)
    if nat != policy.forwarded(stanza, permissions, nat.target, nat.port or 1):
        return "another way of NAT"
    return _words(policy.refused_target(stanza, nat.target, nat.port, protocol))


def _refused_everywhere(stanza: Stanza, permissions: Permissions, grant: Grant) -> str | None:
    """Why a stanza does not allow forwarding to every address, or None."""
    allowed = stanza.forwarding.everywhere and grant.nat == policy.everywhere(stanza, permissions, grant.source)
    return None if allowed else "forwarding to everywhere"


def _refused_ghost(stanza: Stanza, permissions: Permissions, source: IPAddress, inner: Service) -> str | None:
    """Why a stanza does not allow a ghost service, as local NAT or as forwarding to this host, or None."""
    if not (permissions.local_nat or permissions.forwarding):
        return "local NAT"
    refusal = policy.refused_service(stanza, [inner])
    if refusal is None or not permissions.forwarding:
        return _words(refusal)
    return _words(policy.refused_target(stanza, LOOPBACK[source.version], inner.port, inner.protocol))


def _words(denial: Denial | None) -> str | None:
    return None if denial is None else words(denial)


class Ledger:
    """The live grants that the helper opened: limits them, and lists them when the table must be made again.

    Times in seconds of a clock that never steps (time.monotonic).
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._spans: dict[IPAddress, dict[_Place, tuple[float, float, LiveGrant]]] = {}  # begin, end, grant
        self._second = 0
        self._in_second = 0
        self._sources_max = FORGET_FROM

    def refuses(self, grant: Grant, now: float) -> str | None:
        """Why a grant exceeds the limits at `now`, or None."""
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
        """Record a grant that was opened at `now`."""
        self._in_second = self._in_second + 1 if self._second == int(now) else 1
        self._second = int(now)
        self._forget(now)
        for live in LiveGrant.of(grant):
            self.adopt(live, now)

    def adopt(self, live: LiveGrant, now: float) -> None:
        """Record a live grant for its remaining time; it does not count towards the grants of this second."""
        self._spans.setdefault(live.source, {})[live.place] = (now, now + live.remaining, live)

    def withdraw(self, source: IPAddress | None, moment: float) -> None:
        """Forget grants of `source`, or with None all, up to `moment`: they were closed manually."""
        for address in [source] if source is not None else list(self._spans):
            spans = self._spans.get(address, {})
            for place in [place for place, (begun, *_) in spans.items() if begun <= moment]:
                del spans[place]

    def _forget(self, now: float) -> None:
        """Forget expired grants, when the number of sources has doubled since the last time."""
        if len(self._spans) > self._sources_max:
            self.live(now)
            self._sources_max = max(FORGET_FROM, 2 * len(self._spans))

    def live(self, now: float) -> list[LiveGrant]:
        """The live grants at `now` with their remaining time; expired ones are forgotten."""
        for source, spans in list(self._spans.items()):
            for place in [place for place, (_, end, _) in spans.items() if end <= now]:
                del spans[place]
            if not spans:
                del self._spans[source]
        kept = (one for spans in self._spans.values() for one in spans.values())
        return [replace(live, remaining=end - now) for _, end, live in kept]
