"""The decision: facts to a grant or a denial. Pure; an ordered table of small predicates.

The order is fwknopd's (server/incoming_spa.c), so that its logs and ours tell the same story.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.errors import WireError
from doorward.values import Execution, Grant, IPAddress, Nat, Protocol, Reason, Service, refuse_nobody
from doorward.wire.fwknop import Message, MessageType, parse_access, parse_command, parse_nat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doorward.config.stanza import Stanza, Target

_PLAIN: Final = frozenset({MessageType.ACCESS, MessageType.ACCESS_TIMEOUT})
CLOCK_SECONDS: Final = 30 * 86400  # nobody's packet is a month on its way; a host without a battery is years off
LOCAL_NAT: Final = frozenset({MessageType.LOCAL_NAT, MessageType.LOCAL_NAT_TIMEOUT})
FORWARD: Final = frozenset({MessageType.NAT, MessageType.NAT_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Abilities:
    """What doorwardd.conf lets stanzas do: lead connections elsewhere, give them another source."""

    forwarding: bool = False  # ENABLE_IPT_FORWARDING
    local_nat: bool = False  # ENABLE_IPT_LOCAL_NAT
    snat: bool = False  # ENABLE_IPT_SNAT
    snat_source: IPAddress | None = None  # SNAT_TRANSLATE_IP
    destination_rule: bool = False  # ENABLE_DESTINATION_RULE


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision rests on. `now` in Unix seconds, `max_age` in seconds or None where ageing is off.

    `forwarded` is whom a trusted proxy speaks for; it counts in the origin's place where the message names no source.
    """

    stanza: Stanza
    message: Message
    origin: IPAddress
    destination: IPAddress
    now: float
    max_age: int | None
    abilities: Abilities = Abilities()
    forwarded: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Denial:
    """Why not."""

    reason: Reason
    detail: str = ""


def decide(facts: Facts) -> Grant | Execution | Denial:
    """Return what one stanza makes of one authentic message."""
    for check in CHECKS:
        denial = check(facts)
        if denial is not None:
            return denial
    try:
        if facts.stanza.cycle is not None or facts.message.type is MessageType.COMMAND:
            return _execution(facts)
        return _grant(facts)
    except WireError as error:  # what no packet filter could express, such as NAT from one family to the other
        return Denial(Reason.TARGET, str(error))


def _grant(facts: Facts) -> Grant:
    access = parse_access(facts.message.text)
    services, nat = _unique(access.services), _nat(facts)
    return Grant(
        access.source or facts.forwarded or facts.origin,
        services if nat is None else services[:1],  # fwknopd too leads only the first elsewhere
        window(facts.stanza, facts.message),
        nat,
        facts.stanza.require_os,
        facts.destination if facts.abilities.destination_rule else None,
    )


def _execution(facts: Facts) -> Execution:
    stanza, message = facts.stanza, facts.message
    command = parse_command(message.text) if message.type is MessageType.COMMAND else None
    return Execution(
        stanza=stanza.number,
        source=_wanted_source(facts) or facts.forwarded or facts.origin,
        origin=facts.origin,
        destination=facts.destination,
        seconds=_cycle_window(facts),
        made=message.time,
        service=None if command else parse_access(message.text).services[0],
        client_timeout=message.timeout or 0,
        command=command.command if command else None,
    )


def _cycle_window(facts: Facts) -> int:
    """Return the seconds until the closing command: the client's wish up to MAX_FW_TIMEOUT, or CMD_CYCLE_TIMER."""
    cycle = facts.stanza.cycle
    if facts.message.timeout or cycle is None or cycle.seconds is None:
        return window(facts.stanza, facts.message)
    return cycle.seconds


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
    """Deny a kind of request that the stanza, or the daemon's settings, do not serve."""
    kind, stanza, abilities = facts.message.type, facts.stanza, facts.abilities
    if kind in _PLAIN and stanza.forwarding.only is not True:
        return None
    forced, only = stanza.forwarding.force is not None, stanza.forwarding.only
    nat, chosen = kind in FORWARD | LOCAL_NAT, not forced
    refused = {
        "commands are not enabled (ENABLE_CMD_EXEC)": kind is MessageType.COMMAND and stanza.commands is None,
        "the stanza does not forward (ENABLE_FORWARD_ACCESS)": kind in FORWARD and only is False,
        "the stanza only forwards (ENABLE_FORWARD_ACCESS)": bool(only) and chosen and not nat,
        "NAT and REQUIRE_OS do not go together": nat and stanza.require_os is not None,
        "NAT is not enabled (ENABLE_IPT_FORWARDING, ENABLE_IPT_LOCAL_NAT)": nat
        and chosen
        and not (abilities.forwarding or abilities.local_nat),
        "forwarding is not enabled (ENABLE_IPT_FORWARDING)": kind in FORWARD and chosen and not abilities.forwarding,
        "local NAT is not enabled (ENABLE_IPT_LOCAL_NAT)": kind in LOCAL_NAT and chosen and not abilities.local_nat,
    }
    return next((Denial(Reason.UNSUPPORTED, why) for why, so in refused.items() if so), None)


def _source(facts: Facts) -> Denial | None:
    """Deny a source that nobody named, or that the stanza does not speak of.

    fwknopd tests SOURCE against the packet's origin only; then whoever may knock could let in the whole world.
    """
    source = _wanted_source(facts)
    if source is None and facts.stanza.require_source_address:
        return Denial(Reason.SOURCE_REQUIRED, "0.0.0.0 where REQUIRE_SOURCE_ADDRESS wants an address")
    named = source or facts.forwarded  # the origin was found in SOURCE already
    if named is not None and named.packed not in facts.stanza.source:
        return Denial(Reason.SOURCE, f"{named} is not in SOURCE")
    return (None if named is None else _nobody(named)) or _nobody(facts.origin)


def _nobody(source: IPAddress) -> Denial | None:
    """Deny what no connection comes from: such packets were made up, and commands would get the address."""
    try:
        refuse_nobody(source)
    except WireError as error:
        return Denial(Reason.SOURCE, str(error))
    return None


def _username(facts: Facts) -> Denial | None:
    required = facts.stanza.require_username
    if required is None or facts.message.user == required:
        return None
    return Denial(Reason.USERNAME, f"user {facts.message.user!r} is not {required!r}")


def _services(facts: Facts) -> Denial | None:
    """Deny unless every requested service is allowed on its own; RESTRICT_PORTS wins over OPEN_PORTS."""
    if facts.message.type is MessageType.COMMAND:
        return None
    refusal = refused_service(facts.stanza, parse_access(facts.message.text).services)
    return None if refusal is None else Denial(Reason.SERVICES, refusal)


def refused_service(stanza: Stanza, services: Iterable[Service]) -> str | None:
    """Return why a stanza does not open one of `services`, or None where it opens all of them."""
    for service in services:
        if service in stanza.restrict_ports:
            return f"{service} is in RESTRICT_PORTS"
        if stanza.open_ports is not None and not stanza.any_ports and service not in stanza.open_ports:
            return f"{service} is not in OPEN_PORTS"
    return None


def _target(facts: Facts) -> Denial | None:
    """Deny a NAT target that the stanza does not allow."""
    if facts.message.nat_access is None or facts.stanza.forwarding.force is not None or facts.stanza.cycle is not None:
        return None
    wanted = parse_nat(facts.message.nat_access)
    protocol = parse_access(facts.message.text).services[0].protocol
    if facts.message.type in LOCAL_NAT:
        refusal = refused_service(facts.stanza, [Service(protocol, wanted.port)])
    else:
        target = target_address(facts.stanza, wanted.host)
        if target is None:
            refusal = f"{wanted.host} is no address, and no name in NAT_TARGETS"
        elif target.version != (_wanted_source(facts) or facts.forwarded or facts.origin).version:
            refusal = f"{target} is of another family than the source"
        else:
            port = None if facts.stanza.forwarding.everything else wanted.port
            refusal = refused_target(facts.stanza, target, port, protocol)
    return None if refusal is None else Denial(Reason.TARGET, refusal)


def refused_target(stanza: Stanza, target: IPAddress, port: int | None, protocol: Protocol) -> str | None:
    """Return why a stanza does not forward to `target`:`port`, or None where it does; `port` None is all of them.

    What NAT_TARGETS names is allowed; without it OPEN_PORTS and RESTRICT_PORTS hold for the target's port too.
    """
    targets = stanza.forwarding.targets
    if targets is None:
        return None if port is None else refused_service(stanza, [Service(protocol, port)])
    refused = f"{target},{'*' if port is None else port} is not in NAT_TARGETS"
    return None if any(_covers(one, target, port) for one in targets) else refused


def target_address(stanza: Stanza, host: str) -> IPAddress | None:
    """Return the address of a NAT host: one as it is written, or a name that NAT_TARGETS resolved beforehand."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        named = (one for one in stanza.forwarding.targets or () if one.name == host.lower() and one.addresses)
        return next((one.addresses[0] for one in named), None)


def _covers(target: Target, address: IPAddress, port: int | None) -> bool:
    return (address.packed in target.networks or address in target.addresses) and target.port in {None, port}


def _nat(facts: Facts) -> Nat | None:
    """Return where an allowed grant leads, None where it stays what it is."""
    forwarding, kind = facts.stanza.forwarding, facts.message.type
    if forwarding.force is not None:
        return forwarded(facts.stanza, facts.abilities, *forwarding.force)
    if facts.message.nat_access is None:
        return None
    wanted = parse_nat(facts.message.nat_access)
    if kind in LOCAL_NAT:
        return Nat(None, wanted.port)
    target = target_address(facts.stanza, wanted.host)
    if target is None:  # _target() has seen to it
        msg = f"{wanted.host} is no address"
        raise WireError(msg)
    return forwarded(facts.stanza, facts.abilities, target, wanted.port)


def forwarded(stanza: Stanza, abilities: Abilities, target: IPAddress, port: int) -> Nat:
    """Return how a stanza forwards to a target: FORCE_SNAT before SNAT_TRANSLATE_IP before masquerading, as fwknopd."""
    forwarding = stanza.forwarding
    if target.is_loopback and not forwarding.everything:
        return Nat(None, port)
    translate = forwarding.snat is not None or forwarding.masquerade or abilities.snat
    snat = forwarding.snat or (None if forwarding.masquerade else abilities.snat_source)
    return Nat(
        target,
        None if forwarding.everything else port,
        everything=forwarding.everything,
        rewrite=forwarding.rewrite,
        snat=snat if translate else None,
        masquerade=translate and snat is None,
    )


def _wanted_source(facts: Facts) -> IPAddress | None:
    """Return the source that the message names; None is the packet's origin."""
    if facts.message.type is MessageType.COMMAND:
        return parse_command(facts.message.text).source
    return parse_access(facts.message.text).source


CHECKS: Final[tuple[Callable[[Facts], Denial | None], ...]] = (_age, _kind, _source, _username, _services, _target)
