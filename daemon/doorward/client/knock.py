"""`doorward knock`: one packet to each family of the host, or only shown."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from doorward.client import nat, show
from doorward.client.address import ANY_FAMILY, Endpoint, own_address, resolve, source_to_ask
from doorward.client.packet import build
from doorward.client.request import PORT, KeySearch, Saved, request
from doorward.client.send import USER_AGENT, Transport, http_request, send, unsent
from doorward.config.profile import Carrier, SourceRule
from doorward.errors import ClientError, RootError

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.client.outside import Outside
    from doorward.client.packet import Packet, Request
    from doorward.config.profile import Profile
    from doorward.values import IPAddress


@dataclass(frozen=True, slots=True)
class Run:
    """What one run does with its packets: with `test` nothing is sent; `packet_file` gets them, a line each."""

    family: int = ANY_FAMILY
    test: bool = False
    packet_file: Path | None = None
    append: bool = False


def knock(profile: Profile, outside: Outside, order: Run | None = None, saved: Saved | None = None) -> None:
    """Send a packet to the first reachable address of each family of the host; in a test show and send nothing.

    Both families, because whoever connects afterwards may use either, and the packet names one source. `saved` is what
    the profile was read from.

    Raises:
        ClientError: something is missing, or nothing could be sent.
    """
    order = order or Run()
    check(profile, test=order.test)
    led = nat.Led(()) if profile.command is not None else nat.lead(profile, profile.access or (), outside.random_bytes)
    search = KeySearch(profile.server or "", outside.ask, saved or Saved())
    asked = request(profile, led, search, outside.environ)
    if asked.keys.hmac_key is None:
        outside.warn("warning: no HMAC key: the packet is not authenticated")
    if led.random_port is not None:
        outside.say(f"[+] {_random(asked, led.random_port)}")
    failures = []
    for number, way in enumerate(ways(profile, order.family, outside, test=order.test)):
        run = order if number == 0 else replace(order, append=True)
        failures.append(_to_one(way, asked, profile, outside, run))
    if None not in failures:
        raise ClientError("; ".join(text for text in failures if text))


def check(profile: Profile, *, test: bool) -> None:
    """Refuse a profile that does not say what to open, or where.

    Raises:
        ClientError: what is missing.
    """
    if profile.access is None and profile.command is None:
        msg = "name what to open: -A tcp/22 (ACCESS in a stanza, which -n names)"
        raise ClientError(msg)
    if profile.server is None and not test:
        msg = "name the host to knock at: -D HOST (SPA_SERVER in a stanza, which -n names)"
        raise ClientError(msg)


def _random(asked: Request, port: int) -> str:
    """Return fwknop's line about the port that was drawn; nobody could use it otherwise."""
    services = ",".join(map(str, asked.services))
    target = f" will grant access to: '{asked.nat}'" if asked.nat is not None else ""
    return f"Randomly assigned port '{port}' on: '{services}'{target}"


@dataclass(frozen=True, slots=True)
class Way:
    """Where a packet goes: `host` is whom it asks, `to` whom it is sent to, a proxy perhaps. None is not known."""

    host: Endpoint | None
    to: Endpoint | None
    port: int = PORT


def ways(profile: Profile, family: int, outside: Outside, *, test: bool = False) -> list[Way]:
    """Return the endpoints to knock at: of each family the first, of an explicit source's family if there is one.

    Raises:
        ClientError: a name has no address.
    """
    port = nat.random_port(outside.random_bytes) if profile.rand_port else profile.port or PORT
    if profile.server is None or (test and profile.source not in {None, SourceRule.AUTO, SourceRule.RESOLVE}):
        return [Way(None, None, port)]  # nothing is sent, and the source is known
    proxy = profile.http_proxy
    passing = resolve(proxy.host, proxy.port or port, family=family) if proxy is not None and not test else ()
    try:
        hosts = _firsts(resolve(profile.server, port, family=family), profile)
    except ClientError:
        if not passing and not test:
            raise
        hosts = [None]  # the proxy may know the name, and a test sends nothing
    return [Way(host, passing[0] if passing else host, port) for host in hosts]


def _firsts(endpoints: tuple[Endpoint, ...], profile: Profile) -> list[Endpoint | None]:
    firsts = {endpoint.host.version: endpoint for endpoint in reversed(endpoints)}
    for told in (profile.spoofed, profile.source):
        if told is not None and not isinstance(told, SourceRule):
            return [firsts.get(told.version, endpoints[0])]
    return [endpoint for endpoint in endpoints if firsts[endpoint.host.version] is endpoint]


def transport(profile: Profile) -> Transport:
    """Return how a profile's packets travel."""
    return Transport(
        carrier=profile.carrier or Carrier.UDP,
        source_port=profile.source_port,
        spoofed=profile.spoofed,
        icmp_type=profile.icmp_type,
        icmp_code=profile.icmp_code or 0,
        user_agent=profile.user_agent or USER_AGENT,
        server=profile.server or "",
        proxy=profile.http_proxy.host if profile.http_proxy is not None else None,
    )


def _to_one(way: Way, asked: Request, profile: Profile, outside: Outside, order: Run) -> str | None:
    """Knock at one endpoint; return why it did not work, or None."""
    how = transport(profile)
    try:
        packet = build(asked, source(profile, way, outside), outside.clock(), outside.random_bytes)
        if profile.verbose or order.test:
            outside.say(f"{show.dump(packet)}\n{show.destination(way.to, way.port, how)}")
        if order.packet_file is not None:
            save(packet, order.packet_file, append=order.append)
        if order.test or way.to is None:
            _end_test(packet, how, profile, outside)
            return None
        sent = _sent(packet, way.to, how)
    except RootError:
        raise
    except ClientError as error:
        return str(error)
    except OSError as error:
        return f"{way.host.host if way.host else profile.server}: {error.strerror or error}"
    if profile.verbose:
        outside.say(f"send_spa_packet: bytes sent: {sent}")
    return None


def _sent(packet: Packet, to: Endpoint, how: Transport) -> int:
    try:
        return send(packet.payload, to, how)
    except OSError as error:
        raise ClientError(unsent(error, to, how)) from error


def _end_test(packet: Packet, how: Transport, profile: Profile, outside: Outside) -> None:
    if how.carrier is Carrier.HTTP and profile.verbose:
        outside.say(http_request(packet.payload, how).decode("ascii").replace("\r", ""))
    outside.say("test mode enabled, SPA packet not actually sent.")


def source_rule(profile: Profile) -> SourceRule | IPAddress:
    """Return how the source is found; naming somebody to ask is asking, unless an address is named."""
    if profile.source is not None:
        return profile.source
    return SourceRule.RESOLVE if profile.resolve_urls or profile.resolve_dns else SourceRule.AUTO


def source(profile: Profile, way: Way, outside: Outside) -> IPAddress | None:
    """Return the source to ask for; None is the packet's origin.

    Raises:
        ClientError: nobody outside says which it is.
        OSError: there is no route.
    """
    rule = source_rule(profile)
    if not isinstance(rule, SourceRule):
        return rule
    if rule is SourceRule.RESOLVE:
        from doorward.client import seen  # noqa: PLC0415  TLS and HTTP, only for who asks outside

        return seen.address(profile, way.host, outside)
    return (
        None
        if way.host is None or rule is SourceRule.PACKET
        else source_to_ask(rule, own_address(way.host), way.host.host)
    )


def save(packet: Packet, path: Path, *, append: bool) -> None:
    """Write a packet's payload as a line of a file that nobody else can read: whoever sends it first is let in.

    Raises:
        ClientError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_APPEND if append else os.O_TRUNC)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                os.fchmod(stream.fileno(), 0o600)
            stream.write(packet.payload + b"\n")
    except OSError as error:
        why = "it is a link, which is not followed" if error.errno == errno.ELOOP else error.strerror or error
        msg = f"{path}: the packet cannot be saved: {why}"
        raise ClientError(msg) from error
