"""The process that accepts TCP connections: no keys, no files, and one channel as the only descriptor it can write to.

The helper starts it as a new interpreter, so that the helper's data is not in its memory, and starts it again when it
ends. It ends with the helper (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from doorward.capture import tcp
from doorward.errors import CaptureError, HelperError
from doorward.linux import interpreter, privileges, seccomp

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_NPROC, 0),
    (resource.RLIMIT_NOFILE, tcp.CONNECTIONS_MAX + 32),
)


def start(listening: Sequence[socket.socket], channel: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process that accepts from `listening` and writes into `channel`.

    Raises:
        CaptureError: it cannot be started.
    """
    descriptors = [one.fileno() for one in (channel, *listening)]
    try:
        return interpreter.start(__name__, *descriptors, stderr=subprocess.DEVNULL if os.isatty(2) else None)
    except OSError as error:
        msg = f"the reader of TCP connections cannot be started: {error}"
        raise CaptureError(msg) from error


def main(parent: int, channel: int, *listening: int) -> None:
    """Run the process, of the process `parent`; the others are descriptors."""
    privileges.die_with_parent()
    if os.getppid() != parent:  # the parent ended before die_with_parent()
        return
    with contextlib.suppress(HelperError):  # a unit may forbid it, but nothing here can use them
        privileges.keep_only(())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the helper ends this process
    privileges.limit(_LIMITS, where_allowed=True)
    sockets = [socket.socket(fileno=one) for one in listening]
    reader = tcp.Reader(sockets, lambda heard: _deliver(channel, heard), time.monotonic)
    seccomp.install(seccomp.reader(channel))
    while True:
        reader.step()


def _deliver(channel: int, heard: tcp.Heard) -> None:
    """Write one message; it waits for a busy listener, and connections wait in the kernel meanwhile."""
    with contextlib.suppress(OSError):  # the listener has another channel or is gone: then the helper ends this process
        os.write(channel, tcp.HEARD.encode(heard))
