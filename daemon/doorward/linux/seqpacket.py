"""SEQPACKET sockets between processes, passed descriptors, and frozen memory."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
from typing import TYPE_CHECKING, Final

from doorward.errors import HelperError, OverlongError

if TYPE_CHECKING:
    from collections.abc import Iterable

MESSAGE_MAX: Final = 60_000  # bytes, under the default send buffer of a Unix socket
DESCRIPTORS_MAX: Final = 16  # files, taps, servers of both families
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ANCILLARY: Final = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message and its descriptors, which the caller closes.

    Raises:
        HelperError: the other side is gone.
        OverlongError: the message is too long; the next message can be received.
    """
    try:
        content, ancillary, flags, _ = channel.recvmsg(MESSAGE_MAX, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        msg = f"the other process cannot be heard: {error}"
        raise HelperError(msg) from error
    descriptors = array.array("i")
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(packed[: len(packed) - len(packed) % descriptors.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or not content:
        for descriptor in descriptors:
            os.close(descriptor)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            msg = "a message that is too long"
            raise OverlongError(msg)
        msg = "the other process is gone"
        raise HelperError(msg)
    return content, list(descriptors)


def hear(channel: socket.socket) -> bytes:
    """Receive one message; the kernel drops its descriptors. One that is too long is cut to MESSAGE_MAX + 1 bytes.

    Raises:
        HelperError: the other side is gone.
    """
    try:
        content = channel.recv(MESSAGE_MAX + 1)
    except OSError as error:
        msg = f"the other process cannot be heard: {error}"
        raise HelperError(msg) from error
    if not content:
        msg = "the other process is gone"
        raise HelperError(msg)
    return content


def hung_up(descriptor: int | socket.socket, seconds: float | None = 0) -> bool:
    """Whether the other end of a socket or a pipe is gone, now or within so many seconds; None waits for it."""
    poll = select.poll()
    poll.register(descriptor, 0)  # POLLHUP and POLLERR come unasked
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def send(channel: socket.socket, content: bytes, descriptors: Iterable[int] = ()) -> None:
    """Send one message.

    write(2) where no descriptor goes with it: the listener may not call sendmsg(2).

    Raises:
        HelperError: the other side is gone.
    """
    passed = array.array("i", descriptors)
    try:
        if passed:
            channel.sendmsg([content], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        else:
            os.write(channel.fileno(), content)
    except OSError as error:
        msg = f"the other process cannot be reached: {error}"
        raise HelperError(msg) from error


def freeze(name: str, content: bytes) -> int:
    """Put `content` into memory that no process can change any more; return its descriptor."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def read_frozen(descriptor: int, most: int) -> bytes:
    """Read a frozen descriptor, at most `most` + 1 bytes, and close it.

    Raises:
        HelperError: it is not frozen, so its content could change while it is read.
    """
    with os.fdopen(descriptor, "rb") as file:
        try:
            found = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError as error:
            msg = "a descriptor that is no memory"
            raise HelperError(msg) from error
        if found & _SEALS != _SEALS:
            msg = "a descriptor that is not frozen"
            raise HelperError(msg)
        file.seek(0)
        return file.read(most + 1)
