"""What a host says of the time, asked over NTP (RFC 5905)."""

from __future__ import annotations

import select
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.client.address import Endpoint
    from doorward.client.surroundings import Outside

OFF: Final = 60  # seconds; a packet is refused from 120 on by default, and the packet's way takes time too
NTP_PORT: Final = 123
_ASK: Final = 0x23  # version 4, mode 3: a client
_ANSWER: Final = 4  # the mode of a server
_MODE: Final = 7
_STRATA: Final = range(1, 16)  # 16 is a server that does not know the time itself
_PACKET: Final = struct.Struct("!BBBb11I")  # the header without extensions
_EPOCH: Final = 2_208_988_800  # seconds from 1900 to 1970
_ERA: Final = 1 << 32


class Question:
    """One question for the time, to a host's NTP server; most hosts have none, or hide it."""

    def __init__(self, host: Endpoint, outside: Outside) -> None:
        """Send it.

        Raises:
            OSError: it cannot be sent.
        """
        self._clock: Callable[[], float] = outside.clock
        self._cookie = outside.random_bytes(8)
        self._socket = host.open(socket.SOCK_DGRAM)
        try:
            self._socket.connect(host._replace(port=NTP_PORT).sockaddr)
            self._sent = self._clock()
            self._socket.send(bytes([_ASK]) + bytes(39) + self._cookie)
        except OSError:
            self._socket.close()
            raise

    def answer(self, seconds: float = 0) -> float | None:
        """The host's clock minus ours in seconds, waited for at most `seconds`; None without a good answer."""
        with self._socket:
            try:
                ready, _, _ = select.select([self._socket], [], [], seconds)
                content = self._socket.recv(_PACKET.size) if ready else b""
            except OSError:
                return None
            return self._difference(content, self._clock())

    def _difference(self, content: bytes, received: float) -> float | None:
        if len(content) < _PACKET.size or content[24:32] != self._cookie:
            return None
        first, stratum, *_, seconds, fraction = _PACKET.unpack(content)
        if first & _MODE != _ANSWER or stratum not in _STRATA:
            return None
        there: float = seconds + fraction / _ERA - _EPOCH
        half = _ERA / 2
        return (there - (self._sent + received) / 2 + half) % _ERA - half
