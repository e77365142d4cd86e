"""A UDP server: for hosts that have no packet sockets, or where only one socket shall hear knocks.

The socket is opened by whoever has the power, and can only be read where seccomp forbids connect(2) and sendto(2):
without a peer, write(2) on it has nowhere to go.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import TYPE_CHECKING, Final

from doorward.capture import bpf
from doorward.capture.packet import RECEIVE_BUFFER, attach, enlarge
from doorward.errors import CaptureError
from doorward.values import Datagram

if TYPE_CHECKING:
    from collections.abc import Sequence

_IP_PKTINFO: Final = 8  # linux/in.h
_SO_LOCK_FILTER: Final = 44  # asm-generic/socket.h
_PKTINFO4: Final = struct.Struct("=i4s4s")  # struct in_pktinfo: interface, local address, the header's destination
_PKTINFO6: Final = struct.Struct("=16si")  # struct in6_pktinfo: destination, interface
_ANCILLARY: Final = 128  # bytes, more than either needs
_LONGEST: Final = 2048
_PASSED_OVER_MAX: Final = 64  # what is no datagram for us; then the loop may do something else
_MAPPED: Final = bytes(10) + b"\xff\xff"


def serve(port: int, *, addresses: Sequence[str] = ("0.0.0.0", "::")) -> tuple[socket.socket, ...]:  # noqa: S104  every address of the host is meant
    """Return non-blocking sockets bound to a port, one a family; a kernel without IPv6 gives one.

    Raises:
        CaptureError: the port is taken or may not be had.
    """
    with contextlib.ExitStack() as stack:
        opened = []
        for address in addresses:
            one = _open(address, port)
            if one is not None:
                opened.append(stack.enter_context(one))
        if not opened:
            msg = f"no UDP server on port {port}: this kernel has neither IPv4 nor IPv6"
            raise CaptureError(msg)
        stack.pop_all()
    return tuple(opened)


class UdpCapture:
    """See capture.Capture: reads the socket of serve(), in whichever process, and does nothing else to it."""

    ended = False

    def __init__(self, opened: socket.socket) -> None:
        """Read this non-blocking socket, which belongs to the capture from here on."""
        self._socket = opened
        self._port = int(opened.getsockname()[1])

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def receive(self) -> Datagram | None:
        """See capture.Capture; after many that are none of ours, None, though more may wait."""
        for _ in range(_PASSED_OVER_MAX):
            try:
                payload, ancillary, flags, origin = self._socket.recvmsg(_LONGEST, _ANCILLARY)
            except BlockingIOError:
                return None
            except OSError as error:
                raise CaptureError(str(error)) from error
            destination = _destination(ancillary)
            if destination is not None and not flags & socket.MSG_TRUNC:
                sender = socket.inet_pton(self._socket.family, origin[0].partition("%")[0])
                if not sender.startswith(_MAPPED):
                    return Datagram(payload, sender, destination, origin[1], self._port)
        return None

    def close(self) -> None:
        """See capture.Capture."""
        self._socket.close()


def _destination(ancillary: list[tuple[int, int, bytes]]) -> bytes | None:
    """Return the packed address that a datagram was sent to."""
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(packed) == _PKTINFO4.size:
            return bytes(_PKTINFO4.unpack(packed)[2])
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(packed) == _PKTINFO6.size:
            return bytes(_PKTINFO6.unpack(packed)[0])
    return None


def _open(address: str, port: int) -> socket.socket | None:
    """Return the bound socket of one family, its filter in place and locked, or None where there is no such family."""
    v6 = ":" in address
    try:
        opened = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    try:
        attach(opened, bpf.datagrams())
        opened.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
        enlarge(opened, RECEIVE_BUFFER)
        if v6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        opened.bind((address, port))
    except OSError as error:
        opened.close()
        if v6 and error.errno == errno.EADDRNOTAVAIL:  # IPv6 is switched off
            return None
        msg = f"no UDP server on port {port}: {error.strerror}"
        raise CaptureError(msg) from error
    return opened
