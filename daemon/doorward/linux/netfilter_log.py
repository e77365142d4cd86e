"""Packets that a rule of the packet filter logs to a netfilter group (NFLOG).

Source: linux/netfilter/nfnetlink_log.h, net/netfilter/nfnetlink_log.c. One socket reads a group; binding it needs
CAP_NET_ADMIN, reading it does not.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from doorward.errors import CaptureError
from doorward.linux.netlink import ACKNOWLEDGE, GENERIC, HEADER, REQUEST, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP: Final = 62201  # any number: one program reads each
HEADERS: Final = 80  # bytes of a packet that a rule logs: an IP header and the ports behind it
PREFIX: Final = "doorward "
RECEIVE_BUFFER: Final = 1 << 20  # bytes; some thousand packets
_NETFILTER: Final = 12  # NETLINK_NETFILTER
_SUBSYSTEM: Final = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIG = 0, 1  # NFULNL_MSG_*
_COMMAND, _MODE, _AT_ONCE = 1, 2, 5  # NFULA_CFG_*
_BIND: Final = 1  # NFULNL_CFG_CMD_BIND
_COPY: Final = struct.Struct("!IBx")  # struct nfulnl_msg_config_mode: how many bytes; NFULNL_COPY_PACKET
_PAYLOAD, _PREFIX = 9, 10  # NFULA_*
_LARGEST: Final = 8192
_CODE: Final = struct.Struct("=i")
_SECONDS: Final = 1.0  # the kernel answers at once
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h


def bound(group: int = GROUP) -> socket.socket:
    """A non-blocking socket that reads a group, each packet at once.

    Raises:
        CaptureError: another program reads the group, or the kernel has no such logging.
    """
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
    except OSError as error:
        raise _refusal(group, error) from error
    try:
        made.settimeout(_SECONDS)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        _ask(made, _request(group))
    except OSError as error:
        made.close()
        raise _refusal(group, error) from error
    made.setblocking(False)  # noqa: FBT003  its only argument
    return made


def _ask(made: socket.socket, request: bytes) -> None:
    made.send(request)
    (code,) = _CODE.unpack_from(made.recv(_LARGEST), HEADER.size)
    if code:
        raise OSError(-code, _words(-code))


def logged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The prefix of each packet in what a socket received, and its first bytes from the IP header on."""
    offset = 0
    while offset + HEADER.size <= len(content):
        length, kind, *_ = HEADER.unpack_from(content, offset)
        if length < HEADER.size:
            return
        if kind == _SUBSYSTEM | _PACKET:
            found = dict(attributes(content[offset + HEADER.size + GENERIC.size : offset + length]))
            yield found.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace"), found.get(_PAYLOAD, b"")
        offset += (length + 3) & ~3


def _request(group: int) -> bytes:
    """The message that binds a group, with the first bytes of each packet."""
    body = GENERIC.pack(0, 0, group) + b"".join(
        (
            attribute(_COMMAND, bytes([_BIND])),
            attribute(_MODE, _COPY.pack(HEADERS, 2)),
            attribute(_AT_ONCE, struct.pack("!I", 1)),
        )
    )
    kind, flags = _SUBSYSTEM | _CONFIG, REQUEST | ACKNOWLEDGE
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body


def _words(code: int) -> str:
    if code in {errno.EBUSY, errno.EPERM}:
        return "another program reads it, or CAP_NET_ADMIN is missing"
    return os.strerror(code)


def _refusal(group: int, error: OSError) -> CaptureError:
    return CaptureError(
        f"SEQUENCE: netfilter group {group} cannot be read ({error.strerror or error}): "
        "the kernel's module nfnetlink_log hears of sequences, and one doorwardd in a network namespace"
    )
