"""One payload onto the network."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doorward.client.address import Endpoint


def send(payload: bytes, to: Endpoint, source_port: int | None = None) -> int:
    """Send one UDP datagram and return the number of bytes; the port is the system's choice where none is given.

    Raises:
        OSError: no route, the source port is taken, or the packet filter of this machine forbids it.
    """
    with socket.socket(to.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        if source_port is not None:
            sender.bind(("", source_port))
        sender.connect(to.sockaddr)
        return sender.send(payload)
