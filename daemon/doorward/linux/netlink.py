"""netlink(7): nftables transactions, dumps and notifications, and whether the kernel forwards packets.

Source: linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h, net/netfilter/nfnetlink.c,
linux/rtnetlink.h, linux/netconf.h.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import weakref
from contextlib import closing
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, kind, flags, number, port
GENERIC: Final = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource
ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, kind
NESTED: Final = 1 << 15  # NLA_F_NESTED
REQUEST, ACKNOWLEDGE, CREATE = 1, 4, 0x400  # NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE
NUMBER: Final = 1 << 31  # of every message of a transaction
# NFT_MSG_*
NEW_TABLE, LIST_TABLES, DELETE_TABLE = 0, 1, 2
NEW_CHAIN, LIST_CHAINS, DELETE_CHAIN = 3, 4, 5
NEW_RULE, LIST_RULES, DELETE_RULE = 6, 7, 8
NEW_SET, LIST_SETS, DELETE_SET = 9, 10, 11
NEW_ELEMENT, LIST_ELEMENTS, DELETE_ELEMENT = 12, 13, 14
_NEW_GENERATION, _GET_GENERATION = SUBSYSTEM << 8 | 15, SUBSYSTEM << 8 | 16
_BEGIN, _END = 16, 17  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
DUMP: Final = 0x300  # NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE; an error of 0 is the acknowledgement that was asked for
_ROUTE, _NETFILTER = 0, 12  # NETLINK_ROUTE, NETLINK_NETFILTER
CONNTRACK, SOCKETS, ROUTES = _NETFILTER, 4, _ROUTE  # NETLINK_SOCK_DIAG; what ask() can speak to
_GROUP_NFTABLES: Final = 1 << (7 - 1)  # NFNLGRP_NFTABLES
_KIND: Final = 0x3FFF  # NLA_TYPE_MASK
_ID: Final = struct.Struct("=HH")  # NFTA_GEN_ID comes first; its number is in network order
_COUNT: Final = struct.Struct("!I")
_CODE: Final = struct.Struct("=i")
_LARGEST: Final = 65536
_ANSWER: Final = 8192  # bytes of the largest answer that is no listing
_SECONDS: Final = 1.0  # the kernel answers at once
_UNSUPPORTED: Final = frozenset({errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP})
_GET_NETCONF, _NEW_NETCONF = 82, 80  # RTM_GETNETCONF, RTM_NEWNETCONF
_INDEX, _FORWARDING = 1, 2  # NETCONFA_IFINDEX, NETCONFA_FORWARDING
_ALL: Final = -1  # NETCONFA_IFINDEX_ALL
_FAMILY: Final = struct.Struct("=B3x")  # struct netconfmsg


def attribute(kind: int, *values: bytes) -> bytes:
    """One attribute with its padding."""
    value = b"".join(values)
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def text(kind: int, words: str) -> bytes:
    """An attribute that is a text."""
    return attribute(kind, words.encode(), b"\0")


def attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute; a length that cannot be ends them."""
    offset = 0
    while offset + ATTRIBUTE.size <= len(content):
        length, kind = ATTRIBUTE.unpack_from(content, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind & _KIND, content[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def message(kind: int, family: int, *body: bytes, flags: int = 0) -> bytes:
    """One message of a transaction of nftables."""
    length = HEADER.size + GENERIC.size + sum(map(len, body))
    head = HEADER.pack(length, SUBSYSTEM << 8 | kind, REQUEST | flags, NUMBER, 0) + GENERIC.pack(family, 0, 0)
    return b"".join((head, *body))


def _frame(kind: int) -> bytes:
    """The message that begins or ends a transaction."""
    return HEADER.pack(HEADER.size + GENERIC.size, kind, REQUEST, NUMBER, 0) + GENERIC.pack(0, 0, SUBSYSTEM)


FIRST, LAST = _frame(_BEGIN), _frame(_END)


class Netlink:
    """A socket to nftables. It stays in the network namespace it was made in.

    The kernel does its work within send(2): all its answers wait when that returns, and nothing here waits.
    """

    def __init__(self) -> None:
        """Open the socket.

        Raises:
            FirewallError: no netlink here.
        """
        self._socket = _opened()
        self._socket.setblocking(False)  # noqa: FBT003  its only argument
        self._close = weakref.finalize(self, self._socket.close)  # commands that ask once never close what they made
        self._numbers = itertools.count(1)
        self._drained = True

    def generation(self) -> int:
        """The number that every transaction of nftables raises by one, in this network namespace.

        Raises:
            FirewallError: the kernel does not say it.
        """
        wanted = next(self._numbers)
        body = GENERIC.pack(0, 0, 0)
        try:
            self._drain()
            self._socket.send(HEADER.pack(HEADER.size + len(body), _GET_GENERATION, REQUEST, wanted, 0) + body)
            while True:
                content = self._socket.recv(_ANSWER)
                _, kind, _, answered, _ = HEADER.unpack_from(content)
                if answered == wanted:
                    break
        except OSError as error:
            raise _refusal(error) from error
        if kind != _NEW_GENERATION:
            raise _refusal(_refused(content[HEADER.size :]))
        return int(_COUNT.unpack_from(content, HEADER.size + GENERIC.size + _ID.size)[0])

    def listed(self, kind: int, family: int = 0, *wanted: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
        """Family and attributes of each object of one kind (LIST_*), of those that are `wanted`; one listing at a time.

        Raises:
            FirewallError: the kernel refuses.
        """
        body = GENERIC.pack(family, 0, 0) + b"".join(wanted)
        request = HEADER.pack(HEADER.size + len(body), SUBSYSTEM << 8 | kind, REQUEST | DUMP, next(self._numbers), 0)
        try:
            self._drain()
            self._drained = False
            self._socket.send(request + body)
            while answer := self._socket.recv(_LARGEST):
                for found, content in _messages(answer):
                    if found == _DONE:
                        self._drained = True
                        return
                    if found == _ERROR:
                        raise _refused(content)
                    yield content[0], dict(attributes(content[GENERIC.size :]))
        except OSError as error:
            raise _refusal(error) from error

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
        """Take in the answers that are left of a failed transaction or a listing: they belong to no other question."""
        while not self._drained:
            self._drained = not self._rest()

    def _rest(self) -> bytes:
        """Like _next_answer(), or a word for answers that found no room, which is reported once."""
        try:
            return self._next_answer()
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return b"lost"

    def _next_answer(self) -> bytes:
        """The next answer that waits, nothing where none does."""
        try:
            return self._socket.recv(_ANSWER)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Give the socket back."""
        self._close()


def _messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each message."""
    offset = 0
    while offset + HEADER.size <= len(content):
        length, kind, *_ = HEADER.unpack_from(content, offset)
        if length < HEADER.size:
            return
        yield kind, content[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


class Watch:
    """A netlink socket that hears every change of nftables in this network namespace."""

    def __init__(self) -> None:
        """Begin to listen."""
        self._socket = _opened()
        self._socket.bind((0, _GROUP_NFTABLES))
        self._socket.settimeout(0)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def heard(self) -> Iterator[tuple[int, int, dict[int, bytes]]] | None:
        """Kind, family and attributes of each change that waits; None where some were missed."""
        changes: list[bytes] = []
        try:
            while True:
                changes.append(self._socket.recv(_LARGEST))
        except BlockingIOError:
            return _changes(changes)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # ENOBUFS: more happened than fits
                raise
            return None


def _changes(received: list[bytes]) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    for content in received:
        for kind, body in _messages(content):
            if kind >> 8 == SUBSYSTEM:
                yield kind & 0xFF, body[0], dict(attributes(body[GENERIC.size :]))


def forwards(family: socket.AddressFamily) -> bool | None:
    """Whether packets of a family are forwarded in this network namespace; None where nobody knows.

    Asked through netlink, since the helper's unit hides /proc/sys.
    """
    body = _FAMILY.pack(family) + attribute(_INDEX, _CODE.pack(_ALL))
    try:
        with closing(_opened(_ROUTE)) as kernel:
            kernel.settimeout(_SECONDS)
            kernel.send(HEADER.pack(HEADER.size + len(body), _GET_NETCONF, REQUEST, 1, 0) + body)
            answer = kernel.recv(_LARGEST)
    except (OSError, FirewallError):
        return None
    for kind, content in _messages(answer):
        said = dict(attributes(content[_FAMILY.size :])) if kind == _NEW_NETCONF else {}
        if _FORWARDING in said:
            return bool(_CODE.unpack(said[_FORWARDING])[0])
    return None


def waiting(protocol: int) -> socket.socket:
    """A socket for ask().

    Raises:
        FirewallError: the kernel has none of this protocol.
    """
    kernel = _opened(protocol)
    kernel.settimeout(_SECONDS)
    return kernel


def ask(kernel: socket.socket, kind: int, body: bytes, flags: int) -> Iterator[bytes]:
    """The content of each answer to a message whose flags ask for a listing or an acknowledgement.

    Raises:
        OSError: the kernel refuses.
    """
    kernel.send(HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, 1, 0) + body)
    while True:
        for found, content in _messages(kernel.recv(_LARGEST)):
            if found == _ERROR and (code := _CODE.unpack_from(content)[0]):
                raise OSError(-code, os.strerror(-code))
            if found in {_DONE, _ERROR}:
                return
            yield content


def _opened(protocol: int = _NETFILTER) -> socket.socket:
    """A netlink socket.

    Raises:
        FirewallError: the kernel has none of this protocol.
    """
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise _refusal(error) from error


def _refused(content: bytes) -> OSError:
    """The error that an answer of the kernel holds."""
    (code,) = _CODE.unpack_from(content)
    return OSError(-code, os.strerror(-code))


def _refusal(error: OSError) -> FirewallError:
    """What a question that failed means; one that the kernel does not know has a remedy."""
    if error.errno in _UNSUPPORTED:
        return FirewallError(
            "this kernel has no nf_tables: load the module (modprobe nf_tables), or install a kernel that has it "
            "(Debian: linux-image-amd64)"
        )
    remedy = (
        "; CAP_NET_ADMIN is missing: start the container with --cap-add=NET_ADMIN" if error.errno == errno.EPERM else ""
    )
    return FirewallError(f"nftables cannot be asked: {error.strerror or error}{remedy}")
