"""The helper's own limits, from its own reading of access.conf: it opens only grants that some stanza allows."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from doorward import policy
from doorward.record.words import words
from doorward.values import NO_PERMISSIONS, LiveGrant, Permissions, Service
from doorward.wire.doorward import SKEW_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection

    from doorward.config.stanza import Stanza
    from doorward.denials import Denial
    from doorward.values import Execution, Grant, IPAddress, PublicKey

MARK_BYTES: Final = 16
LOOPBACK: Final = {4: ipaddress.ip_address("127.0.0.1"), 6: ipaddress.ip_address("::1")}
_Place = tuple[Service | None, str | None, "IPAddress | None", bool, "int | None"]  # LiveGrant.place

_Member = tuple["Stanza", "str | None"]  # a stanza, and the name that its grants to one client have

LIVE_MAX: Final = 128  # live services one source may have; a stanza's clients open a handful
FORGET_FROM: Final = 1024  # sources; up to here expired entries are kept
_ON_ITS_WAY: Final = 30  # seconds a request may wait between the processes
RATE_MAX: Final = 200  # grants in one second; twice that of ten hosts with ten forks behind one gateway


class Limits:
    """The stanzas as the helper read them; secret keys are not used."""

    def __init__(self, stanzas: tuple[Stanza, ...], permissions: Permissions = NO_PERMISSIONS) -> None:
        """Sort the stanzas by the clients that they name, so that ten thousand of them cost no more than ten."""
        self.permissions = permissions
        self.clients = sum(len(stanza.clients) for stanza in stanzas)
        self._of: dict[PublicKey | None, list[_Member]] = {}
        for stanza in stanzas:
            if not stanza.clients:
                self._of.setdefault(None, []).append((stanza, stanza.name))
            for client in stanza.clients:
                self._of.setdefault(client.key, []).append((stanza, client.name or stanza.name))

    @property
    def keys(self) -> frozenset[PublicKey]:
        """The public keys of all clients."""
        return frozenset(key for key in self._of if key is not None)

    def names_of(self, keys: Collection[PublicKey]) -> frozenset[str]:
        """The names under which these clients have grants."""
        found = (name for key in keys for _, name in self._of.get(key, ()))
        return frozenset(name for name in found if name is not None)

    def refuses(self, grant: Grant, now: float) -> str | None:
        """Why no stanza allows a grant at `now` (Unix seconds), or None where one does."""
        members = self._of.get(grant.key, ())
        reasons = [_refusal(stanza, name, self.permissions, grant, now) for stanza, name in members]
        why = ", ".join(dict.fromkeys(map(str, reasons))) or "unknown key"
        return None if None in reasons else f"no stanza allows it: {why}"


def _refusal(stanza: Stanza, name: str | None, permissions: Permissions, grant: Grant, now: float) -> str | None:
    if stanza.expires is not None and now >= stanza.expires:
        return "expired"
    if stanza.cycle is not None:
        return "commands instead of the packet filter"
    if grant.name != name:
        return f"name {grant.name}"
    if not _lets_in(stanza, grant):
        return f"source {grant.whence}"
    if grant.seconds > max(stanza.fw_access_timeout, stanza.max_fw_timeout):
        return f"window {grant.seconds}"
    return (
        _refused_conditions(stanza, permissions, grant)
        or _words(policy.refused_service(stanza, grant.services))
        or _refused_nat(stanza, permissions, grant)
    )


def _lets_in(stanza: Stanza, grant: Grant) -> bool:
    """Whether a stanza lets in a grant's address, or its network."""
    if grant.prefix is not None and policy.refused_prefix(stanza, grant.source, grant.prefix) is not None:
        return False
    return policy.lies_in(grant.source, grant.prefix, stanza)


def _refused_conditions(stanza: Stanza, permissions: Permissions, grant: Grant) -> str | None:
    """Why operating system, destination or NAT of a grant are refused, or None."""
    if grant.os != stanza.require_os or (grant.destination is not None) != permissions.destination_rule:
        return "another system or destination"
    if grant.destination is not None and grant.destination.packed not in stanza.destination:
        return f"destination {grant.destination}"
    return "NAT of several services" if grant.nat is not None and len(grant.services) > 1 else None


def mark(stanza: Stanza) -> bytes:
    """A digest of a stanza's commands, by which two processes compare their reading of the same stanza."""
    read = (stanza.number, stanza.path, stanza.line, stanza.commands, stanza.cycle, stanza.named)
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
    age = max(max_age or 0, SKEW_SECONDS) if stanza.clients else max_age
    if age is not None and abs(now - execution.made) > age + _ON_ITS_WAY:
        return "made too long ago, or not yet"
    return _refused_cycle(stanza, execution) if execution.command is None else _refused_command(stanza, execution)


def _refused_command(stanza: Stanza, execution: Execution) -> str | None:
    if execution.named:
        known = policy.command_of(stanza, execution.command or "") is not None
        return None if known else "no command of this name"
    return None if stanza.commands is not None else "commands are not enabled"


def _refused_cycle(stanza: Stanza, execution: Execution) -> str | None:
    if stanza.cycle is None:
        return "no command cycle"
    longest = max(stanza.max_fw_timeout, stanza.fw_access_timeout, stanza.cycle.seconds or 0)
    if execution.seconds > longest:
        return f"window {execution.seconds}"
    if execution.service is None:
        return None if stanza.sequences and not stanza.open_ports else "no service"
    return _words(policy.refused_service(stanza, [execution.service]))


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


_FOUND: Final = "found"  # a grant that was open when this process started: of whom, nobody knows but by its name
_Holder = tuple[float, LiveGrant]  # end, grant


@dataclass(slots=True)
class _Span:
    """One service of one source: since when it is open, who knocked for it last, and what each of them was granted."""

    begun: float
    last: PublicKey | str | None
    holders: dict[PublicKey | str | None, _Holder] = field(default_factory=dict)

    @property
    def end(self) -> float:
        return self.holders[self.last][0]

    @property
    def live(self) -> LiveGrant:
        return self.holders[self.last][1]


class Ledger:
    """The live grants that the helper opened: limits them, and lists them when the table must be made again.

    Times in seconds of a clock that never steps (time.monotonic).
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._spans: dict[IPAddress, dict[_Place, _Span]] = {}
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
        live = {place for place, span in spans.items() if span.end > now}
        if len(live.union(one.place for one in LiveGrant.of(grant))) > LIVE_MAX:
            return f"more than {LIVE_MAX} live services for {grant.source}"
        return None

    def record(self, grant: Grant, now: float) -> None:
        """Record a grant that was opened at `now`."""
        self._in_second = self._in_second + 1 if self._second == int(now) else 1
        self._second = int(now)
        self._forget(now)
        for live in LiveGrant.of(grant):
            self._keep(live, now, grant.key)

    def adopt(self, live: LiveGrant, now: float) -> None:
        """Record a live grant of an earlier helper, of which only the name is known, for its remaining time.

        It does not count towards the grants of this second.
        """
        self._keep(live, now, _FOUND)

    def prolong(self, live: LiveGrant, now: float) -> bool:
        """Record that a grant lives on for its remaining time, if it is still live at `now`; return whether it is."""
        span = self._spans.get(live.source, {}).get(live.place)
        if span is None or span.end <= now:
            return False
        span.holders[span.last] = (now + live.remaining, live)
        return True

    def _keep(self, live: LiveGrant, now: float, whose: PublicKey | str | None) -> None:
        spans = self._spans.setdefault(live.source, {})
        held = spans.get(live.place)
        if held is None or held.live.nat != live.nat:  # a knock for another target takes the place of the one before
            held = spans[live.place] = _Span(now, whose)
        held.begun, held.last = now, whose
        held.holders[whose] = (now + live.remaining, live)

    def revoke(self, keys: Collection[PublicKey], names: Collection[str], now: float) -> tuple[LiveGrant, ...]:
        """Forget the grants of clients and return those to be closed.

        `names` are theirs, for grants of which only the name is known. A service that another client has knocked for
        from the same source stays among live() for that client's time.
        """
        self.live(now)
        closed: list[LiveGrant] = []
        for spans in self._spans.values():
            for place, span in list(spans.items()):
                gone = [one for one, (_, live) in span.holders.items() if _is_of(one, live, keys, names)]
                if span.last in gone:
                    closed.append(span.live)
                for one in gone:
                    del span.holders[one]
                others = {one: end for one, (end, _) in span.holders.items() if end > now}
                if not others:
                    del spans[place]
                elif span.last not in span.holders:
                    span.last = max(others, key=lambda one: others[one])
        return tuple(closed)

    def withdraw(self, source: IPAddress | None, moment: float) -> None:
        """Forget grants of `source`, or with None all, up to `moment`: they were closed manually."""
        for address, spans in self._spans.items():
            everything = source is None or address == source
            for place, span in list(spans.items()):
                if span.begun <= moment and (everything or _has(span.live, source)):
                    del spans[place]

    def _forget(self, now: float) -> None:
        """Forget expired grants, when the number of sources has doubled since the last time."""
        if len(self._spans) > self._sources_max:
            self.live(now)
            self._sources_max = max(FORGET_FROM, 2 * len(self._spans))

    def count(self, now: float) -> Counter[str | None]:
        """How many services are open at `now`, by the names that they were granted under."""
        kept = (one for spans in self._spans.values() for one in spans.values())
        return Counter(span.live.name for span in kept if span.end > now)

    def live(self, now: float) -> list[LiveGrant]:
        """The live grants at `now` with their remaining time; expired ones are forgotten."""
        for source, spans in list(self._spans.items()):
            for place in [place for place, span in spans.items() if span.end <= now]:
                del spans[place]
            if not spans:
                del self._spans[source]
        kept = (one for spans in self._spans.values() for one in spans.values())
        return [replace(span.live, remaining=span.end - now) for span in kept]


def _has(live: LiveGrant, source: IPAddress | None) -> bool:
    """Whether a network that is let in has this address."""
    return live.prefix is not None and source in live.network


def _is_of(whose: PublicKey | str | None, live: LiveGrant, keys: Collection[PublicKey], names: Collection[str]) -> bool:
    """Whether a grant is of one of these clients, as far as is known."""
    return live.name in names if whose == _FOUND else whose in keys
