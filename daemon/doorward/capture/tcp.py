"""A TCP server that only reads: bounded in connections, bytes and time, so that no peer can hold it up.

Accepting a connection gives a socket that could answer, so the reader of this module lives in a process that can write
nowhere but into one channel to the listener (docs/decisions/0008). The listener has the channel alone.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from doorward.capture import bpf, http
from doorward.errors import CaptureError
from doorward.values import Datagram, unmap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECTIONS_MAX: Final = 128  # at once; one more ends the oldest
PER_SOURCE_MAX: Final = 8  # at once from one IPv4 address or one IPv6 network of 64 bits
SECONDS: Final = 3.0  # from accepting to closing
BACKLOG: Final = 128
_ACCEPTED_MAX: Final = 32  # connections accepted before those that are there have their turn
_READ: Final = 4096  # bytes
_LINGER: Final = struct.Struct("=ii")
_RECORD: Final = struct.Struct("!16s16sHH")  # origin and destination (IPv4 mapped), their ports; the content follows
_MAPPED: Final = bytes(10) + b"\xff\xff"
_TCP: Final = 6
_RECORD_MAX: Final = _RECORD.size + http.REQUEST_MAX


def serve(port: int, *, addresses: Sequence[str] = ("0.0.0.0", "::")) -> tuple[socket.socket, ...]:  # noqa: S104  every address of the host is meant
    """Return non-blocking listening sockets, one a family; a kernel without IPv6 gives one.

    What they accept is reset when it is closed: a flood leaves no connections behind that wait for their end.

    Raises:
        CaptureError: the port is taken or may not be had.
    """
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(one) for one in (_open(address, port) for address in addresses) if one]
        if not opened:
            msg = f"no TCP server on port {port}: this kernel has neither IPv4 nor IPv6"
            raise CaptureError(msg)
        stack.pop_all()
    return tuple(opened)


@dataclass(slots=True)
class _Connection:
    """One peer that may still say something until `deadline` (monotonic seconds)."""

    socket: socket.socket
    source: bytes  # what the bound per source counts
    head: bytes  # the record without the content
    deadline: float
    content: bytearray = field(default_factory=bytearray)


class Reader:
    """Accepts, reads and hands over what each peer sent; it never sends a byte."""

    def __init__(
        self, listening: Sequence[socket.socket], deliver: Callable[[bytes], None], clock: Callable[[], float]
    ) -> None:
        """Read from listening non-blocking sockets; `deliver` takes one record a connection."""
        self._listening = {one.fileno(): one for one in listening}
        self._deliver = deliver
        self._clock = clock
        self._open: dict[int, _Connection] = {}  # in the order of their deadlines
        self._epoll = select.epoll()
        for descriptor in self._listening:
            self._epoll.register(descriptor, select.EPOLLIN)

    def step(self) -> None:
        """Wait until something happens, and do what it asks for."""
        for descriptor, _ in self._epoll.poll(self._patience()):
            if descriptor in self._listening:
                self._accept(self._listening[descriptor])
            elif descriptor in self._open:
                self._read(self._open[descriptor])
        now = self._clock()
        while self._open and (oldest := next(iter(self._open.values()))).deadline <= now:
            self._finish(oldest)

    def _patience(self) -> float:
        """Return how long there is nothing to do but to wait, in seconds; -1 is for ever."""
        if not self._open:
            return -1
        return max(0.0, next(iter(self._open.values())).deadline - self._clock())

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_MAX):
            try:
                accepted, origin = listening.accept()
                destination = accepted.getsockname()
            except BlockingIOError:
                return
            except OSError:  # it is gone already
                continue
            self._admit(accepted, origin, destination)

    def _admit(self, accepted: socket.socket, origin: tuple[str, int], destination: tuple[str, int]) -> None:
        """Begin to read a connection; where there are too many, the oldest one ends: its knock is long here."""
        ends = [_packed(accepted.family, end[0]) for end in (origin, destination)]
        source = ends[0] if ends[0].startswith(_MAPPED) else ends[0][:8]
        others = [one for one in self._open.values() if one.source == source]
        if len(others) >= PER_SOURCE_MAX:
            self._finish(others[0])
        elif len(self._open) >= CONNECTIONS_MAX:
            self._finish(next(iter(self._open.values())))
        head = _RECORD.pack(*ends, origin[1], destination[1])
        connection = _Connection(accepted, source, head, self._clock() + SECONDS)
        self._open[accepted.fileno()] = connection
        self._epoll.register(accepted, select.EPOLLIN)
        self._read(connection)

    def _read(self, connection: _Connection) -> None:
        content = connection.content
        try:
            part = connection.socket.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        content += part
        if len(content) > http.REQUEST_MAX:
            content.clear()
        elif part and not http.is_whole(bytes(content)):
            return
        self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        """Hand over what was sent, unless it is too short for a knock, and reset the connection."""
        del self._open[connection.socket.fileno()]
        connection.socket.close()
        if len(connection.content) >= bpf.PAYLOAD_MIN:
            self._deliver(connection.head + connection.content)


class TcpCapture:
    """See capture.Capture: the listener's end of the channel that a Reader delivers into."""

    ended = False

    def __init__(self, channel: socket.socket) -> None:
        """Read this SEQPACKET socket, which belongs to the capture from here on."""
        self._channel = channel

    def fileno(self) -> int:
        """Return the channel's descriptor."""
        return self._channel.fileno()

    def receive(self) -> Datagram | None:
        """See capture.Capture."""
        try:
            record = self._channel.recv(_RECORD_MAX, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise CaptureError(str(error)) from error
        if len(record) < _RECORD.size:
            msg = "the reader of TCP connections is gone" if not record else "a record that is too short"
            raise CaptureError(msg)
        origin, destination, origin_port, port = _RECORD.unpack_from(record)
        return Datagram(record[_RECORD.size :], unmap(origin), unmap(destination), origin_port, port, _TCP)

    def close(self) -> None:
        """See capture.Capture."""
        self._channel.close()


def _packed(family: int, address: str) -> bytes:
    """Return the 16 bytes of an address as the socket gives it, IPv4 mapped."""
    packed = socket.inet_pton(family, address.partition("%")[0])
    return packed if family == socket.AF_INET6 else _MAPPED + packed


def _open(address: str, port: int) -> socket.socket | None:
    """Return the listening socket of one family, or None where there is no such family."""
    v6 = ":" in address
    try:
        opened = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))  # what is accepted inherits it
        if v6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        if v6 and error.errno == errno.EADDRNOTAVAIL:  # IPv6 is switched off
            return None
        msg = f"no TCP server on port {port}: {error.strerror}"
        raise CaptureError(msg) from error
    return opened
