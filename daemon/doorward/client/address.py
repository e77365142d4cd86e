"""Where the client sends to, and which source it asks for."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple

from doorward.config.profile import SourceRule
from doorward.errors import ClientError
from doorward.values import address, unmap

if TYPE_CHECKING:
    from doorward.values import IPAddress

ANY_FAMILY = socket.AF_UNSPEC


class Endpoint(NamedTuple):
    """An address and port of one family, as the socket calls take it; `scope` is an IPv6 zone's index, or 0."""

    host: IPAddress
    port: int
    scope: int = 0

    @property
    def family(self) -> socket.AddressFamily:
        """The address family."""
        return socket.AF_INET if self.host.version == 4 else socket.AF_INET6  # noqa: PLR2004  IPv4

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """The address for connect()."""
        if self.family is socket.AF_INET:
            return str(self.host), self.port
        return str(self.host), self.port, 0, self.scope


def resolve(host: str, port: int, *, family: int = ANY_FAMILY, seconds: float | None = None) -> tuple[Endpoint, ...]:
    """Return the host's addresses, the preferred one first (RFC 6724), each once.

    `seconds` bounds the wait: a name server that does not answer would else outlast every deadline of ours.

    Raises:
        ClientError: the name has no address, or none came in time.
    """
    found: list[tuple[Endpoint, ...] | OSError] = []
    lookup = threading.Thread(target=lambda: found.append(_lookup(host, port, family)), daemon=True)
    lookup.start()
    lookup.join(seconds)
    if not found:
        msg = f"{host}: the name was not resolved within {seconds:g} s"
        raise ClientError(msg)
    if isinstance(found[0], OSError):
        alone = {socket.AF_INET: " (IPv4 alone)", socket.AF_INET6: " (IPv6 alone)"}.get(
            socket.AddressFamily(family), ""
        )
        msg = f"{host}: {found[0].strerror or found[0]}{alone}"
        raise ClientError(msg)
    return found[0]


def _lookup(host: str, port: int, family: int) -> tuple[Endpoint, ...] | OSError:
    try:
        answers = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except ValueError as error:  # UnicodeError is one
        return OSError(0, f"no host name ({error})")
    except OSError as error:
        return error
    return tuple(dict.fromkeys(_endpoint(answer[4]) for answer in answers))


def _endpoint(sockaddr: tuple[str | int | bytes, ...]) -> Endpoint:
    """Return the endpoint of a resolver's answer; an IPv4-mapped IPv6 address is the IPv4 address it means."""
    host = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
    scope = int(sockaddr[3]) if len(sockaddr) == 4 else 0  # noqa: PLR2004  host, port, flow, scope
    return Endpoint(address(unmap(host.packed)), int(sockaddr[1]), scope)


def own_address(towards: Endpoint) -> IPAddress:
    """Return the address that this machine would use towards an endpoint; no packet is sent.

    Raises:
        OSError: there is no route.
    """
    with socket.socket(towards.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        probe.connect(towards.sockaddr)
        return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])


def source_to_ask(rule: SourceRule | IPAddress, own: IPAddress, host: IPAddress) -> IPAddress | None:
    """Return the source for the message; None is the packet's origin.

    An IPv6 address comes out of `auto` only where the host was reached over IPv6, which fwknopd cannot be.
    """
    if not isinstance(rule, SourceRule):
        return rule
    behind_nat = host.is_global and not own.is_global
    beyond_words = own.version == 6 and (own.is_link_local or own.is_loopback)  # noqa: PLR2004  no message can say these
    return None if rule is SourceRule.PACKET or behind_nat or beyond_words else own
