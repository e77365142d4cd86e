"""Sends frames again and again at a rate, or as fast as it can: sendmmsg(2) on an AF_PACKET socket without a queue.

    python generator.py INTERFACE FILE FRAME_BYTES RATE SECONDS

FILE holds frames of one length, one behind the other. RATE in packets/s, 0 for the maximum. It says `ready`, waits for
a line on its standard input, and says at the end how many frames it sent in how many seconds. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import time
from pathlib import Path

BATCH = 32  # frames a system call: some 20 µs at the maximum
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20  # linux/socket.h, linux/if_packet.h
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Part(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("parts", ctypes.POINTER(_Part)),
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

    def __init__(self, interface: str, frames: bytes, frame_bytes: int) -> None:
        """Send `frames`, each of `frame_bytes`, by `interface` of the network namespace this runs in."""
        self._count = len(frames) // frame_bytes
        self._buffer = ctypes.create_string_buffer(frames, len(frames))
        start = ctypes.addressof(self._buffer)
        # one batch more than there are frames, so that a batch may start at any of them
        places = [start + number % self._count * frame_bytes for number in range(self._count + BATCH)]
        self._parts = (_Part * len(places))(*[_Part(place, frame_bytes) for place in places])
        self._messages = (_Message * len(places))()
        for message, part in zip(self._messages, self._parts, strict=True):
            message.header.parts, message.header.part_count = ctypes.pointer(part), 1
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._socket.bind((interface, 0))
        self._next = 0

    def send(self, wanted: int) -> int:
        """Send up to `wanted` frames, no more than a batch, and return how many went."""
        first = ctypes.byref(self._messages, self._next * ctypes.sizeof(_Message))
        sent = int(_LIBC.sendmmsg(self._socket.fileno(), first, min(wanted, BATCH), 0))
        if sent < 0:
            error = ctypes.get_errno()
            if error in {errno.ENOBUFS, errno.EAGAIN, errno.EINTR}:
                return 0
            raise OSError(error, os.strerror(error))
        self._next = (self._next + sent) % self._count
        return sent

    def run(self, rate: int, seconds: float) -> tuple[int, float]:
        """Send `rate` frames/s for `seconds`; return how many went and how long it took.

        Between two batches it sleeps as long as it can, so that others have the core too.
        """
        sent = 0
        start = now = time.perf_counter()
        while now < start + seconds:
            due = int((now - start) * rate) - sent if rate else BATCH
            if due < min(BATCH, max(1, rate // 2000)):
                time.sleep(0.0002)
            else:
                sent += self.send(due)
            now = time.perf_counter()
        return sent, now - start


def main() -> None:
    """Do what the arguments say."""
    interface, file, frame_bytes, rate, seconds = sys.argv[1:]
    generator = Generator(interface, Path(file).read_bytes(), int(frame_bytes))
    print("ready", flush=True)
    sys.stdin.readline()
    sent, took = generator.run(int(rate), float(seconds))
    print(sent, took, flush=True)


if __name__ == "__main__":
    main()
