"""The number that every transaction of nftables raises by one, in this network namespace.

Source: linux/netfilter/nf_tables.h (NFT_MSG_GETGEN), linux/netfilter/nfnetlink.h, netlink(7).
"""

from __future__ import annotations

import itertools
import socket
import struct
import weakref
from typing import Final

from doorward.errors import FirewallError

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEW, _GET = _SUBSYSTEM | 15, _SUBSYSTEM | 16  # NFT_MSG_NEWGEN, NFT_MSG_GETGEN
_REQUEST: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct("=BBH")
_ID: Final = struct.Struct("=HH")  # NFTA_GEN_ID comes first; its number is in network order
_NUMBER: Final = struct.Struct("!I")
_DEADLINE: Final = 2.0  # seconds until the kernel has answered
_LARGEST: Final = 8192


class Generation:
    """A netlink socket that asks for the number. It stays in the network namespace it was made in."""

    def __init__(self) -> None:
        """Open the socket.

        Raises:
            FirewallError: no netlink here.
        """
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        except OSError as error:
            msg = f"nftables cannot be asked: {error.strerror}"
            raise FirewallError(msg) from error
        self._socket.settimeout(_DEADLINE)
        self._close = weakref.finalize(self, self._socket.close)  # commands that ask once never close what they made
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """Return the number as it is now.

        Raises:
            FirewallError: the kernel does not say it.
        """
        wanted = next(self._numbers)
        body = _GENERIC.pack(0, 0, 0)
        try:
            self._socket.send(_HEADER.pack(_HEADER.size + len(body), _GET, _REQUEST, wanted, 0) + body)
            while True:
                content = self._socket.recv(_LARGEST)
                _, kind, _, answered, _ = _HEADER.unpack_from(content)
                if answered == wanted:
                    break
        except OSError as error:
            msg = f"nftables cannot be asked: {error.strerror or error}"
            raise FirewallError(msg) from error
        if kind != _NEW:
            msg = "nftables does not say how often it was changed"
            raise FirewallError(msg)
        return int(_NUMBER.unpack_from(content, _HEADER.size + _GENERIC.size + _ID.size)[0])

    def close(self) -> None:
        """Give the socket back."""
        self._close()
