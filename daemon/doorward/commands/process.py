"""The start of doorward-exec: a third child beside helper and listener, or a systemd unit with a socket."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.commands import spawner
from doorward.commands.lock import alone
from doorward.commands.loop import Executor
from doorward.errors import ConfigError, DoorwardError, HelperError
from doorward.linux import privileges, seqpacket, systemd
from doorward.linux.signals import Alarm
from doorward.processes import configuration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from doorward.config.settings import DaemonSettings
    from doorward.linux.systemd import Notifier
    from doorward.record.log import Log

    Make = Callable[[Log, socket.socket, socket.socket], Executor]  # log, spawner, signals

_AGAIN, _AGAIN_MAX = 0.2, 60.0  # seconds before a restart, doubled each time
_FOR_GOOD, _NOT_STARTED = 78, 75  # exit codes (sysexits.h): refused by the configuration; to be tried again
_MEANING: Final = {
    0: "it is not needed any more",
    _FOR_GOOD: "IT IS NOT STARTED, and what an earlier one left open stays open",
}


def beside(
    options: argparse.Namespace, settings: DaemonSettings, make_log: Callable[[], Log], channel: socket.socket
) -> int:
    """Run as the parent of a doorward-exec that serves `channel` and restart it; return its exit code.

    The channel stays open meanwhile, so that the listener notices nothing and orders wait. One that has never served
    ends for good where the configuration is against it, or where the listener is gone. All have the journal that
    `settings` name, whatever the files say when they start.
    """
    make = partial(Executor, options, settings)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # sent by a terminal; the daemon ends this process
    attempts = Attempts()
    while True:
        began = time.monotonic()
        code = _end_of_one(make, make_log, channel, attempts)
        if code in {0, _FOR_GOOD}:
            return code
        attempts.served |= code != _NOT_STARTED
        _wait(channel, attempts.pause(time.monotonic() - began))


class Attempts:
    """The starts so far: the pause before the next one, and whether one may have served."""

    def __init__(self) -> None:
        """Begin with none."""
        self.next = _AGAIN
        self.served = False

    def pause(self, lived: float) -> float:
        """The seconds to wait after a process that lived `lived` seconds: twice the last pause, or the first one."""
        pause = _AGAIN if lived > _AGAIN_MAX else self.next
        self.next = min(2 * pause, _AGAIN_MAX)
        return pause


def _end_of_one(make: Make, make_log: Callable[[], Log], channel: socket.socket, attempts: Attempts) -> int:
    """Start a doorward-exec, forward SIGTERM to it, and return its exit code; 0 after SIGTERM."""
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
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # before it is reaped: its number is still its own
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 0 if told else code


def _pass_on(child: int, told: list[int], number: int, _: object) -> None:
    told.append(number)
    os.kill(child, number)


def _wait(channel: socket.socket, seconds: float) -> None:
    """Wait; the end of the listener ends the wait: open cycles must be found."""
    if seqpacket.hung_up(channel):
        time.sleep(seconds)
    else:
        seqpacket.hung_up(channel, seconds)


def _serve(make: Make, make_log: Callable[[], Log], channel: socket.socket, attempts: Attempts) -> int:
    """Run one doorward-exec; 0 where it need not be restarted."""
    with spawning((channel,)) as spawn, closing(make_log()) as lines, closing(Alarm()) as alarm:
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
    return 0


def _failed_start(error: Exception, attempts: Attempts, channel: socket.socket, alarm: Alarm) -> int:
    """The exit code of a failed start; it is tried again where an earlier process may have opened cycles."""
    if _is_told_to_end(alarm):
        return 0
    if attempts.served:
        return _NOT_STARTED
    if seqpacket.hung_up(channel):
        return 0
    return _FOR_GOOD if isinstance(error, ConfigError) else _NOT_STARTED


def _is_wanted(channel: socket.socket, alarm: Alarm) -> bool:
    """Whether a doorward-exec that waits for the journal still has a purpose."""
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
    """Run doorward-exec as doorward-exec.service, for every listener that connects; return its exit code."""
    given = systemd.listen_fds(os.environ)
    if "listener" not in given.values() and len(given) == 1:
        given = {systemd.LISTEN_FDS_START: "doorward-exec.socket"}
    accepting = [descriptor for descriptor, name in given.items() if name != "listener"]
    if len(accepting) != 1:
        msg = "--exec is for doorward-exec.service, which hands it its socket"
        raise HelperError(msg)
    sockets = {descriptor: socket.socket(fileno=descriptor) for descriptor in given}
    kept = [sockets[descriptor] for descriptor, name in given.items() if name == "listener"]
    with spawning(tuple(sockets.values())) as spawn, closing(make_log()) as lines, closing(Alarm()) as alarm:
        alarm.catch()
        try:
            make = partial(Executor, options, configuration.settings(options))
            with _made(make, lines, spawn, alarm) as executor:
                executor.admit = partial(_check_peer, notify)  # type: ignore[method-assign]  # what a peer must be is the root's to say
                notify("READY=1")
                executor.run(kept, sockets[accepting[0]])
        except (DoorwardError, OSError) as error:
            for problem in str(error).splitlines():
                lines.error("doorward-exec: %s", problem)
            return 1
    return 0


@contextmanager
def spawning(others: tuple[socket.socket, ...]) -> Iterator[socket.socket]:
    """A channel to a new spawner, which ends with the block. It is forked before any thread and key exists."""
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


@contextmanager
def _made(
    make: Make,
    lines: Log,
    spawn: socket.socket,
    alarm: Alarm,
    wanted: Callable[[], bool] | None = None,
) -> Iterator[Executor]:
    """An executor that holds the lock of the journal; `wanted` as for alone()."""
    privileges.hide()
    executor = make(lines, spawn, alarm.reader)
    with alone(executor.folder, wanted):
        executor.adopt()
        yield executor


def _check_peer(notify: Notifier, channel: socket.socket) -> None:
    """Let the listener in, and have systemd keep its connection for the next doorward-exec (sd_notify(3), FDSTORE)."""
    privileges.check_peer(channel)
    notify.store("listener", channel.fileno())
