"""The endpoints that the client sends to, and the source that it asks for."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.errors import ClientError
from doorward.values import address, unmap

if TYPE_CHECKING:
    from doorward.values import IPAddress

_NAT64: Final = bytes.fromhex("0064ff9b") + bytes(8)  # the well-known prefix 64:ff9b::/96


class Here(NamedTuple):
    """This machine's end of a connection, as ssh's -b and -B name it; None leaves it to the routes."""

    address: IPAddress | None = None
    interface: str | None = None

    def __str__(self) -> str:
        """The words for messages."""
        return " on ".join(str(each) for each in self if each is not None)


class Endpoint(NamedTuple):
    """An address and port of one family, as the socket calls take it; `scope` is an IPv6 zone's index, or 0.

    `here` is this machine's end of every connection to it.
    """

    host: IPAddress
    port: int
    scope: int = 0
    here: Here = Here()

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

    def open(self, kind: socket.SocketKind, port: int = 0, *, reuse: bool = False) -> socket.socket:
        """A new socket for connections to it, at this machine's end; `port` is its own, 0 any.

        Raises:
            OSError: this machine has no such address, interface or free port.
        """
        made = socket.socket(self.family, kind)
        try:
            if self.here.interface is not None:
                made.setsockopt(socket.SOL_SOCKET, _to_device(), self.here.interface.encode() + b"\0")
            if reuse:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.here.address is not None or port:
                made.bind(("" if self.here.address is None else str(self.here.address), port))
        except OSError as error:
            made.close()
            if self.here == Here():
                raise
            raise OSError(error.errno, f"this machine's end, {self.here}: {error.strerror}") from error
        return made


def _to_device() -> int:
    """The socket option that names an interface; not every system has it."""
    number = getattr(socket, "SO_BINDTODEVICE", None)
    if number is None:
        raise OSError(errno.ENOPROTOOPT, "this system binds no connection to an interface")
    return int(number)


def resolve(
    host: str, port: int, *, family: int = socket.AF_UNSPEC, seconds: float | None = None
) -> tuple[Endpoint, ...]:
    """The host's addresses, the preferred one first (RFC 6724), each once.

    `seconds` bounds the wait, since a silent name server can outlast every other deadline.

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
    name = host.encode("ascii") if host.isascii() else host  # for a text Python loads its tables of Unicode, 1 ms
    try:
        answers = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)
    except ValueError as error:  # UnicodeError is one
        return OSError(0, f"no host name ({error})")
    except OSError as error:
        return error
    return tuple(dict.fromkeys(_endpoint(answer[4]) for answer in answers))


def _endpoint(sockaddr: tuple[str | int | bytes, ...]) -> Endpoint:
    """The endpoint in a resolver's answer; an IPv4-mapped IPv6 address becomes the IPv4 address."""
    host = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
    scope = int(sockaddr[3]) if len(sockaddr) == 4 else 0  # noqa: PLR2004  host, port, flow, scope
    return Endpoint(address(unmap(host.packed)), int(sockaddr[1]), scope)


def from_here(
    endpoints: tuple[Endpoint, ...], name: str | None, interface: str | None, seconds: float
) -> tuple[Endpoint, ...]:
    """The endpoints with this machine's end, a name or address and an interface; those that an address can reach.

    Raises:
        ClientError: the name has no address, or none of the endpoints is of its families.
    """
    if name is None:
        return tuple(each._replace(here=Here(None, interface)) for each in endpoints) if interface else endpoints
    ends = {each.host.version: each.host for each in reversed(resolve(name, 0, seconds=seconds))}
    found = tuple(
        each._replace(here=Here(ends[each.host.version], interface)) for each in endpoints if each.host.version in ends
    )
    if not found:
        msg = f"from {name} there is no way to {endpoints[0].host}: one is IPv4, the other IPv6"
        raise ClientError(msg)
    return found


def own_address(towards: Endpoint) -> IPAddress:
    """This machine's own address towards an endpoint; no packet is sent.

    Raises:
        OSError: there is no route.
    """
    with towards.open(socket.SOCK_DGRAM) as probe:
        probe.connect(towards.sockaddr)
        return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])


def fits(own: IPAddress, host: IPAddress) -> bool:
    """Whether a host may see this machine at its own address.

    Not behind NAT: a private address towards a public host, or IPv6 towards NAT64 (RFC 6052), whose host sees IPv4. Nor
    where no message can say it: an IPv6 address of one link. `auto` gives an IPv6 address only where the host is
    reached over IPv6, which fwknopd does not support.
    """
    behind_nat = (host.is_global and not own.is_global) or host.packed.startswith(_NAT64)
    beyond_words = own.version == 6 and (own.is_link_local or own.is_loopback)  # noqa: PLR2004  IPv6
    return not (behind_nat or beyond_words)


def plausible(found: IPAddress, host: IPAddress) -> bool:
    """Whether a host may see this machine at an address that others told."""
    odd = found.is_unspecified or found.is_loopback or found.is_multicast or found.is_link_local
    if odd or (found.version == 6 and (found.scope_id or found.ipv4_mapped)):  # noqa: PLR2004  IPv6
        return False
    if host.packed.startswith(_NAT64):
        return found.version == 4 and found.is_global  # noqa: PLR2004  IPv4
    return found.version == host.version and (found.is_global or not host.is_global)
