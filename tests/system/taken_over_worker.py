# ruff: noqa: T201  an intruder prints what it achieved
"""A taken-over worker of gpg: under its filter it makes an intruder's attempts.

Run as `taken_over_worker.py FOLDER` on a terminal; prints what came of each attempt. Everything but the loop is real.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.gnupg import worker
from doorward.gnupg.messages import REPLIES, Ready

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_USER = 0x10000000


def attempts(channel: socket.socket) -> dict[str, Callable[[], Any]]:
    """The attempts."""
    return {
        "type into the terminal": lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"),
        "open the terminal": lambda: os.open("/dev/tty", os.O_RDWR),
        "have a process of its user signalled": lambda: fcntl.fcntl(channel, fcntl.F_SETOWN, os.getppid()),
        "choose the signal": lambda: fcntl.fcntl(channel, fcntl.F_SETSIG, signal.SIGKILL),
        "set the limits of its supervisor": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE),
        "kill its supervisor": lambda: os.kill(os.getppid(), signal.SIGKILL),
        "kill all processes of its user": lambda: os.kill(-1, 0),
        "trace its supervisor": lambda: _call("ptrace", 16, os.getppid(), 0, 0),
        "open an INET socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "open an INET6 socket": lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM),
        "open a NETLINK socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12),
        "leave its namespaces": lambda: _call("unshare", _NEW_USER),
        "use io_uring": lambda: _call("syscall", 425, 8, None),
        "load a program into the kernel": lambda: _call("syscall", 321, 0, None, 0),
        "run a program": lambda: subprocess.run(["/bin/true"], check=True),
        "open a UNIX socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(),
    }


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _outcome(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"


def _serve(channel: socket.socket, _keyrings: object) -> None:
    report = {name: _outcome(attempt) for name, attempt in attempts(channel).items()}
    os.write(channel.fileno(), json.dumps(report).encode())


def main() -> None:
    """Make the attempts in a worker without keyrings, and print its report."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        vars(worker)["_serve"] = _serve
        worker.work(theirs, (), Path(sys.argv[1]) / "worker")
    theirs.close()
    with ours:
        ours.settimeout(20)
        assert isinstance(REPLIES.decode(ours.recv(10_000)), Ready)
        print(ours.recv(10_000).decode(), flush=True)


if __name__ == "__main__":
    main()
