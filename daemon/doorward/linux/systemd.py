"""The service manager: the descriptors that it hands over, and the notifications that it takes.

Source: sd_listen_fds_with_names(3), sd_notify(3).
"""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


LISTEN_FDS_START: Final = 3
REFUSED: Final = "refused"
"""The first word of the status of a service whose last reload changed nothing."""
AS_OF: Final = "; the files are as of "
"""What stands in a status before the time of the last reload."""


def listen_fds(environment: Mapping[str, str]) -> dict[int, str]:
    """The descriptors handed over to this process, with their names; none without a service manager."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    return dict(zip(range(LISTEN_FDS_START, LISTEN_FDS_START + count), names, strict=False))


class Notifier:
    """A connected socket to the service manager, used by write(2): the listener's filter allows no send(2)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Connect to NOTIFY_SOCKET; without it, every call does nothing."""
        self._socket: socket.socket | None = None
        name = environment.get("NOTIFY_SOCKET", "")
        if name:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.connect("\0" + name[1:] if name.startswith("@") else name)

    def __call__(self, state: str) -> None:
        """Send a state such as `READY=1`."""
        if self._socket is not None:
            os.write(self._socket.fileno(), state.encode())

    def store(self, name: str, descriptor: int) -> None:
        """Have the service manager keep a descriptor for the next process of this service."""
        if self._socket is not None:
            passed = array.array("i", [descriptor])
            state = f"FDSTORE=1\nFDNAME={name}".encode()
            self._socket.sendmsg([state], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
