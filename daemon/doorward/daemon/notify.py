"""sd_notify(3): tell the service manager how it stands, where there is one."""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """A connected socket to the service manager; it is only written to, which the system call filter leaves us."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Connect to the socket that NOTIFY_SOCKET names; without one, every call does nothing."""
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
        """Have the service manager keep a descriptor, and hand it to whoever is started after us."""
        if self._socket is not None:
            passed = array.array("i", [descriptor])
            told = f"FDSTORE=1\nFDNAME={name}".encode()
            self._socket.sendmsg([told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
