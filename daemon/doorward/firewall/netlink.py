"""What is asked of nftables without libnftables: its generation, and transactions that are ready to send.

Source: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h, net/netfilter/nfnetlink.c, netlink(7).
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import weakref
from typing import Final

from doorward.errors import FirewallError

SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, kind, flags, number, port
GENERIC: Final = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource
REQUEST, ACKNOWLEDGE = 1, 4  # NLM_F_REQUEST, NLM_F_ACK
NUMBER: Final = 1 << 31  # of every message of a transaction
_NETLINK_NETFILTER: Final = 12
_NEW, _GET = SUBSYSTEM << 8 | 15, SUBSYSTEM << 8 | 16  # NFT_MSG_NEWGEN, NFT_MSG_GETGEN
_ERROR: Final = 2  # NLMSG_ERROR; with error 0 it is the acknowledgement that was asked for
_ID: Final = struct.Struct("=HH")  # NFTA_GEN_ID comes first; its number is in network order
_COUNT: Final = struct.Struct("!I")
_CODE: Final = struct.Struct("=i")
_LARGEST: Final = 8192


class Netlink:
    """A socket to nftables. It stays in the network namespace it was made in.

    The kernel does its work within send(2): all that it has to say waits when that returns, and nothing here waits.
    """

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
        self._socket.setblocking(False)  # noqa: FBT003  its only argument
        self._close = weakref.finalize(self, self._socket.close)  # commands that ask once never close what they made
        self._numbers = itertools.count(1)
        self._drained = True

    def generation(self) -> int:
        """Return the number that every transaction of nftables raises by one, in this network namespace.

        Raises:
            FirewallError: the kernel does not say it.
        """
        wanted = next(self._numbers)
        body = GENERIC.pack(0, 0, 0)
        try:
            self._drain()
            self._socket.send(HEADER.pack(HEADER.size + len(body), _GET, REQUEST, wanted, 0) + body)
            while True:
                content = self._socket.recv(_LARGEST)
                _, kind, _, answered, _ = HEADER.unpack_from(content)
                if answered == wanted:
                    break
        except OSError as error:
            msg = f"nftables cannot be asked: {error.strerror or error}"
            raise FirewallError(msg) from error
        if kind != _NEW:
            msg = "nftables does not say how often it was changed"
            raise FirewallError(msg)
        return int(_COUNT.unpack_from(content, HEADER.size + GENERIC.size + _ID.size)[0])

    def run(self, transaction: bytes) -> None:
        """Send a transaction whose last message but the end asks for an acknowledgement.

        The kernel answers for the transaction as a whole where that fails, then for each message that failed, in their
        order; the acknowledgement is the last, and says nothing of the others.

        Raises:
            FirewallError: something failed, and nothing was changed; or nobody knows whether something was.
        """
        code = 0
        try:
            self._drain()
            self._drained = False
            self._socket.send(transaction)
            while answer := self._next_answer():
                _, kind, _, answered, _ = HEADER.unpack_from(answer)
                if (kind, answered) == (_ERROR, NUMBER):
                    (refused,) = _CODE.unpack_from(answer, HEADER.size)
                    if not refused and not code:
                        self._drained = True
                        return
                    code = code or -refused
        except OSError as error:
            msg = f"nftables cannot be told: {error.strerror or error}"
            raise FirewallError(msg) from error
        msg = f"nftables: {os.strerror(code) if code else 'no answer'}"
        raise FirewallError(msg)

    def _drain(self) -> None:
        """Take in what is left of the answers to a transaction that failed: it is no answer to the next one."""
        while not self._drained:
            self._drained = not self._rest()

    def _rest(self) -> bytes:
        """Return what _next_answer() returns, or a word for answers that found no room, which is told once."""
        try:
            return self._next_answer()
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return b"lost"

    def _next_answer(self) -> bytes:
        """Return the next answer that waits, nothing where none does."""
        try:
            return self._socket.recv(_LARGEST)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Give the socket back."""
        self._close()
