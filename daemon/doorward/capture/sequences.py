"""The last steps of sequences of ports: the kernel has counted the others (firewall/sequences.py).

The helper opens the socket. Here it can only be read: binding another group needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from doorward.capture import PASSED_OVER_MAX, Capture
from doorward.capture.room import Drops
from doorward.errors import CaptureError
from doorward.linux import netfilter_log
from doorward.values import Completed

if TYPE_CHECKING:
    import socket

_LARGEST: Final = 8192  # bytes; a message of one packet has some 300
_TCP, _UDP = 6, 17
_IPV4_HEADER, _IPV6_HEADER, _PORTS = 20, 40, 4  # bytes


class SequenceCapture(Capture):
    """See capture.Capture: reads a netfilter group, in any process, and changes nothing about it."""

    def __init__(self, opened: socket.socket) -> None:
        """Take over this non-blocking socket."""
        self._socket = opened
        self._drops = Drops(opened)
        self._waiting: list[Completed] = []

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def receive(self) -> Completed | None:
        """See capture.Capture."""
        for _ in range(PASSED_OVER_MAX):
            if self._waiting:
                return self._waiting.pop(0)
            try:
                content, (sender, _) = self._socket.recvfrom(_LARGEST)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # some were dropped, and are counted
                    continue
                raise CaptureError(str(error)) from error
            if sender == 0:  # the kernel
                self._waiting = [one for said in netfilter_log.logged(content) if (one := completed(*said)) is not None]
        return None

    def take_dropped(self) -> int:
        """See capture.Capture."""
        return self._drops.take()

    def close(self) -> None:
        """See capture.Capture."""
        self._socket.close()


def completed(prefix: str, packet: bytes) -> Completed | None:
    """The last step of a sequence in a packet's first bytes, None where they are none."""
    if not prefix.startswith(netfilter_log.PREFIX):
        return None
    mark = prefix.removeprefix(netfilter_log.PREFIX).encode()
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _IPV4_HEADER:  # noqa: PLR2004  IPv4
        ends, protocol, start = (packet[12:16], packet[16:20]), packet[9], (packet[0] & 15) << 2
    elif version == 6 and len(packet) >= _IPV6_HEADER:  # noqa: PLR2004  IPv6
        ends, protocol, start = (packet[8:24], packet[24:40]), packet[6], _IPV6_HEADER
    else:
        return None
    ports = packet[start : start + _PORTS]
    known = protocol in {_TCP, _UDP} and len(ports) == _PORTS  # not behind extension headers
    origin_port, port = (int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")) if known else (0, 0)
    return Completed(mark, *ends, origin_port, port, protocol)
