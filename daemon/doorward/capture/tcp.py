"""A TCP server that only reads: bounded in connections, bytes and time, so that no peer can block it.

An accepted connection could be answered, so the reader runs in a process that can write into one channel to the
listener and nowhere else (docs/decisions/0008). The listener has the channel alone.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from doorward.capture import Capture, bpf, http, server
from doorward.capture.server import ANYWHERE
from doorward.errors import CaptureError, HelperError, WireError
from doorward.linux.codec import Codec
from doorward.linux.seqpacket import MESSAGE_MAX
from doorward.values import Datagram, IPAddress, address, unmap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECTIONS_MAX: Final = 128  # at once; one more ends the oldest
PER_SOURCE_MAX: Final = 8  # at once from one IPv4 address or one IPv6 network of 64 bits
SECONDS: Final = 3.0  # from accepting to closing
BACKLOG: Final = 128
_ACCEPTED_MAX: Final = 32  # connections accepted before the existing ones are read
_READ: Final = 4096  # bytes
_LINGER: Final = struct.Struct("=ii")
_TCP: Final = 6


def serve(port: int, *, addresses: Sequence[str] = ANYWHERE) -> tuple[socket.socket, ...]:
    """Non-blocking listening sockets, one a family; a kernel without IPv6 gives one.

    Closing an accepted connection resets it, so a flood leaves no connections in TIME_WAIT.

    Raises:
        CaptureError: the port is taken or forbidden.
    """
    return server.serve(socket.SOCK_STREAM, port, addresses, _listen)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the peer of a connection sent."""

    origin: IPAddress
    destination: IPAddress
    origin_port: int
    destination_port: int
    content: bytes = b""

    def __post_init__(self) -> None:
        """Refuse more than REQUEST_MAX bytes."""
        if len(self.content) > http.REQUEST_MAX:
            msg = f"{len(self.content)} bytes, more than {http.REQUEST_MAX}"
            raise WireError(msg)


HEARD: Final = Codec[Heard](b"T", Heard)


@dataclass(slots=True)
class _Connection:
    """One peer that may send until `deadline` (monotonic seconds)."""

    socket: socket.socket
    source: bytes  # the key of the limit per source
    ends: Heard  # without content
    deadline: float
    content: bytearray = field(default_factory=bytearray)


class Reader:
    """Accepts, reads, and delivers the bytes of each peer; it never sends."""

    def __init__(
        self, listening: Sequence[socket.socket], deliver: Callable[[Heard], None], clock: Callable[[], float]
    ) -> None:
        """Read from listening non-blocking sockets; `deliver` is called once a connection."""
        self._listening = {one.fileno(): one for one in listening}
        self._deliver = deliver
        self._clock = clock
        self._open: dict[int, _Connection] = {}  # in the order of their deadlines
        self._epoll = select.epoll()
        for descriptor in self._listening:
            self._epoll.register(descriptor, select.EPOLLIN)

    def step(self) -> None:
        """Wait for events and handle them."""
        for descriptor, _ in self._epoll.poll(self._patience()):
            if descriptor in self._listening:
                self._accept(self._listening[descriptor])
            elif descriptor in self._open:
                self._read(self._open[descriptor])
        now = self._clock()
        while self._open and (oldest := next(iter(self._open.values()))).deadline <= now:
            self._finish(oldest)

    def _patience(self) -> float:
        """The seconds to wait at most; -1 is for ever."""
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
        """Begin to read a connection; if there are too many the oldest one ends: its knock has arrived long ago."""
        ends = Heard(_address(origin[0]), _address(destination[0]), origin[1], destination[1])
        source = ends.origin.packed[:8]
        others = [one for one in self._open.values() if one.source == source]
        if len(others) >= PER_SOURCE_MAX:
            self._finish(others[0])
        elif len(self._open) >= CONNECTIONS_MAX:
            self._finish(next(iter(self._open.values())))
        connection = _Connection(accepted, source, ends, self._clock() + SECONDS)
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
        """Deliver the bytes, unless they are too short for a knock, and reset the connection."""
        del self._open[connection.socket.fileno()]
        connection.socket.close()
        if len(connection.content) >= bpf.PAYLOAD_MIN:
            self._deliver(replace(connection.ends, content=bytes(connection.content)))


class TcpCapture(Capture):
    """See capture.Capture: the listener's end of a Reader's channel."""

    def __init__(self, channel: socket.socket) -> None:
        """Take over this SEQPACKET socket."""
        self._channel = channel

    def fileno(self) -> int:
        """The channel's descriptor."""
        return self._channel.fileno()

    def receive(self) -> Datagram | None:
        """See capture.Capture."""
        try:
            heard = HEARD.decode(self._channel.recv(MESSAGE_MAX + 1, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None
        except (OSError, HelperError) as error:
            msg = f"the reader of TCP connections: {error}"
            raise CaptureError(msg) from error
        origin, destination = heard.origin.packed, heard.destination.packed
        return Datagram(heard.content, origin, destination, heard.origin_port, heard.destination_port, _TCP)

    def close(self) -> None:
        """See capture.Capture."""
        self._channel.close()


def _address(text: str) -> IPAddress:
    """An address of a socket, without its zone."""
    return address(unmap(ipaddress.ip_address(text.partition("%")[0]).packed))


def _listen(opened: socket.socket, place: tuple[str, int]) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))  # accepted sockets inherit it
    opened.bind(place)
    opened.listen(BACKLOG)
