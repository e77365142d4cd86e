"""Captures of descriptors that another process has opened and handed over; the kind of each is read from itself."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from doorward.capture.packet import PacketCapture
from doorward.capture.pcap import FileCapture
from doorward.capture.sequences import SequenceCapture
from doorward.capture.tcp import TcpCapture
from doorward.capture.udp import UdpCapture
from doorward.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from doorward.capture import Capture
    from doorward.values import Carriers

Identity = tuple[int, ...]  # inodes: each socket has one of its own, independent of its descriptor's number


def take_over(
    descriptors: Sequence[int], before: Mapping[Identity, Capture], file_carriers: Carriers | None
) -> dict[Identity, Capture]:
    """The captures of the descriptors, which it owns from here on; those that are in `before` go on.

    Captures of `before` that are not among them are closed. A capture file needs `file_carriers`, the carriers of its
    knocks; its reader is loaded before the process drops its privileges and cannot be loaded later.

    Raises:
        CaptureError: a descriptor is no source of packets.
    """
    files = [one for one in descriptors if stat.S_ISREG(os.fstat(one).st_mode)]
    sockets = [socket.socket(fileno=one) for one in descriptors if one not in files]
    taps = [one for one in sockets if one.family == socket.AF_PACKET]
    groups: list[list[socket.socket]] = [*([taps] if taps else []), *([one] for one in sockets if one not in taps)]
    after: dict[Identity, Capture] = {}
    for group in groups:
        identity = tuple(os.fstat(one.fileno()).st_ino for one in group)
        if identity in before:
            after[identity] = before[identity]
            for one in group:
                one.close()
        else:
            after[identity] = _capture(group)
    for file in files:
        identity = (os.fstat(file).st_dev, os.fstat(file).st_ino)
        if identity in before:
            after[identity] = before[identity]
            os.close(file)
        elif file_carriers is not None:
            after[identity] = FileCapture(file, file_carriers)
        else:
            os.close(file)
            msg = "a capture file is read from the start on only: restart"
            raise CaptureError(msg)
    for identity, capture in before.items():
        if identity not in after:
            capture.close()
    return after


def _capture(group: list[socket.socket]) -> Capture:
    """The capture that reads these sockets."""
    kind = _KINDS.get((group[0].family, group[0].type))
    if kind is None:
        msg = f"{group[0]} is no source of packets"
        raise CaptureError(msg)
    return PacketCapture(group) if kind is PacketCapture else kind(group[0])


_KINDS: Final = {
    (socket.AF_PACKET, socket.SOCK_DGRAM): PacketCapture,
    (socket.AF_INET, socket.SOCK_DGRAM): UdpCapture,
    (socket.AF_INET6, socket.SOCK_DGRAM): UdpCapture,
    (socket.AF_UNIX, socket.SOCK_SEQPACKET): TcpCapture,
    (socket.AF_NETLINK, socket.SOCK_RAW): SequenceCapture,
}
