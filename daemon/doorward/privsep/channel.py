"""A SEQPACKET socket between listener and helper, and the descriptors that go with a message."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from typing import TYPE_CHECKING, Final

from doorward.config.files import TOTAL_MAX
from doorward.errors import HelperError, OverlongError
from doorward.privsep.messages import MESSAGE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

DESCRIPTORS_MAX: Final = 16  # files, taps, servers of both families
FILE_MAX: Final = TOTAL_MAX + 1024
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ANCILLARY: Final = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Return one message and its descriptors, which the caller closes.

    Raises:
        HelperError: the other side is gone.
        OverlongError: it sent more than a message can be; what comes after it can be received.
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


def seal(name: str, content: bytes) -> int:
    """Return a descriptor of `content` in memory that nobody can change any more, its maker included."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def unseal(descriptor: int) -> bytes:
    """Return the content of a sealed descriptor and close it.

    Raises:
        HelperError: it is not sealed, so its content could change while it is read.
    """
    with os.fdopen(descriptor, "rb") as file:
        try:
            sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError as error:
            msg = "a descriptor that is no memory"
            raise HelperError(msg) from error
        if sealed & _SEALS != _SEALS:
            msg = "a descriptor that is not sealed"
            raise HelperError(msg)
        file.seek(0)
        return file.read(FILE_MAX + 1)
