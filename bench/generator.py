"""Sends garbage at a rate or as fast as it can, with knocks in its midst: sendmmsg(2) on an AF_PACKET socket.

Reads one JSON object a line on standard input, says `ready`, waits for another line, and says at the end what it did:

    interface  of the network namespace it runs in
    garbage    frames in hexadecimal, sent again and again
    rate       of the garbage in packets/s; Infinity for the maximum, 0 for none
    knocks     frames in hexadecimal, each sent once: the first after `lead` seconds, then one every `interval` seconds
    seconds    how long to go on

A knock goes out inside a batch of garbage, at a place left to chance: on a wire nothing holds its breath for it, and a
knock that comes in a pause of the flood would find room in a queue that is full at any other time. Standard library
only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH: Final = 32  # frames a system call
BATCHES_A_SECOND: Final = 4000  # at rates where fewer frames a batch would do
REST_SECONDS: Final = 0.0001  # when nothing is due: others have the core too
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20  # linux/socket.h, linux/if_packet.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NOT_NOW: Final = frozenset({errno.ENOBUFS, errno.EAGAIN, errno.EINTR})


class _Part(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("parts", ctypes.c_void_p),  # of struct iovec; read as a number, where a pointer would be a view
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: the header, with its padding, and the number of bytes that the kernel writes."""

    _fields_ = (("header", _Header), ("sent_bytes", ctypes.c_uint))


class Generator:
    """The frames, laid out once as the kernel wants to read them, and the socket they leave by."""

    def __init__(self, interface: str, garbage: Sequence[bytes], knocks: Sequence[bytes]) -> None:
        """Send by `interface` of the network namespace this runs in."""
        self._frames = [ctypes.create_string_buffer(frame, len(frame)) for frame in (*garbage, *knocks)]
        self._parts = [_Part(ctypes.addressof(frame), len(frame)) for frame in self._frames]
        places = list(map(ctypes.addressof, self._parts))
        self._garbage, self._knocks = places[: len(garbage)], places[len(garbage) :]
        # one batch more than there are frames, so that a batch may start at any of them
        self._messages = (_Message * (len(garbage) + BATCH))()
        for number, message in enumerate(self._messages):
            message.header.parts = self._garbage[number % len(garbage)]
            message.header.part_count = 1
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._socket.bind((interface, 0))
        self._next = 0

    def send(self, wanted: int) -> int:
        """Send up to `wanted` frames of garbage, no more than a batch, and return how many went."""
        first = ctypes.byref(self._messages, self._next * ctypes.sizeof(_Message))
        sent = int(_LIBC.sendmmsg(self._socket.fileno(), first, min(wanted, BATCH), 0))
        if sent >= 0:
            self._next = (self._next + sent) % len(self._garbage)
            return sent
        error = ctypes.get_errno()
        if error in _NOT_NOW:
            return 0
        raise OSError(error, os.strerror(error))

    def send_around(self, knock: int, wanted: int) -> tuple[int, bool]:
        """Send as send() does with a knock in the place of one frame; return how many went, and whether it did."""
        place = random.randrange(min(wanted, BATCH))  # noqa: S311  no secret
        header = self._messages[self._next + place].header
        garbage, header.parts = header.parts, self._knocks[knock]
        sent = self.send(wanted)
        header.parts = garbage
        return sent, place < sent

    def run(self, rate: float, seconds: float, lead: float, interval: float) -> dict[str, object]:
        """Return when each knock went (perf_counter(), one clock for all processes), and how many frames in all."""
        knocked: list[float] = []
        sent = 0
        batch = max(1, min(BATCH, rate // BATCHES_A_SECOND))
        start = now = time.perf_counter()
        while now < start + seconds:
            due = BATCH if rate == float("inf") else int((now - start) * rate) - sent
            if len(knocked) < len(self._knocks) and now >= start + lead + len(knocked) * interval:
                count, gone = self.send_around(len(knocked), max(1, due))
                sent += count
                knocked += [now] * gone
            elif due >= batch:
                sent += self.send(due)
            else:
                time.sleep(REST_SECONDS)
            now = time.perf_counter()
        return {"knocked": knocked, "sent": sent, "seconds": now - start}


def main() -> None:
    """Do what the first line says, once there is a second one."""
    order = json.loads(sys.stdin.readline())
    garbage, knocks = ([bytes.fromhex(frame) for frame in order[kind]] for kind in ("garbage", "knocks"))
    generator = Generator(order["interface"], garbage, knocks)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(generator.run(order["rate"], order["seconds"], order["lead"], order["interval"])), flush=True)


if __name__ == "__main__":
    main()
