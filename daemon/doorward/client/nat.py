"""Where connections are forwarded to: fwknop's NAT options in the message's form.

On the wire the services' port is the one that connections go to, and nat_access names where they end
(set_access_buf() and set_nat_access(), client/fwknop.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.errors import ClientError
from doorward.values import PORT_MAX, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.client.profile import Profile

HIGH_PORT: Final = 10_000  # MIN_HIGH_PORT, client/fwknop_common.h


class NatRequest(NamedTuple):
    """The services as the message names them and its nat_access; `random_port` where one was drawn."""

    services: tuple[Service, ...]
    target: str | None = None
    random_port: int | None = None


def request(profile: Profile, services: tuple[Service, ...], random_bytes: Callable[[int], bytes]) -> NatRequest:
    """A profile's services with its NAT options applied.

    Raises:
        ClientError: the options do not fit together.
    """
    drawn = random_port(random_bytes) if profile.nat_rand_port else None
    outer = drawn or profile.nat_port
    target = _target(profile, services)
    if outer is not None:
        if len(services) != 1:
            msg = f"a NAT port stands for one service, not for {len(services)}: name one with -A"
            raise ClientError(msg)
        services = (Service(services[0].protocol, outer),)
    return NatRequest(services, target, drawn)


def random_port(random_bytes: Callable[[int], bytes]) -> int:
    """A port from 10000 to 65534, as in fwknop; it reveals nothing about the packet."""
    return HIGH_PORT + int.from_bytes(random_bytes(8), "big") % (PORT_MAX - HIGH_PORT)


def _target(profile: Profile, services: tuple[Service, ...]) -> str | None:
    if profile.nat_access is None and not profile.nat_local:
        return None
    if not services:
        msg = "NAT forwards a service: name it with -A"
        raise ClientError(msg)
    host = profile.nat_access.host if profile.nat_access is not None else profile.server
    if host is None:
        msg = "name the host to knock at: -D HOST"
        raise ClientError(msg)
    port = profile.nat_access.port if profile.nat_access is not None else None
    return f"{host},{port or services[0].port}"
