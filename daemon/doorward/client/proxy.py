"""`doorward connect`: the ProxyCommand. Knock, dial, hand the connection over, or say in one line why not."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from doorward.client import deliver, nat
from doorward.client.address import ANY_FAMILY, Endpoint, own_address, resolve
from doorward.client.connect import ClosedError, Route, connect
from doorward.client.knock import Way, source, source_rule, transport
from doorward.client.packet import build
from doorward.client.request import ENCRYPTION, PORT, KeySearch, request, saved_profile
from doorward.client.send import send, unsent
from doorward.config.profile import Profile, SourceRule
from doorward.errors import ClientError, ConfigError, DoorwardError
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doorward.client.outside import Outside
    from doorward.client.packet import Request
    from doorward.values import IPAddress


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be reached, and what the command line says about the knock. `timeout` in seconds, for all of it."""

    host: str
    port: int
    timeout: float
    said: Profile
    rc_file: Path | None = None
    stanza: str | None = None
    status: Path | None = None


def run(order: Order, outside: Outside, stdin: int, stdout: int) -> None:
    """Carry out an order; the reason of a failure also goes into the status file.

    Raises:
        DoorwardError: why there is no connection.
    """
    try:
        connection = _connection(order, outside)
        if deliver.wants_descriptor(stdin, stdout):
            deliver.pass_descriptor(connection, stdout)
        else:
            deliver.relay(connection, stdin, stdout)
    except ConfigError as error:
        _leave(str(error), order.status, outside)
        raise
    except (DoorwardError, OSError) as error:
        _leave(str(error), order.status, outside)
        msg = f"{order.host} port {order.port}: {error}"
        raise ClientError(msg) from error


def _leave(reason: str, status: Path | None, outside: Outside) -> None:
    """Write the reason where another program can read it: ssh hides a ProxyCommand's stderr under ControlPersist."""
    if status is None:
        return
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(status, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(" ".join(reason.split()) + "\n")
    except OSError as error:
        outside.warn(f"{status}: {error.strerror or error}")


def _connection(order: Order, outside: Outside) -> socket.socket:
    deadline = outside.monotonic() + order.timeout
    wanted = Service(Protocol.TCP, order.port)
    saved = saved_profile(outside, order.rc_file, order.stanza, order.host, wanted)
    profile = order.said.over(saved.profile)
    services = profile.access or (wanted,)
    led = nat.lead(profile, services, outside.random_bytes) if profile.can_seal else nat.Led(services)
    port = led.services[0].port if profile.nat_port or led.random_port else order.port
    endpoints = resolve(order.host, port, family=_family(profile), seconds=order.timeout)
    reachable, complaint = _reachable(_of_the_source(endpoints, profile.source))
    if not reachable:
        raise ClosedError(complaint)
    left = max(deadline - outside.monotonic(), 0)
    if not profile.can_seal:
        keyless = f"no {_missing(profile)} to knock with: {saved.lacks(ENCRYPTION)}"
        if profile.verbose:
            outside.warn(f"{order.host}: dialling without a knock: {keyless}")
        return connect([Route(dial, None, keyless) for dial in reachable], deadline, outside.monotonic)
    profile = replace(profile, server=profile.server or order.host, command=None)
    asked = request(profile, led, KeySearch(profile.server or "", None, saved), outside.environ)
    knockers = _knockers(order.host, profile, asked, reachable, left, outside)
    return connect([Route(*pair) for pair in zip(reachable, knockers, strict=True)], deadline, outside.monotonic)


def _missing(profile: Profile) -> str:
    """Return what a profile that cannot seal lacks."""
    return "GPG_RECIPIENT" if profile.use_gpg else ENCRYPTION.what


def _of_the_source(endpoints: tuple[Endpoint, ...], rule: SourceRule | IPAddress | None) -> tuple[Endpoint, ...]:
    """Return the endpoints that an explicit source can reach: those of its family, if there are any."""
    if rule is None or isinstance(rule, SourceRule):
        return endpoints
    return tuple(each for each in endpoints if each.host.version == rule.version) or endpoints


def _reachable(endpoints: tuple[Endpoint, ...]) -> tuple[list[Endpoint], str]:
    """Return the endpoints this machine has a route to, and why the last one without has none."""
    reachable, complaint = [], ""
    for endpoint in endpoints:
        failure = _no_route(endpoint)
        if failure is None:
            reachable.append(endpoint)
        else:
            complaint = f"no route to {endpoint.host}: {failure}"
    return reachable, complaint


def _no_route(endpoint: Endpoint) -> str | None:
    try:
        own_address(endpoint)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _knockers(  # noqa: PLR0913, PLR0917  what one connection is made of
    host: str, profile: Profile, asked: Request, dials: list[Endpoint], seconds: float, outside: Outside
) -> list[Callable[[], None]]:
    """Return for each address of the host what knocks for it."""
    door = profile.http_proxy.host if profile.http_proxy is not None else profile.server
    port = _door_port(profile, outside)
    if door == host:
        return [_knocker(asked, profile, dial, dial._replace(port=port), outside) for dial in dials]
    doors = resolve(door or "", port, family=_family(profile), seconds=seconds)
    return [_knocker(asked, profile, dial, _door(dial, doors), outside) for dial in dials]


def _door_port(profile: Profile, outside: Outside) -> int:
    if profile.http_proxy is not None and profile.http_proxy.port is not None:
        return profile.http_proxy.port
    return nat.random_port(outside.random_bytes) if profile.rand_port else profile.port or PORT


def _family(profile: Profile) -> int:
    return socket.AF_INET if profile.ipv4_only else ANY_FAMILY


def _door(dial: Endpoint, doors: tuple[Endpoint, ...]) -> Endpoint:
    """Return where to knock for an address: at one of the same family, if there is one."""
    return next((door for door in doors if door.family is dial.family), doors[0])


def _knocker(asked: Request, profile: Profile, dial: Endpoint, door: Endpoint, outside: Outside) -> Callable[[], None]:
    way = Way(dial, door)
    asks_outside = source_rule(profile) is SourceRule.RESOLVE
    known: list[IPAddress | None] = []  # who had to ask somebody for it asks once

    def knock() -> None:
        if not (known and asks_outside):
            known[:] = [source(profile, way, outside)]
        packet = build(asked, known[0], outside.clock(), outside.random_bytes)
        try:
            send(packet.payload, door, transport(profile))
        except OSError as error:
            raise OSError(error.errno, unsent(error, door, transport(profile))) from error
        if profile.verbose:
            outside.warn(f"knocked at {door.host} port {door.port} for {packet.message.text}")

    return knock
