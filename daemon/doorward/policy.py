"""The decision: facts to a grant or a denial. Pure; an ordered table of small predicates.

The order is fwknopd's (server/incoming_spa.c), so that its logs and ours tell the same story.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.values import Grant, IPAddress, Reason, Service
from doorward.wire.fwknop import Access, Message, MessageType, parse_access

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.config.stanza import Stanza

CLOCK_SECONDS: Final = 30 * 86400  # nobody's packet is a month on its way; a host without a battery is years off
_SERVED: Final = frozenset({MessageType.ACCESS, MessageType.ACCESS_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision rests on. `now` in Unix seconds, `max_age` in seconds or None where ageing is off."""

    stanza: Stanza
    message: Message
    origin: IPAddress
    now: float
    max_age: int | None


@dataclass(frozen=True, slots=True)
class Denial:
    """Why not."""

    reason: Reason
    detail: str = ""


def decide(facts: Facts) -> Grant | Denial:
    """Return what one stanza makes of one authentic message."""
    for check in CHECKS:
        denial = check(facts)
        if denial is not None:
            return denial
    access = parse_access(facts.message.text)
    return Grant(access.source or facts.origin, _unique(access.services), window(facts.stanza, facts.message))


def window(stanza: Stanza, message: Message) -> int:
    """Return the seconds a grant lasts: the client's wish up to MAX_FW_TIMEOUT, or else FW_ACCESS_TIMEOUT."""
    if message.timeout:
        return min(message.timeout, stanza.max_fw_timeout)
    return stanza.fw_access_timeout


def _unique(services: tuple[Service, ...]) -> tuple[Service, ...]:
    return tuple(dict.fromkeys(services))


def _age(facts: Facts) -> Denial | None:
    if facts.max_age is None:
        return None
    age = facts.now - facts.message.time
    if abs(age) > max(CLOCK_SECONDS, facts.max_age):
        return Denial(Reason.CLOCK, f"{age / 86400:+.0f} days old by this host's clock: is it right?")
    if age > facts.max_age:
        return Denial(Reason.STALE, f"made {age:.0f} s ago, more than {facts.max_age}")
    if age < -facts.max_age:
        return Denial(Reason.FUTURE, f"made {-age:.0f} s in the future, more than {facts.max_age}")
    return None


def _kind(facts: Facts) -> Denial | None:
    if facts.message.type in _SERVED:
        return None
    return Denial(Reason.UNSUPPORTED, f"message type {int(facts.message.type)} is not served here")


def _source(facts: Facts) -> Denial | None:
    """Deny a source that nobody named, or that the stanza does not speak of.

    fwknopd tests SOURCE against the packet's origin only; then whoever may knock could let in the whole world.
    """
    source = _access(facts).source
    if source is None and facts.stanza.require_source_address:
        return Denial(Reason.SOURCE_REQUIRED, "0.0.0.0 where REQUIRE_SOURCE_ADDRESS wants an address")
    if source is not None and source.packed not in facts.stanza.source:
        return Denial(Reason.SOURCE, f"{source} is not in SOURCE")
    return None


def _username(facts: Facts) -> Denial | None:
    required = facts.stanza.require_username
    if required is None or facts.message.user == required:
        return None
    return Denial(Reason.USERNAME, f"user {facts.message.user!r} is not {required!r}")


def _services(facts: Facts) -> Denial | None:
    """Deny unless every requested service is allowed on its own; RESTRICT_PORTS wins over OPEN_PORTS."""
    for service in _access(facts).services:
        if service in facts.stanza.restrict_ports:
            return Denial(Reason.SERVICES, f"{service} is in RESTRICT_PORTS")
        if facts.stanza.open_ports is not None and service not in facts.stanza.open_ports:
            return Denial(Reason.SERVICES, f"{service} is not in OPEN_PORTS")
    return None


def _access(facts: Facts) -> Access:
    return parse_access(facts.message.text)


CHECKS: Final[tuple[Callable[[Facts], Denial | None], ...]] = (_age, _kind, _source, _username, _services)
