"""Packets that the kernel dropped because a socket's receive buffer had no room for them."""

from __future__ import annotations

import socket
import struct
from typing import Final

SO_MEMINFO: Final = 55  # asm-generic/socket.h, Linux 4.12
_MEMINFO: Final = struct.Struct("=9I")  # linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC, RCVBUF, …, DROPS


class Drops:
    """The drops of one socket since this was made."""

    __slots__ = ("_dropped", "_filtered", "_seen", "_socket")

    def __init__(self, opened: socket.socket, *, filtered: bool = False) -> None:
        """Watch a socket. With `filtered` the kernel's counter includes packets that the filter refused, as for UDP.

        The counter's growth then counts only while the buffer is more than half full, so look() often under load.
        """
        self._socket = opened
        self._filtered = filtered
        self._dropped = 0
        self._seen = self._meminfo()[2]

    def look(self) -> None:
        """Count the drops since the last look."""
        used, limit, drops = self._meminfo()
        if not self._filtered or used > limit // 2:
            self._dropped += (drops - self._seen) % (1 << 32)
        self._seen = drops

    def take(self) -> int:
        """The packets dropped since the last call."""
        self.look()
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _meminfo(self) -> tuple[int, int, int]:
        """The bytes in the receive buffer, its size, and the kernel's counter of drops."""
        found = _MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size))
        return found[0], found[1], found[8]
