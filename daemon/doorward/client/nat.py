"""Where connections are to be led: fwknop's NAT options as what the message says.

On the wire the services' port is the one that connections go to, and nat_access names where they end
(set_access_buf() and set_nat_access(), client/fwknop.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.errors import ClientError
from doorward.values import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.config.profile import Profile

HIGH_PORT: Final = 10_000  # MIN_HIGH_PORT, client/fwknop_common.h
_PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Led:
    """The services as the message names them and its nat_access; `random_port` where one was drawn."""

    services: tuple[Service, ...]
    target: str | None = None
    local: bool = False
    random_port: int | None = None


def lead(profile: Profile, services: tuple[Service, ...], random_bytes: Callable[[int], bytes]) -> Led:
    """Return what a profile's NAT options make of the services it asks for.

    Raises:
        ClientError: the options do not fit together.
    """
    drawn = random_port(random_bytes) if profile.nat_rand_port else None
    outer = drawn or profile.nat_port
    target = _target(profile, services)
    if outer is None:
        return Led(services, target, bool(profile.nat_local))
    if len(services) != 1:
        msg = f"a NAT port stands for one service, and {len(services)} are asked for: name one with -A"
        raise ClientError(msg)
    return Led((Service(services[0].protocol, outer),), target, bool(profile.nat_local), drawn)


def random_port(random_bytes: Callable[[int], bytes]) -> int:
    """Return a port from 10000 to 65534, as fwknop draws them; it tells nothing about the packet."""
    return HIGH_PORT + int.from_bytes(random_bytes(8), "big") % (_PORT_MAX - HIGH_PORT)


def _target(profile: Profile, services: tuple[Service, ...]) -> str | None:
    if profile.nat_access is None and not profile.nat_local:
        return None
    if not services:
        msg = "NAT leads a service somewhere: name it with -A"
        raise ClientError(msg)
    host = profile.nat_access.host if profile.nat_access is not None else profile.server
    if host is None:
        msg = "name the host to knock at: -D HOST"
        raise ClientError(msg)
    port = profile.nat_access.port if profile.nat_access is not None else None
    return f"{host},{port or services[0].port}"
