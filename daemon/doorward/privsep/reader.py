"""The process that accepts TCP connections: no keys, no files, and one channel as the only place it can write to.

The helper starts it as a new interpreter, so that none of what the helper has read is in its memory, and starts it
again when it ends. It ends with the helper (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import doorward
from doorward.capture import tcp
from doorward.errors import CaptureError, HelperError
from doorward.privsep import privileges, seccomp

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG: Final = 1
_LIMITS: Final = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_NPROC, 0),
    (resource.RLIMIT_NOFILE, tcp.CONNECTIONS_MAX + 32),
)
_PLACE: Final = Path(doorward.__file__).parents[1]  # the package's folder, or the archive that holds it
_START: Final = "import sys; sys.path.insert(0, sys.argv[1]); from doorward.privsep.reader import main; main()"
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def start(listening: Sequence[socket.socket], channel: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process that reads what `listening` accepts and writes it into `channel`.

    Raises:
        CaptureError: it cannot be started.
    """
    descriptors = [one.fileno() for one in (channel, *listening)]
    argv = [sys.executable, "-I", "-c", _START, str(_PLACE), str(os.getpid()), *map(str, descriptors)]
    try:
        return subprocess.Popen(  # noqa: S603  this interpreter and this package
            argv, pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={}, cwd="/"
        )
    except OSError as error:
        msg = f"the reader of TCP connections cannot be started: {error}"
        raise CaptureError(msg) from error


def main() -> None:
    """Be that process: `PLACE PARENT CHANNEL LISTENING…` are its arguments."""
    parent, channel, *listening = map(int, sys.argv[2:])
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        return
    with contextlib.suppress(HelperError):  # a unit may forbid to give up what this process cannot use anyway
        privileges.keep_only(())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the helper says when it is over
    for kind, limit in _LIMITS:
        with contextlib.suppress(OSError):  # a unit's system call filter may not have it; the one below does more
            resource.setrlimit(kind, (limit, limit))
    reader = tcp.Reader(
        [socket.socket(fileno=one) for one in listening], lambda record: _deliver(channel, record), time.monotonic
    )
    seccomp.install_reader(channel)
    while True:
        reader.step()


def _deliver(channel: int, record: bytes) -> None:
    """Write one record; a listener that is busy is waited for, and connections wait in the kernel meanwhile."""
    try:
        os.write(channel, record)
    except OSError:  # the listener has another channel by now, or is gone: then the helper ends this process
        return
