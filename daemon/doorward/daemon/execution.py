"""How doorward-exec comes about: a third child beside helper and listener, or a unit of systemd with a socket."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.daemon import configuration, spawner
from doorward.daemon.executor import Executor
from doorward.daemon.handover import alone
from doorward.daemon.listener import Alarm
from doorward.errors import ConfigError, DoorwardError, HelperError
from doorward.privsep import privileges

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from doorward.config.daemon import DaemonSettings
    from doorward.daemon.log import Log
    from doorward.daemon.notify import Notifier

    Make = Callable[[Log, socket.socket, socket.socket], Executor]  # what it logs to, its spawner, its signals

_PEER: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_LISTEN_FDS_START: Final = 3  # sd_listen_fds(3)
_AGAIN, _AGAIN_MAX = 0.2, 60.0  # seconds before one that ended early is started again, doubled each time
_FOR_GOOD, _NOT_STARTED = 78, 75  # exit codes (sysexits.h): the configuration is against it; later it may work
_MEANING: Final = {
    0: "nobody needs it any more",
    _FOR_GOOD: "IT IS NOT STARTED, and what an earlier one left open stays open",
}


def beside(
    options: argparse.Namespace, settings: DaemonSettings, make_log: Callable[[], Log], channel: socket.socket
) -> int:
    """Be the parent of a doorward-exec that serves `channel`: one that ends early is started again; return its end.

    The channel stays open meanwhile, so that the listener notices nothing and orders wait. One that has never served
    ends for good where the configuration is against it, or where the listener is gone. All have the journal that
    `settings` name, whatever the files say when they start.
    """
    make = partial(Executor, options, settings)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the terminal's; the daemon decides when it is over
    attempts = Attempts()
    while True:
        began = time.monotonic()
        code = _end_of_one(make, make_log, channel, attempts)
        if code in {0, _FOR_GOOD}:
            return code
        attempts.served |= code != _NOT_STARTED
        _wait(channel, attempts.pause(time.monotonic() - began))


class Attempts:
    """What is known of the starts so far: how long to wait before the next one, and whether one may have served."""

    def __init__(self) -> None:
        """Begin with none."""
        self.next = _AGAIN
        self.served = False

    def pause(self, lived: float) -> float:
        """Return the seconds to wait after one that lived so many: twice the last, anew after one that lived long."""
        pause = _AGAIN if lived > _AGAIN_MAX else self.next
        self.next = min(2 * pause, _AGAIN_MAX)
        return pause


def _end_of_one(make: Make, make_log: Callable[[], Log], channel: socket.socket, attempts: Attempts) -> int:
    """Start a doorward-exec, hand SIGTERM on to it, and return its exit code once it has ended; 0 if told to end it."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))  # which may come before there is a child
    child = os.fork()
    if not child:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os._exit(_serve(make, make_log, channel, attempts))
    signal.signal(signal.SIGTERM, partial(_pass_on, child, told))
    for early in tuple(told):
        os.kill(child, early)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # before it is reaped: its number is nobody else's
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 0 if told else code


def _pass_on(child: int, told: list[int], number: int, _: object) -> None:
    told.append(number)
    os.kill(child, number)


def _gone(channel: socket.socket, seconds: float) -> bool:
    """Say whether nobody is at the other end any more, now or within so many seconds."""
    poll = select.poll()
    poll.register(channel, 0)  # POLLHUP comes unasked
    return bool(poll.poll(seconds * 1000))


def _wait(channel: socket.socket, seconds: float) -> None:
    """Wait, less long where the listener ends: what is open has to be found, and nothing else is left to wait for."""
    if _gone(channel, 0):
        time.sleep(seconds)
    else:
        _gone(channel, seconds)


def _serve(make: Make, make_log: Callable[[], Log], channel: socket.socket, attempts: Attempts) -> int:
    """Run one doorward-exec; return 0 where it need not be started again."""
    with spawning((channel,)) as spawn:
        lines = make_log()
        alarm = Alarm()
        alarm.catch()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        started = False
        try:
            with _made(make, lines, spawn, alarm, wanted=lambda: _is_wanted(channel, alarm)) as executor:
                started = True
                executor.run((channel,))
        except (DoorwardError, OSError) as error:
            code = 1 if started else _failed_start(error, attempts, channel, alarm)
            lines.error("doorward-exec: %s: %s", error, _MEANING.get(code, f"started again in {attempts.next:.1f} s"))
            return code
        finally:
            alarm.close()
            lines.close()
    return 0


def _failed_start(error: Exception, attempts: Attempts, channel: socket.socket, alarm: Alarm) -> int:
    """Return the exit code of one that could not start; it is started again for what an earlier one may have opened."""
    if _is_told_to_end(alarm):
        return 0
    if attempts.served:
        return _NOT_STARTED
    if _gone(channel, 0):
        return 0
    return _FOR_GOOD if isinstance(error, ConfigError) else _NOT_STARTED


def _is_wanted(channel: socket.socket, alarm: Alarm) -> bool:
    """Say whether a doorward-exec that waits for its turn has anything to do once it comes."""
    if _is_told_to_end(alarm):
        return False
    try:
        return bool(channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True


def _is_told_to_end(alarm: Alarm) -> bool:
    try:
        return signal.SIGTERM in alarm.reader.recv(64, socket.MSG_PEEK)
    except BlockingIOError:
        return False


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
            make = partial(Executor, options, configuration.settings(options))
            with _made(make, lines, spawn, alarm) as executor:
                executor.admit = _Doorman(notify)  # type: ignore[method-assign]  # what a peer must be is the root's to say
                notify("READY=1")
                executor.run(kept, sockets[accepting[0]])
        except (DoorwardError, OSError) as error:
            for problem in str(error).splitlines():
                lines.error("doorward-exec: %s", problem)
            return 1
        finally:
            alarm.close()
            lines.close()
    return 0


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
    make: Make,
    lines: Log,
    spawn: socket.socket,
    alarm: Alarm,
    wanted: Callable[[], bool] | None = None,
) -> Iterator[Executor]:
    """Yield an executor that alone has the journal; `wanted` as for alone()."""
    privileges.hide()
    executor = make(lines, spawn, alarm.reader)
    with alone(executor.folder, wanted):
        executor.adopt()
        yield executor


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
