"""A road between two namespaces with an address pair for each way, and the frames that arrive at its end."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from doorward.wire import fwknop
from interop.formats import PORT, WAYS
from system import netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

_ETH_P_ALL: Final = 3
_IPV4: Final = b"\x08\x00"  # the EtherType
_OUTGOING: Final = 4  # packet(7): sll_pkttype of what this host sends
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 256 << 20  # bytes, so that nothing is lost while both processors are busy
_LAST: Final = b"the last packet"
_LINKTYPE_ETHERNET: Final = 1


@contextlib.contextmanager
def road() -> Iterator[tuple[Namespace, Namespace]]:
    """Yield a host and a client; packets of a way come from its own address and go to its own."""
    with netns.network("host", "client") as (host, client):
        _batch(host, *(f"addr add {way.destination}/32 dev eth0" for way in WAYS), "route add 10.78.1.0/24 dev eth0")
        _batch(
            client,
            *(f"addr add {way.origin}/32 dev eth0" for way in WAYS),
            *(f"route add {way.destination}/32 dev eth0 src {way.origin}" for way in WAYS),
        )
        yield host, client


def _batch(where: Namespace, *commands: str) -> None:
    where.run("ip", "-batch", "-", input="\n".join(commands))


@dataclass
class Capture:
    """The IPv4 frames that have arrived at a host so far, and are long enough for a knock."""

    frames: list[bytes] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def take(self, arriving: socket.socket) -> None:
        """Collect what arrives until the last packet; runs in a thread of its own."""
        while True:
            frame, link = arriving.recvfrom(65535)
            if link[2] == _OUTGOING or frame[12:14] != _IPV4:
                continue
            if _LAST in frame:
                self._ended.set()
                return
            if len(frame) > fwknop.PAYLOAD_MIN:  # the rest are handshakes
                self.frames.append(frame)

    def end(self, host: Namespace, client: Namespace) -> None:
        """Wait until all that was sent before has arrived."""
        with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(_LAST, (host.ipv4, 9))
        assert self._ended.wait(60), "the last packet has not arrived"

    def write(self, path: Path) -> Path:
        """Write a pcap file, as tcpdump does, and return where it is."""
        head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _LINKTYPE_ETHERNET)
        packets = (struct.pack("=IIII", 1, 0, len(frame), len(frame)) + frame for frame in self.frames)
        path.write_bytes(head + b"".join(packets))
        return path


@contextlib.contextmanager
def capture(host: Namespace) -> Iterator[Capture]:
    """Yield the frames that arrive at a host's eth0 while the block runs."""
    with host.inside():
        arriving = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    with arriving:
        arriving.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        arriving.bind(("eth0", _ETH_P_ALL))
        taken = Capture()
        reader = threading.Thread(target=taken.take, args=(arriving,), daemon=True)
        reader.start()
        yield taken
        reader.join(10)


@contextlib.contextmanager
def acceptor(host: Namespace) -> Iterator[None]:
    """Accept TCP connections at the knocks' port and read them to their end, as fwknopd's TCP server does."""
    with host.inside():
        accepting = socket.create_server(("0.0.0.0", PORT), backlog=4096)  # noqa: S104  in a namespace

    def serve() -> None:
        while True:
            try:
                connection, _ = accepting.accept()
            except OSError:  # closed: the block has ended
                return
            with connection, contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield
    finally:
        accepting.shutdown(socket.SHUT_RDWR)
        accepting.close()
        server.join(10)
