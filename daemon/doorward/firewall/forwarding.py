"""Whether the kernel forwards packets, asked through netlink: the helper's unit hides /proc/sys.

Source: linux/rtnetlink.h, linux/netconf.h, rtnetlink(7).
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_ROUTE: Final = 0  # NETLINK_ROUTE
_GET: Final = 82  # RTM_GETNETCONF
_NEW: Final = 80  # RTM_NEWNETCONF
_REQUEST: Final = 1  # NLM_F_REQUEST
_INDEX, _FORWARDING = 1, 2  # NETCONFA_IFINDEX, NETCONFA_FORWARDING
_ALL: Final = -1  # NETCONFA_IFINDEX_ALL
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HHi")  # length, kind, value: all of them have four bytes
_FAMILY: Final = struct.Struct("=B3x")  # struct netconfmsg
_SECONDS: Final = 1.0  # the kernel answers at once


def forwards(family: socket.AddressFamily) -> bool | None:
    """Return whether packets of a family are forwarded in this network namespace; None where nobody knows."""
    body = _FAMILY.pack(family) + _ATTRIBUTE.pack(_ATTRIBUTE.size, _INDEX, _ALL)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE) as kernel:
            kernel.settimeout(_SECONDS)
            kernel.send(_HEADER.pack(_HEADER.size + len(body), _GET, _REQUEST, 1, 0) + body)
            answer = kernel.recv(4096)
    except OSError:
        return None
    return _forwarding(answer)


def _forwarding(answer: bytes) -> bool | None:
    """Return what one answer says; an error is none."""
    length, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _NEW:
        return None
    offset = _HEADER.size + _FAMILY.size
    while offset + _ATTRIBUTE.size <= min(length, len(answer)):
        size, name, value = _ATTRIBUTE.unpack_from(answer, offset)
        if name == _FORWARDING:
            return bool(value)
        offset += max(size, 4) + 3 & ~3
    return None
