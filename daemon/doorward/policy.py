"""The decision: facts to a grant or a denial. Pure; an ordered table of small predicates.

The order is fwknopd's (server/incoming_spa.c), so that its logs and ours tell the same story.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from doorward.denials import (
    ImpossibleSource,
    Inexpressible,
    LinkLocalSource,
    NotServed,
    OtherFamily,
    PrefixTooWide,
    ServiceClosed,
    ServiceRestricted,
    SourceRequired,
    TargetPort,
    TooNew,
    TooOld,
    UnknownCommand,
    UnknownTarget,
    Unserved,
    WindowTooLong,
    WrongClock,
    WrongSource,
    WrongTarget,
    WrongUser,
)
from doorward.errors import WireError
from doorward.frozen import dataclass
from doorward.values import (
    NO_PERMISSIONS,
    Execution,
    Grant,
    IPAddress,
    Nat,
    Permissions,
    Protocol,
    Service,
    is_broadcast,
    is_link_local,
    refuse_nobody,
)
from doorward.wire.wish import Kind, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doorward.config.stanza import Forwarding, Stanza, Target
    from doorward.denials import Denial, ServiceDenial, TargetDenial
    from doorward.values import PublicKey

CLOCK_SECONDS: Final = 30 * 86400  # no packet is under way for a month; a host without a battery is years off


@dataclass(frozen=True, slots=True)
class Facts:
    """All inputs of a decision. `now` in Unix seconds, `max_age` in seconds or None where ageing is off.

    `forwarded` is the client that a trusted proxy names; it replaces the origin where the packet names no source.
    `client` is the name behind the public key `key` of the packet's sender, where it has one.
    """

    stanza: Stanza
    wish: Wish
    origin: IPAddress
    destination: IPAddress
    now: float
    max_age: int | None
    permissions: Permissions = NO_PERMISSIONS
    forwarded: IPAddress | None = None
    client: str | None = None
    key: PublicKey | None = None


def decide(facts: Facts) -> Grant | Execution | Denial:
    """The decision of one stanza on one authentic message."""
    for check in CHECKS:
        denial = check(facts)
        if denial is not None:
            return denial
    try:
        if facts.stanza.cycle is not None or facts.wish.kind in {Kind.COMMAND, Kind.NAMED_COMMAND}:
            return _execution(facts)
        return _grant(facts)
    except WireError as error:  # a grant that no packet filter could express, such as NAT from one family to the other
        return Inexpressible(str(error))


def _grant(facts: Facts) -> Grant:
    services, nat = tuple(dict.fromkeys(_asked(facts))), _nat(facts)
    return Grant(
        _source_of(facts),
        services if nat is None else services[:1],  # fwknopd too forwards only the first
        window(facts.stanza, facts.wish),
        nat,
        facts.stanza.require_os,
        facts.destination if facts.permissions.destination_rule else None,
        facts.client or facts.stanza.name,
        facts.key,
        prefix=facts.wish.prefix,
    )


def _execution(facts: Facts) -> Execution:
    stanza, wish = facts.stanza, facts.wish
    asked = () if wish.command is not None else _asked(facts)
    return Execution(
        stanza=stanza.number,
        source=_source_of(facts),
        origin=facts.origin,
        destination=facts.destination,
        seconds=_cycle_window(facts),
        made=int(wish.made),
        service=next(iter(asked), None),
        client_timeout=wish.seconds,
        command=wish.command,
        named=wish.kind is Kind.NAMED_COMMAND,
    )


def _asked(facts: Facts) -> tuple[Service, ...]:
    """The services that the packet asks for, of none all that the stanza opens."""
    if facts.wish.services is not None:
        return facts.wish.services
    return tuple(sorted((facts.stanza.open_ports or frozenset()) - facts.stanza.restrict_ports))


def _cycle_window(facts: Facts) -> int:
    """The seconds until the closing command: the client's wish up to MAX_FW_TIMEOUT, or CMD_CYCLE_TIMER."""
    cycle = facts.stanza.cycle
    if facts.wish.seconds or cycle is None or cycle.seconds is None:
        return window(facts.stanza, facts.wish)
    return cycle.seconds


def window(stanza: Stanza, wish: Wish) -> int:
    """The seconds a grant lasts: the client's wish up to MAX_FW_TIMEOUT, or else FW_ACCESS_TIMEOUT.

    A source that nobody authenticated gets less, where the stanza bounds it.
    """
    seconds = min(wish.seconds, longest(stanza, wish)) if wish.seconds else stanza.fw_access_timeout
    bounded = wish.source is None and stanza.origin_window is not None
    return min(seconds, stanza.origin_window or seconds) if bounded else seconds


def longest(stanza: Stanza, wish: Wish) -> int:
    """The longest window that a client may ask for: a format that shortens nothing may ask for the usual one too."""
    return max(stanza.max_fw_timeout, stanza.fw_access_timeout) if wish.exact else stanza.max_fw_timeout


def _age(facts: Facts) -> Denial | None:
    if facts.max_age is None:
        return None
    age = facts.now - facts.wish.made
    if abs(age) > max(CLOCK_SECONDS, facts.max_age):
        return WrongClock(age)
    if age > facts.max_age:
        return TooOld(age, facts.max_age)
    if age < -facts.max_age:
        return TooNew(-age, facts.max_age)
    return None


def _form(facts: Facts) -> Denial | None:
    """Deny what only the format doorward 1 can ask for, and is not served."""
    wish, stanza = facts.wish, facts.stanza
    if not wish.exact:
        return None
    is_command = wish.kind is Kind.NAMED_COMMAND
    if is_command and command_of(stanza, wish.command or "") is None:
        return UnknownCommand(wish.command or "")
    refused = {
        Unserved.TWO_SOURCES: wish.second is not None and is_command,
        Unserved.EVERYTHING: wish.services is None and not _asked(facts),
    }
    if wish.seconds > longest(stanza, wish):
        return WindowTooLong(wish.seconds, longest(stanza, wish))
    if wish.prefix is not None:
        nat = wish.target is not None or stanza.forwarding.force is not None or stanza.forwarding.everything
        beside = nat or stanza.cycle is not None or stanza.require_os is not None
        if beside or facts.permissions.destination_rule:
            return NotServed(Unserved.NETWORK_BESIDE)
        denial = refused_prefix(stanza, _source_of(facts), wish.prefix)
        if denial is not None:
            return denial
    return next((NotServed(request) for request, so in refused.items() if so), None)


def command_of(stanza: Stanza, name: str) -> str | None:
    """The command that a stanza has under a name, None where it has none."""
    return None if stanza.named is None else stanza.named.find(name)


def refused_prefix(stanza: Stanza, source: IPAddress, prefix: int) -> NotServed | PrefixTooWide | None:
    """Why a stanza lets in no network of this length, or None where it does."""
    limit = stanza.max_prefix4 if source.version == 4 else stanza.max_prefix6  # noqa: PLR2004  IPv4
    if limit is None:
        return NotServed(Unserved.NETWORK)
    return PrefixTooWide(prefix, limit) if prefix < limit else None


def _kind(facts: Facts) -> Denial | None:
    """Deny a kind of request that the stanza, or the daemon's settings, do not serve."""
    kind, stanza, permissions = facts.wish.kind, facts.stanza, facts.permissions
    everything = stanza.forwarding.everything and stanza.cycle is None
    if kind is Kind.ACCESS and not everything and stanza.forwarding.only is not True:
        return None
    forced, only = stanza.forwarding.force is not None, stanza.forwarding.only
    onward = kind is Kind.FORWARD or (kind is Kind.ACCESS and everything and stanza.forwarding.everywhere)
    nat, chosen = onward or kind is Kind.LOCAL_NAT, not forced
    refused = {
        Unserved.COMMAND: kind is Kind.COMMAND and stanza.commands is None,
        Unserved.NO_FORWARDING: onward and only is False,
        Unserved.ONLY_FORWARDING: bool(only) and chosen and not nat,
        Unserved.NO_TARGET: kind is Kind.ACCESS and everything and chosen and not onward,
        Unserved.NAT_WITH_OS: nat and stanza.require_os is not None,
        Unserved.NAT: nat and chosen and not (permissions.forwarding or permissions.local_nat),
        Unserved.FORWARDING: onward and chosen and not permissions.forwarding,
        Unserved.LOCAL_NAT: kind is Kind.LOCAL_NAT and chosen and not permissions.local_nat,
    }
    return next((NotServed(request) for request, so in refused.items() if so), None)


def _source(facts: Facts) -> Denial | None:
    """Deny a source that is missing or outside SOURCE.

    fwknopd tests SOURCE against the packet's origin only; then anybody who may knock could let in the whole world.
    """
    source = facts.wish.source
    if source is None and facts.stanza.require_source_address:
        return SourceRequired()
    named = source or facts.forwarded  # the origin was found in SOURCE already
    if named is not None and not lies_in(named, facts.wish.prefix, facts.stanza):
        return WrongSource(named)
    if is_link_local(named or facts.origin):
        return LinkLocalSource(named or facts.origin)
    return (None if named is None else _nobody(named)) or _nobody(facts.origin)


def lies_in(source: IPAddress, prefix: int | None, stanza: Stanza) -> bool:
    """Whether a source, or all of its network, lies in SOURCE."""
    return source.packed in stanza.source if prefix is None else stanza.source.covers(source.packed, prefix)


def _nobody(source: IPAddress) -> Denial | None:
    """Deny an address that no connection comes from: such packets are forged, and commands would get the address."""
    try:
        refuse_nobody(source)
    except WireError:
        return ImpossibleSource(source)
    return None


def _username(facts: Facts) -> Denial | None:
    required = facts.stanza.require_username
    if required is None or facts.wish.user == required:
        return None
    return WrongUser(facts.wish.user or "", required)


def _services(facts: Facts) -> Denial | None:
    """Deny unless every requested service is allowed on its own; RESTRICT_PORTS wins over OPEN_PORTS."""
    return refused_service(facts.stanza, _asked(facts))


def refused_service(stanza: Stanza, services: Iterable[Service]) -> ServiceDenial | None:
    """Why a stanza does not open one of `services`, or None where it opens all of them."""
    for service in services:
        if service in stanza.restrict_ports:
            return ServiceRestricted(service)
        if stanza.open_ports is not None and not stanza.any_ports and service not in stanza.open_ports:
            return ServiceClosed(service)
    return None


def _target(facts: Facts) -> Denial | None:
    """Deny a NAT target that the stanza does not allow."""
    wanted = facts.wish.target
    if wanted is None or facts.stanza.forwarding.force is not None or facts.stanza.cycle is not None:
        return None
    protocol = _asked(facts)[0].protocol
    if facts.wish.kind is Kind.LOCAL_NAT:
        return _refused_port(facts.stanza, Service(protocol, wanted.port))
    target = target_address(facts.stanza, wanted.host)
    if target is None:
        return UnknownTarget(wanted.host)
    if target.version != _source_of(facts).version:
        return OtherFamily(target)
    return refused_target(facts.stanza, target, None if facts.stanza.forwarding.everything else wanted.port, protocol)


def refused_target(stanza: Stanza, target: IPAddress, port: int | None, protocol: Protocol) -> TargetDenial | None:
    """Why a stanza does not forward to `target`:`port`, or None where it does; `port` None is all of them.

    The targets of NAT_TARGETS are allowed; without it OPEN_PORTS and RESTRICT_PORTS hold for the target's port too, and
    no target is an address of the gateway's links alone, such as a cloud's metadata service.
    """
    targets = stanza.forwarding.targets
    if target.is_unspecified:
        return WrongTarget(target, port)
    if targets is None and (is_link_local(target) or is_broadcast(target)):
        return WrongTarget(target, port)
    if targets is None:
        return None if port is None else _refused_port(stanza, Service(protocol, port))
    return None if any(_covers(one, target, port) for one in targets) else WrongTarget(target, port)


def _refused_port(stanza: Stanza, service: Service) -> TargetPort | None:
    denial = refused_service(stanza, [service])
    return None if denial is None else TargetPort(denial)


def target_address(stanza: Stanza, host: str) -> IPAddress | None:
    """The address of a NAT host: one as it is written, or a name that NAT_TARGETS resolved beforehand."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        named = (one for one in stanza.forwarding.targets or () if one.name == host.lower() and one.addresses)
        return next((one.addresses[0] for one in named), None)


def _covers(target: Target, address: IPAddress, port: int | None) -> bool:
    return (address.packed in target.networks or address in target.addresses) and target.port in {None, port}


def _nat(facts: Facts) -> Nat | None:
    """The NAT of an allowed grant, None where it has none."""
    forwarding, wanted = facts.stanza.forwarding, facts.wish.target
    if forwarding.force is not None:
        return forwarded(facts.stanza, facts.permissions, *forwarding.force)
    if wanted is None:
        return everywhere(facts.stanza, facts.permissions, _source_of(facts)) if forwarding.everywhere else None
    if facts.wish.kind is Kind.LOCAL_NAT:
        return Nat(None, wanted.port)
    target = target_address(facts.stanza, wanted.host)
    assert target is not None  # noqa: S101  _target() has denied it
    return forwarded(facts.stanza, facts.permissions, target, wanted.port)


def forwarded(stanza: Stanza, permissions: Permissions, target: IPAddress, port: int) -> Nat:
    """The NAT of a stanza to a target: FORCE_SNAT before SNAT_TRANSLATE_IP before masquerading, as fwknopd."""
    forwarding = stanza.forwarding
    if target.is_loopback and not forwarding.everything:
        return Nat(None, port)
    snat, masquerade = _translation(forwarding, permissions)
    return Nat(
        target,
        None if forwarding.everything else port,
        everything=forwarding.everything,
        rewrite=forwarding.rewrite,
        snat=snat,
        masquerade=masquerade,
    )


def everywhere(stanza: Stanza, permissions: Permissions, source: IPAddress) -> Nat:
    """The NAT of a stanza that forwards `source` to every address; fwknopd too rewrites no destination then."""
    snat, masquerade = _translation(stanza.forwarding, permissions)
    return Nat.to_everywhere(source.version, snat=snat, masquerade=masquerade)


def _translation(forwarding: Forwarding, permissions: Permissions) -> tuple[IPAddress | None, bool]:
    """The source that forwarded connections get, and whether they are masqueraded."""
    translate = forwarding.snat is not None or forwarding.masquerade or permissions.snat
    snat = forwarding.snat or (None if forwarding.masquerade else permissions.snat_source)
    return (snat if translate else None), translate and snat is None


def _source_of(facts: Facts) -> IPAddress:
    return facts.wish.source or facts.forwarded or facts.origin


CHECKS: Final[tuple[Callable[[Facts], Denial | None], ...]] = (
    _age, _form, _kind, _source, _username, _services, _target,
)  # fmt: skip  # the order is what matters
