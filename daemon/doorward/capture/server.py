"""The sockets of our own servers: bound to a port on every address of the host, one socket a family."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Final

from doorward.errors import CaptureError, NoSocketsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Bind = Callable[[socket.socket, tuple[str, int]], None]

ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104  every address of the host is meant
_NAMES: Final = {socket.SOCK_DGRAM: "UDP", socket.SOCK_STREAM: "TCP"}


def serve(kind: socket.SocketKind, port: int, addresses: Sequence[str], bind: Bind) -> tuple[socket.socket, ...]:
    """Non-blocking sockets, bound by `bind`; a kernel without IPv6 gives one.

    Raises:
        CaptureError: the port is taken or forbidden.
        NoSocketsError: this process can open no IP socket.
    """
    with contextlib.ExitStack() as stack:
        found = (_opened(kind, (host, port), bind) for host in addresses)
        opened = [stack.enter_context(one) for one in found if one is not None]
        if not opened:
            msg = f"no {_NAMES[kind]} server on port {port}: this unit allows no IP sockets, or the kernel has none"
            raise NoSocketsError(msg)
        stack.pop_all()
    return tuple(opened)


def _opened(kind: socket.SocketKind, place: tuple[str, int], bind: Bind) -> socket.socket | None:
    """The bound socket of one family; None if the kernel lacks the family."""
    v6 = ":" in place[0]
    try:
        opened = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    try:
        if v6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bind(opened, place)
    except OSError as error:
        opened.close()
        if v6 and error.errno == errno.EADDRNOTAVAIL:  # IPv6 is switched off
            return None
        msg = f"no {_NAMES[kind]} server on port {place[1]}: {error.strerror}"
        raise CaptureError(msg) from error
    return opened
