"""sd_notify(3): tell the service manager how it stands, where there is one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def notify(environment: Mapping[str, str], state: str) -> None:
    """Send a state such as `READY=1` to the socket that NOTIFY_SOCKET names; without one, do nothing."""
    name = environment.get("NOTIFY_SOCKET", "")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(state.encode(), address)
