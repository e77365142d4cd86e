"""A service manager in small: it opens UDP sockets, and starts helper and listener as their units do.

Run in a network and a mount namespace of its own, as root: `handing.py OPTIONS OF DOORWARDD -- SOCKET...`, where a
socket is `ADDRESS/PORT`, and `[::]/PORT/both` hears IPv4 too. The helper may open no IP socket, as in its unit. A line
on standard input is an order: `start`, `kill` (the listener; the helper ends with it), `hup` or `close` (the sockets).
Each is answered by a line on standard output.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from doorward.daemon import cli, processes
from doorward.linux import privileges
from doorward.replay import ReplayStore

FOLDER = Path(processes.HELPER_SOCKET).parent
_ALLOW, _ERRNO, _EQUAL = 0x7FFF0000, 0x00050000, 4


class Comparison(ctypes.Structure):
    """A struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def forbid_ip() -> None:
    """Do as RestrictAddressFamilies= of a unit that names neither AF_INET nor AF_INET6."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW))
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in (socket.AF_INET, socket.AF_INET6):
        checks = (Comparison * 1)(Comparison(0, _EQUAL, family, 0))
        assert not library.seccomp_rule_add_array(context, _ERRNO | errno.EAFNOSUPPORT, number, 1, checks)
    assert not library.seccomp_load(context)
    with contextlib.suppress(OSError):
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sys.exit("an IP socket can be opened")


def opened(words: str) -> socket.socket:
    """The socket that `ADDRESS/PORT` or `ADDRESS/PORT/both` means."""
    address, port, *both = words.split("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
    made.bind((address, int(port)))
    return made


def helper(options: list[str], given: list[socket.socket]) -> None:
    """Be the helper, which is handed these sockets (sd_listen_fds(3))."""
    copies = [os.dup(one.fileno()) for one in given]
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)))
    for number, copy in enumerate(copies, 3):
        os.dup2(copy, number)
    forbid_ip()
    sys.exit(cli.main(["--helper", *options]))


def listener(options: list[str]) -> None:
    """Be the listener, under its own account."""
    account = privileges.account()
    os.setgroups([])
    os.setresgid(*[account.pw_gid] * 3)
    os.setresuid(*[account.pw_uid] * 3)
    sys.exit(cli.main(["--listener", *options]))


def forked(work: object, *arguments: object) -> int:
    """The PID of a new process that does this, and nothing after it."""
    child = os.fork()
    if not child:
        try:
            work(*arguments)  # type: ignore[operator]
        finally:
            os._exit(1)
    return child


def main() -> None:
    """Follow the orders."""
    words = sys.argv[1:]
    options, places = words[: words.index("--")], words[words.index("--") + 1 :]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", FOLDER.parent], check=True)
    FOLDER.mkdir()
    state = FOLDER / "state"
    state.mkdir()
    ReplayStore(state / "replay.db").close()
    account = privileges.account()
    for path in (state, *state.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    accepting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    accepting.bind(processes.HELPER_SOCKET)
    accepting.listen()
    os.chown(processes.HELPER_SOCKET, account.pw_uid, account.pw_gid)
    given = [accepting, *map(opened, places)]
    options += ["-r", str(FOLDER), "--digest-file", str(state / "replay.db")]
    running: list[int] = []
    print("ready", flush=True)  # noqa: T201  the answer
    for order in map(str.strip, sys.stdin):
        if order == "start":
            running = [forked(helper, options, given), forked(listener, options)]
        elif order == "close":
            for each in given:
                each.close()
        else:
            os.kill(running[1], signal.SIGHUP if order == "hup" else signal.SIGKILL)
        if order == "kill":
            for one in running:
                os.waitpid(one, 0)
        print(order, flush=True)  # noqa: T201  the answer
    for one in running:
        with contextlib.suppress(OSError):
            os.kill(one, signal.SIGTERM)


if __name__ == "__main__":
    main()
