"""A UDP server: for hosts without packet sockets, or where one socket alone should hear knocks.

The helper opens the socket, or its service manager has (helper/handed.py). In the listener, whose seccomp filter
forbids connect(2) and sendto(2), it can only be read: without a peer write(2) sends nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from doorward.capture import PASSED_OVER_MAX, Capture, bpf, server
from doorward.capture.packet import LONGEST, RECEIVE_BUFFER, attach, enlarge
from doorward.capture.room import Drops
from doorward.capture.server import ANYWHERE
from doorward.errors import CaptureError
from doorward.values import Datagram

if TYPE_CHECKING:
    from collections.abc import Sequence

_IP_PKTINFO: Final = 8  # linux/in.h
_SO_LOCK_FILTER: Final = 44  # asm-generic/socket.h
_DESTINATIONS: Final = {
    int(socket.AF_INET): (socket.IPPROTO_IP, _IP_PKTINFO),
    int(socket.AF_INET6): (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}
_PKTINFO4: Final = struct.Struct("=i4s4s")  # struct in_pktinfo: interface, local address, the header's destination
_PKTINFO6: Final = struct.Struct("=16si")  # struct in6_pktinfo: destination, interface
_ANCILLARY: Final = 128  # bytes, more than either needs
_LOOK: Final = 64  # datagrams between two looks at the drops, some hundredths of the buffer
_MAPPED: Final = bytes(10) + b"\xff\xff"


def serve(port: int, *, addresses: Sequence[str] = ANYWHERE) -> tuple[socket.socket, ...]:
    """Non-blocking sockets bound to a port, one a family; a kernel without IPv6 gives one.

    Raises:
        CaptureError: the port is taken or forbidden.
    """
    return server.serve(socket.SOCK_DGRAM, port, addresses, _bind)


def begin(opened: socket.socket) -> None:
    """Serve on a bound socket of the service manager, which outlives this process: its filter cannot be locked.

    What has waited in a socket that another process of ours served on stays: knocks of a restart are answered.
    """
    if not _asks_for_destinations(opened):
        rest(opened)
    _prepare(opened)
    os.set_blocking(opened.fileno(), False)
    attach(opened, bpf.datagrams())


def rest(opened: socket.socket) -> None:
    """Let nothing wait in a bound socket that nobody reads."""
    attach(opened, bpf.nothing())
    with contextlib.suppress(BlockingIOError):
        while True:
            opened.recv(1, socket.MSG_DONTWAIT)


class UdpCapture(Capture):
    """See capture.Capture: reads the socket of serve(), in any process, and changes nothing about it."""

    def __init__(self, opened: socket.socket) -> None:
        """Take over this non-blocking socket."""
        self._socket = opened
        self._port = int(opened.getsockname()[1])
        self._drops = Drops(opened, filtered=True)
        self._unlooked = 0

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def receive(self) -> Datagram | None:
        """See capture.Capture. None also after many datagrams that are not for us, though more may wait."""
        self._unlooked -= 1
        if self._unlooked < 0:
            self._drops.look()
            self._unlooked = _LOOK
        for _ in range(PASSED_OVER_MAX):
            try:
                payload, ancillary, flags, origin = self._socket.recvmsg(LONGEST, _ANCILLARY)
            except BlockingIOError:
                self._unlooked = 0  # the next datagrams may be a burst that fills the buffer
                return None
            except OSError as error:
                raise CaptureError(str(error)) from error
            destination = _destination(ancillary)
            if destination is not None and not flags & socket.MSG_TRUNC:
                sender = socket.inet_pton(self._socket.family, origin[0].partition("%")[0])
                if not sender.startswith(_MAPPED):
                    return Datagram(payload, sender, destination, origin[1], self._port)
        return None

    def take_dropped(self) -> int:
        """See capture.Capture."""
        return self._drops.take()

    def close(self) -> None:
        """See capture.Capture."""
        self._socket.close()


def _destination(ancillary: list[tuple[int, int, bytes]]) -> bytes | None:
    """The packed address that a datagram was sent to."""
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(packed) == _PKTINFO4.size:
            return bytes(_PKTINFO4.unpack(packed)[2])
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(packed) == _PKTINFO6.size:
            return bytes(_PKTINFO6.unpack(packed)[0])
    return None


def _bind(opened: socket.socket, place: tuple[str, int]) -> None:
    """Bind a socket with its filter attached and locked."""
    attach(opened, bpf.datagrams())
    opened.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
    _prepare(opened)
    opened.bind(place)


def _prepare(opened: socket.socket) -> None:
    """Make room in a socket, and have each packet come with its destination."""
    enlarge(opened, RECEIVE_BUFFER)
    opened.setsockopt(*_DESTINATIONS[opened.family], 1)


def _asks_for_destinations(opened: socket.socket) -> bool:
    """Whether _prepare() was done to a socket, by this process or an earlier one."""
    return bool(opened.getsockopt(*_DESTINATIONS[opened.family]))
