"""Refusals of a knock that the network answered with (ICMP): by whom, and why.

A packet that opens gets no answer, so this is all that can be heard of it. Linux says who refused (IP_RECVERR, which
send.py asks for); elsewhere a refused port alone is told, and not by whom.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doorward.client.address import Endpoint
    from doorward.values import IPAddress

_ERROR_QUEUE: Final = 0x2000  # MSG_ERRQUEUE, linux/socket.h
_EXTENDED: Final = struct.Struct(
    "=IBBBxII"
)  # struct sock_extended_err, linux/errqueue.h; the offender's address follows
_FROM_ICMP: Final = frozenset({2, 3})  # SO_EE_ORIGIN_ICMP and _ICMP6
_OFFENDER: Final = {2: slice(4, 8), 3: slice(8, 24)}  # the address in sockaddr_in and sockaddr_in6
_FORBIDDEN: Final = frozenset({(2, 3, 9), (2, 3, 10), (2, 3, 13), (3, 1, 1), (3, 1, 5), (3, 1, 6)})  # by a rule
_SPACE: Final = 512


class Refusal(NamedTuple):
    """One refusal: its errno, who sent it (None where the system does not tell), and whether a rule was the reason."""

    number: int
    by: IPAddress | None = None
    is_forbidden: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the packet cannot have arrived; a refused port may be captured at all the same."""
        return self.number != errno.ECONNREFUSED

    def words(self, to: Endpoint, own: IPAddress | None) -> str:
        """The refusal as a sentence; `to` is where the packet went, `own` this machine's address."""
        where = f"udp/{to.port}"
        if self.by is None or self.by == to.host:
            who = f"{to.host} " if self.by is not None else "the host or a firewall before it "
            return who + (
                f"forbids {where}" if self.is_final else f"refuses {where} (does doorwardd run, at this port?)"
            )
        if self.by == own:
            return f"nobody on this network has the address {to.host}: the host is down, or the address is wrong"
        why = f"forbids {where}" if self.is_forbidden else f"refuses {where} ({os.strerror(self.number)})"
        return f"refused on the way: {self.by} {why}"


def heard(senders: Iterable[socket.socket]) -> list[Refusal]:
    """The refusals that have arrived at the sockets of sent packets, each once; nothing is waited for."""
    return list(dict.fromkeys(refusal for sender in senders for refusal in _of(sender)))


def _of(sender: socket.socket) -> Iterator[Refusal]:
    try:
        _, ancillary, _, _ = sender.recvmsg(0, _SPACE, _ERROR_QUEUE | socket.MSG_DONTWAIT)
    except (OSError, AttributeError):  # none, or a system without an error queue
        ancillary = []
    found = [each for _, _, data in ancillary if (each := _refusal(data)) is not None]
    yield from found
    number = sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number and not found:
        yield Refusal(number)


def _refusal(data: bytes) -> Refusal | None:
    if len(data) < _EXTENDED.size:
        return None
    number, origin, kind, code, _, _ = _EXTENDED.unpack_from(data)
    if origin not in _FROM_ICMP:
        return None
    offender = data[_EXTENDED.size :][_OFFENDER[origin]]
    by = ipaddress.ip_address(offender) if len(offender) in {4, 16} else None
    return Refusal(number, by, (origin, kind, code) in _FORBIDDEN)
