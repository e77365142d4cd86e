"""What goes on after a grant's end: flows that connection tracking knows, and TCP sockets; and how they are ended.

Source: linux/netfilter/nfnetlink_conntrack.h, linux/inet_diag.h, linux/sock_diag.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
import struct
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.frozen import dataclass
from doorward.linux import netlink
from doorward.linux.netlink import ACKNOWLEDGE, ATTRIBUTE, DUMP, GENERIC, NESTED, attribute, attributes
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from doorward.values import IPAddress

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE
_BY_FAMILY, _DESTROY = 20, 21  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE
_STATUS, _PROTOCOL_STATE, _TIMES = 3, 4, 20  # CTA_STATUS, CTA_PROTOINFO, CTA_TIMESTAMP
_TCP, _TCP_STATE, _START = 1, 1, 1  # CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE, CTA_TIMESTAMP_START
_SEEN_REPLY: Final = 1 << 1  # IPS_SEEN_REPLY
_ESTABLISHED: Final = 3  # TCP_CONNTRACK_ESTABLISHED
_FIRST: Final = struct.Struct("=6H")  # three attributes, one within the other, as struct nlattr
_IP, _PROTO = 1, 2  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
_NUMBER, _FROM_PORT, _TO_PORT = 1, 2, 3  # CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT
_ASKED: Final = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2; its end is struct inet_diag_sockid
_TOLD: Final = struct.Struct("=BBBB48s")  # the beginning of struct inet_diag_msg
_PLACE: Final = struct.Struct("!HH16s16s")  # ports and addresses of struct inet_diag_sockid
_LISTENING: Final = 10  # TCP_LISTEN
_GET_ROUTE, _TO, _LOCAL = 26, 1, 2  # RTM_GETROUTE, RTA_DST, RTN_LOCAL
_ROUTE: Final = struct.Struct("=BB10x")  # the beginning of struct rtmsg
_ROUTE_KIND: Final = 7  # the place of rtm_type in it
_ALL_STATES: Final = 0xFFF
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH})  # it ended by itself


@dataclass(frozen=True, slots=True)
class End:
    """One end of a flow."""

    address: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow as its first packet went and as its answers come; DNAT makes these two differ. `key` names it.

    `established` where both ends have sent and none has closed it; `is_for_us` where this host was dialled, also where
    it leads elsewhere. `began` in Unix seconds, None where the kernel keeps no times
    (net.netfilter.nf_conntrack_timestamp).
    """

    protocol: Protocol
    source: End
    asked: End
    answering: End
    key: bytes
    established: bool = True
    began: float | None = None
    is_for_us: bool = True

    @property
    def family(self) -> socket.AddressFamily:
        """The family of its addresses."""
        return _family(self.source.address)

    @property
    def ours(self) -> tuple[IPAddress, Service]:
        """Who is at the other end, and the service of this host; also of a flow that the server began."""
        if _is_own(self.source.address):
            return self.asked.address, Service(self.protocol, self.source.port)
        return self.source.address, Service(self.protocol, self.answering.port)

    def concerns(self, source: IPAddress | None, services: Collection[Service]) -> bool:
        """Whether an address, or anybody, began it with a service of these, or any.

        Without an address only what is for this host counts, or what this host leads to another place. A server that
        sent first has begun a flow from its own port.
        """
        ports = {service.port for service in services if service.protocol is self.protocol}
        if _is_own(self.source.address):
            return _fits(self.asked.address, source) and self.source.port in ports
        if services and not {self.asked.port, self.answering.port} & ports:
            return False
        return _comes_in(self) if source is None else _fits(self.source.address, source)


def flows(source: IPAddress | None, services: Collection[Service], protocols: Collection[Protocol]) -> list[Flow]:
    """The flows between an address, or anybody, and services of this host, or any.

    Raises:
        FirewallError: the kernel does not say.
    """
    known = (flow for flow in map(_flow, _entries()) if flow is not None and flow.protocol in protocols)
    return [flow for flow in known if flow.concerns(source, services)]


def of_sources(wanted: Callable[[IPAddress], bool]) -> list[Flow]:
    """The flows that these sources began; the others are hardly looked at, since a gateway may have very many.

    Raises:
        FirewallError: the kernel does not say.
    """
    found = (_flow(content) for content in _entries() if (source := _source(content)) is not None and wanted(source))
    return [replace(one, is_for_us=_comes_in(one)) for one in found if one is not None]


def _entries() -> Iterator[bytes]:
    """Yield everything that connection tracking knows, which may be more than fits into memory at once."""
    _is_own.cache_clear()  # addresses come and go
    try:
        with closing(netlink.waiting(netlink.CONNTRACK)) as kernel:
            yield from netlink.ask(kernel, _GET, GENERIC.pack(socket.AF_UNSPEC, 0, 0), DUMP)
    except OSError as error:
        raise _refusal(error) from error


def end(ended: Iterable[Flow]) -> int:
    """End flows, and return how many were still there.

    Raises:
        FirewallError: the kernel refuses.
    """
    try:
        with closing(netlink.waiting(netlink.CONNTRACK)) as kernel:
            return sum(_done(kernel, _DELETE, GENERIC.pack(flow.family, 0, 0) + flow.key) for flow in ended)
    except OSError as error:
        raise _refusal(error) from error


def _family(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004  IPv4


def _comes_in(flow: Flow) -> bool:
    return flow.asked != flow.answering or _is_own(flow.asked.address)


@functools.lru_cache(4096)
def _is_own(address: IPAddress) -> bool:
    """Whether an address is one of this host's, by its routes: the helper's unit has no sockets to try it with."""
    family = _family(address)
    body = _ROUTE.pack(family, address.max_prefixlen) + attribute(_TO, address.packed)
    try:
        with closing(netlink.waiting(netlink.ROUTES)) as kernel:
            found = list(netlink.ask(kernel, _GET_ROUTE, body, ACKNOWLEDGE))
    except OSError:  # no way there
        return False
    return any(content[_ROUTE_KIND] == _LOCAL for content in found)


def end_sockets(source: IPAddress | None, services: Collection[Service]) -> None:
    """End the TCP connections that listening sockets of this host accepted.

    A server that still has its socket would make a flow known again with the next packet.

    Raises:
        FirewallError: the kernel refuses.
    """
    ports = {service.port for service in services if service.protocol is Protocol.TCP}
    try:
        with closing(netlink.waiting(netlink.SOCKETS)) as kernel:
            for place, family in list(_accepted(kernel)):
                port, _, _, remote = _PLACE.unpack_from(place)
                address = _address(remote if family == socket.AF_INET6 else remote[:4])
                if _fits(address, source) and not _is_own(address) and (not services or port in ports):
                    _done(kernel, _DESTROY, _ASKED.pack(family, Protocol.TCP, 0, _ALL_STATES, place))
    except OSError as error:
        raise _refusal(error) from error


def end_sockets_of(ended: Iterable[Flow]) -> None:
    """End the TCP connections of these flows that listening sockets of this host accepted.

    Raises:
        FirewallError: the kernel refuses.
    """
    ends = {(flow.source, flow.answering.port) for flow in ended if flow.protocol is Protocol.TCP}
    if not ends:
        return
    try:
        with closing(netlink.waiting(netlink.SOCKETS)) as kernel:
            for place, family in list(_accepted(kernel)):
                port, from_port, _, remote = _PLACE.unpack_from(place)
                address = _address(remote if family == socket.AF_INET6 else remote[:4])
                if (End(address, from_port), port) in ends:
                    _done(kernel, _DESTROY, _ASKED.pack(family, Protocol.TCP, 0, _ALL_STATES, place))
    except OSError as error:
        raise _refusal(error) from error


def _accepted(kernel: socket.socket) -> Iterator[tuple[bytes, int]]:
    """Place and family of each TCP socket at a port that another one listens on."""
    for family in (socket.AF_INET, socket.AF_INET6):
        wanted = _ASKED.pack(family, Protocol.TCP, 0, _ALL_STATES, bytes(48))
        told = [_TOLD.unpack_from(content) for content in netlink.ask(kernel, _BY_FAMILY, wanted, DUMP)]
        listening = {place[:2] for _, state, _, _, place in told if state == _LISTENING}
        yield from ((place, family) for _, state, _, _, place in told if state != _LISTENING and place[:2] in listening)


def _refusal(error: OSError) -> FirewallError:
    if error.errno == errno.EOPNOTSUPP:
        return FirewallError("this kernel cannot end TCP connections (CONFIG_INET_DIAG_DESTROY): end their programs")
    return FirewallError(f"connections cannot be listed or ended: {error.strerror or error}")


def _fits(address: IPAddress, wanted: IPAddress | None) -> bool:
    return wanted is None or address == _plain(wanted)


def _address(packed: bytes) -> IPAddress:
    return _plain(ipaddress.ip_address(packed))


def _plain(address: IPAddress) -> IPAddress:
    """An IPv4 address that is written as IPv6, as IPv4."""
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _flow(content: bytes) -> Flow | None:
    """The flow that an entry of connection tracking describes, of TCP or UDP."""
    said = dict(attributes(content[GENERIC.size :]))
    original, reply = _tuple(said.get(_ORIGINAL, b"")), _tuple(said.get(_REPLY, b""))
    if original is None or reply is None or 0 in {end.port for end in (*original[1:], *reply[1:])}:
        return None
    protocol, source, asked = original
    named = [
        (kind | (NESTED if kind == _ORIGINAL else 0), said[kind]) for kind in (_ORIGINAL, _ID, _ZONE) if kind in said
    ]
    key = b"".join(attribute(kind, value) for kind, value in named)
    return Flow(protocol, source, asked, reply[1], key, _is_established(protocol, said), _began(said))


def _is_established(protocol: Protocol, said: Mapping[int, bytes]) -> bool:
    if protocol is not Protocol.TCP:
        return bool(int.from_bytes(said.get(_STATUS, b""), "big") & _SEEN_REPLY)
    state = dict(attributes(dict(attributes(said.get(_PROTOCOL_STATE, b""))).get(_TCP, b"")))
    return state.get(_TCP_STATE, b"")[:1] == bytes([_ESTABLISHED])


def _began(said: Mapping[int, bytes]) -> float | None:
    nanoseconds = dict(attributes(said.get(_TIMES, b""))).get(_START, b"")[:8]
    return int.from_bytes(nanoseconds, "big") / 1e9 if nanoseconds else None


def _source(content: bytes) -> IPAddress | None:
    """The address that began the flow of an entry, which the kernel writes first."""
    _, original, _, ip, length, _ = _FIRST.unpack_from(content, GENERIC.size)
    if (original, ip) != (_ORIGINAL | NESTED, _IP | NESTED):
        return None
    begin = GENERIC.size + _FIRST.size
    return _address(content[begin : begin + length - ATTRIBUTE.size])


def _tuple(content: bytes) -> tuple[Protocol, End, End] | None:
    parts = dict(attributes(content))
    addresses, ports = dict(attributes(parts.get(_IP, b""))), dict(attributes(parts.get(_PROTO, b"")))
    ends = [addresses[kind] for kind in sorted(addresses)]  # source before destination, in both families
    numbers = [int.from_bytes(ports.get(kind, b""), "big") for kind in (_NUMBER, _FROM_PORT, _TO_PORT)]
    if len(ends) != 2 or numbers[0] not in list(Protocol):  # noqa: PLR2004  two ends
        return None
    source, target = (End(_address(packed), port) for packed, port in zip(ends, numbers[1:], strict=True))
    return Protocol(numbers[0]), source, target


def _done(kernel: socket.socket, kind: int, body: bytes) -> bool:
    """Whether the kernel did something, which may have been done before."""
    try:
        list(netlink.ask(kernel, kind, body, ACKNOWLEDGE))
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return False
    return True
