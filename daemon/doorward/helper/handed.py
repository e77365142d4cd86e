"""UDP sockets that the service manager has opened for the helper (doorward-udp.socket), and keeps open.

The helper of a unit needs no leave to open IP sockets then, and the port stays bound while the daemon is restarted.
Without a server nobody reads them: they let no packet wait.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.capture import udp
from doorward.capture.server import ANYWHERE
from doorward.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNIT: Final = "doorward-udp.socket"
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_HAS_IPV6: Final = Path("/proc/net/if_inet6")


class Handed:
    """The sockets of one helper; a helper that was started manually has none."""

    def __init__(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Own these sockets."""
        self._sockets = tuple(sockets)
        for one in self._sockets:
            one.set_inheritable(False)

    def serve(self, port: int) -> tuple[socket.socket, ...]:
        """The sockets of a server on this port, ready to be read; none where they do not hear all that it has to.

        Raises:
            CaptureError: the kernel refuses the filter.
        """
        if not self._suit(port):
            return ()
        try:
            for one in self._sockets:
                udp.begin(one)
        except OSError as error:
            msg = f"no UDP server on port {port}: {error.strerror}"
            raise CaptureError(msg) from error
        return self._sockets

    def rest(self) -> None:
        """Have nobody read them."""
        for one in self._sockets:
            with suppress(OSError):  # then some packets wait for nobody
                udp.rest(one)

    def lack(self, port: int) -> str:
        """Why there is no server on this port, where the helper cannot open one itself."""
        found = sorted({int(one.getsockname()[1]) for one in self._sockets})
        if not found:
            return f"{UNIT} has opened no port (systemctl status {UNIT})"
        if found == [port]:
            return f"{UNIT} is not for every address of this host, IPv4 and IPv6 apart"
        return f"{UNIT} is for UDP port {', '.join(map(str, found))}, not {port} (systemctl edit {UNIT})"

    def close(self) -> None:
        """Give the descriptors back; the service manager keeps its own, in which nothing waits."""
        for one in self._sockets:
            one.close()

    def _suit(self, port: int) -> bool:
        """Whether there is one socket a family, for this port on every address, as udp.serve() has them."""
        found = {one.family: one for one in self._sockets}
        places = {str(one.getsockname()[0]) for one in self._sockets}
        ports = {int(one.getsockname()[1]) for one in self._sockets}
        wanted = set(_FAMILIES if _HAS_IPV6.exists() else _FAMILIES[:1])
        if len(found) != len(self._sockets) or not wanted <= set(found) or ports != {port}:
            return False
        v6 = found.get(socket.AF_INET6)
        apart = v6 is None or bool(v6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        return apart and places <= set(ANYWHERE)


def udp_sockets(descriptors: Sequence[int]) -> tuple[list[socket.socket], list[socket.socket]]:
    """The bound UDP sockets among descriptors of the service manager, and all others."""
    opened = [socket.socket(fileno=one) for one in descriptors]
    ours = [one for one in opened if one.family in _FAMILIES and one.type == socket.SOCK_DGRAM]
    return ours, [one for one in opened if one not in ours]
