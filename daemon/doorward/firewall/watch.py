"""Hearing through netlink that a table, or something in one, goes.

Source: linux/netfilter/nfnetlink.h, nf_tables.h, netlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from doorward.firewall import ruleset

_NETLINK_NETFILTER: Final = 12
_GROUP_NFTABLES: Final = 1 << (7 - 1)  # NFNLGRP_NFTABLES
_SUBSYSTEM: Final = 10 << 8  # NFNL_SUBSYS_NFTABLES
_DELETED: Final = frozenset(
    {_SUBSYSTEM | 2, _SUBSYSTEM | 5, _SUBSYSTEM | 8, _SUBSYSTEM | 11}
)  # table, chain, rule, set
_DELETED_ELEMENT: Final = _SUBSYSTEM | 14  # NFT_MSG_DELSETELEM: of every renewed grant too, so only one set counts
_GUARDED: Final = ruleset.GUARDED_SET.encode("ascii") + b"\0"
_HEADER: Final = struct.Struct("=IHHII")
_LARGEST: Final = 65536


class TableWatch:
    """A netlink socket that hears every change of nftables in this network namespace."""

    def __init__(self) -> None:
        """Begin to listen."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, _GROUP_NFTABLES))
        self._socket.settimeout(0)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def saw_something_go(self) -> bool:
        """Take in what was heard and say whether something was deleted, of whatever table, that could be of ours.

        Where something was missed, say so too.
        """
        gone = False
        while (heard := self._hear()) is not None:
            gone |= heard
        return gone

    def _hear(self) -> bool | None:
        """Return whether one message tells of a deletion, or None where no more waits."""
        try:
            return _names_a_deletion(self._socket.recv(_LARGEST))
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # ENOBUFS: more happened than fits
                raise
            return True


def _names_a_deletion(content: bytes) -> bool:
    """Say whether one of the messages in `content` tells of a deletion that counts."""
    offset = 0
    while offset + _HEADER.size <= len(content):
        length, kind, *_ = _HEADER.unpack_from(content, offset)
        if kind in _DELETED or (kind == _DELETED_ELEMENT and _GUARDED in content[offset : offset + length]):
            return True
        if length < _HEADER.size:
            break
        offset += (length + 3) & ~3
    return False
