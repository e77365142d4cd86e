"""How doorward-exec comes about: a third child beside helper and listener, or a unit of systemd with a socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.daemon import spawner
from doorward.daemon.executor import HANDOVER, Executor
from doorward.daemon.listener import Alarm
from doorward.errors import DoorwardError, HelperError
from doorward.privsep import privileges

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from doorward.daemon.log import Log
    from doorward.daemon.notify import Notifier

SOCKET: Final = "/run/doorward/exec.sock"
_LOCK: Final = "lock"
_TAKING_OVER: Final = 60.0  # seconds that an earlier one may take to finish what it runs
_PEER: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_LISTEN_FDS_START: Final = 3  # sd_listen_fds(3)
_AGAIN: Final = 0.2  # seconds before one that was killed is started again


def beside(options: argparse.Namespace, make_log: Callable[[], Log], channel: socket.socket) -> int:
    """Be the parent of a doorward-exec that serves `channel`: one that is killed is started again; return its end.

    The channel stays open meanwhile, so that the listener notices nothing and orders wait.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the terminal's; the daemon decides when it is over
    while True:
        child = os.fork()
        if not child:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            os._exit(_serve(options, make_log, channel))
        signal.signal(signal.SIGTERM, partial(_pass_on, child))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return 0
        time.sleep(_AGAIN)


def _pass_on(child: int, number: int, _: object) -> None:
    os.kill(child, number)


def _serve(options: argparse.Namespace, make_log: Callable[[], Log], channel: socket.socket) -> int:
    """Run one doorward-exec; return 0 where it need not be started again."""
    with spawning((channel,)) as spawn:
        lines = make_log()
        alarm = Alarm()
        alarm.catch()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with _made(options, lines, spawn, alarm, wait=True) as executor:
                executor.run((channel,))
        except DoorwardError as error:
            lines.error("doorward-exec: %s", error)
            return 1
        finally:
            lines.close()
    return 0


def unit(options: argparse.Namespace, make_log: Callable[[], Log], notify: Notifier) -> int:
    """Run doorward-exec as doorward-exec.service does, for whatever listener connects; return its exit code."""
    given = _given()
    if "listener" not in given.values() and len(given) == 1:
        given = {_LISTEN_FDS_START: "doorward-exec.socket"}
    accepting = [descriptor for descriptor, name in given.items() if name != "listener"]
    if len(accepting) != 1:
        msg = "--exec is for doorward-exec.service, which hands it its socket"
        raise HelperError(msg)
    sockets = {descriptor: socket.socket(fileno=descriptor) for descriptor in given}
    kept = [sockets[descriptor] for descriptor, name in given.items() if name == "listener"]
    with spawning(tuple(sockets.values())) as spawn:
        lines = make_log()
        alarm = Alarm()
        alarm.catch()
        try:
            with _made(options, lines, spawn, alarm, wait=False) as executor:
                executor.admit = _Doorman(notify)  # type: ignore[method-assign]  # what a peer must be is the root's to say
                notify("READY=1")
                executor.run(kept, sockets[accepting[0]])
        except DoorwardError as error:
            lines.error("doorward-exec: %s", error)
            return 1
        finally:
            lines.close()
    return 0


def connect(path: str = SOCKET) -> socket.socket | None:
    """Return a connection to doorward-exec, or None where its unit is not enabled."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.connect(path)
    except OSError:
        channel.close()
        return None
    return channel


@contextlib.contextmanager
def spawning(others: tuple[socket.socket, ...]) -> Iterator[socket.socket]:
    """Yield a channel to a new spawner, which ends with the block. It is forked before there is any thread or key."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        for other in others:
            other.close()
        spawner.begin()
        spawner.serve(theirs)
        os._exit(0)
    theirs.close()
    ours.settimeout(5)
    with ours:
        yield ours


@contextlib.contextmanager
def _made(
    options: argparse.Namespace, lines: Log, spawn: socket.socket, alarm: Alarm, *, wait: bool
) -> Iterator[Executor]:
    """Yield an executor that alone has the journal."""
    privileges.hide()
    executor = Executor(options, lines, spawn, alarm.reader)
    with alone(executor.folder, wait=wait):
        executor.adopt()
        yield executor


@contextlib.contextmanager
def alone(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the journal's lock in the block; with `wait` one that only stays for what is open is asked to leave it.

    Raises:
        HelperError: somebody else has it.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    handover = folder / HANDOVER
    deadline = time.monotonic() + (_TAKING_OVER if wait else 0)
    try:
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                msg = f"another doorward-exec (PID {os.pread(descriptor, 32, 0).decode().strip()}) has {folder}"
                raise HelperError(msg)
            handover.touch(mode=0o600)
            time.sleep(0.05)
        handover.unlink(missing_ok=True)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Doorman:
    """Lets the listener in, and has systemd keep its connection for the next doorward-exec (sd_notify(3), FDSTORE)."""

    def __init__(self, notify: Notifier) -> None:
        self._notify = notify

    def __call__(self, channel: socket.socket) -> None:
        _, uid, _ = _PEER.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != privileges.account().pw_uid:
            msg = f"a process of uid {uid} is not the listener"
            raise HelperError(msg)
        self._notify.store("listener", channel.fileno())


def _given() -> dict[int, str]:
    """Return descriptors and names of what a service manager hands over (sd_listen_fds_with_names(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    return dict(zip(range(_LISTEN_FDS_START, _LISTEN_FDS_START + count), names, strict=False))
