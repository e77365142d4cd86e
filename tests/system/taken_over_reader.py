# ruff: noqa: T201  an intruder prints what it achieved
"""A taken-over reader of TCP connections: under its filter it makes an intruder's attempts.

Run as `taken_over_reader.py`; connects to itself over loopback, prints what came of each attempt, and what arrived.
Everything but the loop is the real thing.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.capture import tcp
from doorward.linux import seccomp

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)


def attempts(listening: socket.socket, accepted: socket.socket, channel: int) -> dict[str, Callable[[], Any]]:
    """The attempts, above all to get a byte out through a connection."""
    number = accepted.fileno()
    return {
        "send": lambda: accepted.send(b"x"),
        "send to": lambda: _call("sendto", number, b"x", 1, 0, 0, 0),
        "send a message": lambda: accepted.sendmsg([b"x"]),
        "write": lambda: os.write(number, b"x"),
        "write a vector": lambda: os.writev(number, [b"x"]),
        "write at a place": lambda: os.pwrite(number, b"x", 0),
        "send a file": lambda: os.sendfile(number, channel, 0, 1),
        "splice": lambda: _call("splice", 0, 0, number, 0, 1, 0),
        "put the connection in the channel's place": lambda: os.dup2(number, channel),
        "copy a descriptor": lambda: os.dup(number),
        "copy it by fcntl": lambda: fcntl.fcntl(number, fcntl.F_DUPFD, 0),
        "close the channel, to be accepted in its place": lambda: os.close(channel),
        "close it in a range": lambda: _syscall(436, channel, channel, 0),
        "close it by its 64-bit number": lambda: _syscall(3, channel | 1 << 32),
        "write to a 64-bit number": lambda: _syscall(1, number | 1 << 32, b"x", 1),
        "shut down a side": lambda: accepted.shutdown(socket.SHUT_WR),
        "change an option": lambda: accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\0" * 8),
        "open a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "connect the listening socket": lambda: _call("connect", listening.fileno(), b"\0" * 16, 16),
        "open a file": lambda: Path("/etc/hostname").read_bytes(),
        "fork": os.fork,
        "run a program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606  the point is that it cannot
        "start a thread": lambda: threading.Thread(target=int).start(),
        "signal its parent": lambda: os.kill(os.getppid(), 0),
        "type into the terminal": lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"),
        "have its parent signalled": lambda: fcntl.fcntl(number, fcntl.F_SETOWN, os.getppid()),
        "choose the signal": lambda: fcntl.fcntl(number, fcntl.F_SETSIG, signal.SIGKILL),
        "set the limits of its parent": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE),
        "make code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "use io_uring": lambda: _syscall(425, 8, 0),
        "make memory executable": lambda: _syscall(10, 0x10000, 4096, 4),
        "write to the channel": lambda: os.write(channel, b"the one thing that is allowed"),
        "read": lambda: accepted.recv(100, socket.MSG_DONTWAIT),
    }


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _syscall(number: int, *arguments: Any) -> None:
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]  # else cut to 32 bits
    if _LIBC.syscall(number, *wide) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _outcome(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except (OSError, RuntimeError) as error:
        return type(error).__name__
    return "done"


def main() -> None:
    """Make the attempts in a child under the filter; print its report and the bytes that the peer received."""
    (listening,) = tcp.serve(0, addresses=["127.0.0.1"])
    mine, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.create_connection(listening.getsockname()) as peer:
        peer.send(b"hello")
        accepted, _ = listening.accept()
        child = os.fork()
        if not child:
            signal.alarm(20)
            tried = attempts(listening, accepted, channel.fileno())
            seccomp.install(seccomp.reader(channel.fileno()))
            report = {name: _outcome(attempt) for name, attempt in tried.items()}
            os.write(channel.fileno(), json.dumps(report).encode())
            os._exit(0)
        os.waitpid(child, 0)
        accepted.close()
        mine.settimeout(5)
        peer.settimeout(5)
        mine.recv(100)
        try:
            answer = peer.recv(100)
        except ConnectionResetError:
            answer = b""
        print(json.dumps({**json.loads(mine.recv(10_000)), "what the peer heard": answer.decode()}))


def report() -> dict[str, str]:
    """The outcome of each attempt."""
    done = subprocess.run([sys.executable, __file__], check=True, capture_output=True, text=True, timeout=60)
    found: dict[str, str] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
