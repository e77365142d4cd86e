"""The start of the processes: as parent and children, or as units of systemd. Both run the same code."""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from doorward.commands import lock
from doorward.commands import remote as exec_orders
from doorward.config.settings import RUN_FOLDER
from doorward.daemon.detach import Screen, leave_terminal
from doorward.errors import DoorwardError, HelperError
from doorward.helper.handed import Handed, udp_sockets
from doorward.helper.process import HelperProcess, exit_code, give_up_power
from doorward.host.running import PidFile, Running, forget, note, noted, record_in
from doorward.linux import privileges
from doorward.linux.signals import Alarm
from doorward.linux.systemd import Notifier, listen_fds
from doorward.listener.loop import Listener
from doorward.processes import configuration
from doorward.record import log

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from doorward.config.settings import DaemonSettings
    from doorward.processes.configuration import Configuration
    from doorward.record.log import Log

HELPER_SOCKET: Final = "/run/doorward/helper.sock"


def both(options: argparse.Namespace, found: Configuration, ready: Callable[[], None]) -> int:
    """Run helper and listener as parent and child, and doorward-exec where needed; return the listener's exit code.

    `ready` is called in the listener once it hears knocks.
    """
    settings = found.settings
    pid_file = PidFile(settings.pid_file)
    needed = found.for_exec or lock.is_left_open(settings.exec_folder)
    orders = _start_exec(options, settings, pid_file) if needed else None
    helpers_end, listeners_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    alarm = Alarm()
    gc.freeze()  # shared pages stay shared: the collector never touches these objects
    screen = Screen(foreground=options.foreground)
    child = os.fork()
    if not child:
        screen.enter()
        helpers_end.close()
        pid_file.leave()  # a taken-over listener could write another PID for `doorwardd -K`
        os._exit(_in_child(options, settings, listeners_end, alarm, ready, orders=orders))
    listeners_end.close()
    if orders is not None:
        orders.close()
    try:
        return _beside(child, options, settings, helpers_end, alarm, screen=screen)
    finally:
        pid_file.close()


def _start_exec(options: argparse.Namespace, settings: DaemonSettings, pid_file: PidFile) -> socket.socket:
    """Start doorward-exec, before there is anything it must not inherit; return the channel for its orders."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        pid_file.leave()  # it may outlive the daemon, to close open command cycles
        from doorward.commands import process as commands_process  # noqa: PLC0415  helper and listener do not need its imports

        if not options.foreground:
            leave_terminal()
        _keep_only(theirs)
        os._exit(commands_process.beside(options, settings, lambda: _log(options, settings), theirs))
    theirs.close()
    return ours


def _keep_only(channel: socket.socket) -> None:
    """Close all inherited descriptors but `channel`: a reader of the daemon's output must not wait for this child."""
    kept = channel.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _in_child(  # noqa: PLR0913  what the parent hands over, each named
    options: argparse.Namespace,
    settings: DaemonSettings,
    channel: socket.socket,
    alarm: Alarm,
    ready: Callable[[], None],
    *,
    orders: socket.socket | None,
) -> int:
    notify = Notifier(os.environ)
    with closing(_log(options, settings)) as lines:
        try:
            Listener(channel, options, log=lines, notify=notify, alarm=alarm, orders=orders).run(ready)
        except DoorwardError as error:
            lines.error("doorwardd: %s", error)
            if not options.foreground:  # the terminal, until the start is complete
                print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  the reason, while there is a terminal
            return 1
    return 0


def _beside(  # noqa: PLR0913  what the parent has of its child
    child: int,
    options: argparse.Namespace,
    settings: DaemonSettings,
    channel: socket.socket,
    alarm: Alarm,
    *,
    screen: Screen,
) -> int:
    """Be the helper beside a listener; signals are forwarded through its alarm, since it has another user."""
    mine = Alarm()
    mine.catch()
    alarm.reader.close()
    give_up_power()  # before threads begin: each has its own capabilities
    screen.show()
    with closing(mine), closing(_log(options, settings)) as lines, closing(alarm.writer), closing(channel):
        if not options.foreground:
            leave_terminal()
        with _told(options, settings, os.getpid(), lines):
            HelperProcess(options, lines).serve(channel, mine.reader, lambda numbers: hand_on(alarm, numbers))
    code = exit_code(child)
    screen.close(log.LAST_WORDS)
    return code


def hand_on(alarm: Alarm, numbers: bytes) -> None:
    """Write signal numbers to the listener's alarm; a listener that has ended needs none."""
    with suppress(OSError):
        alarm.writer.send(numbers)


def listener(options: argparse.Namespace) -> int:
    """Run the listener alone, as doorwardd.service does; the helper is behind systemd's socket."""
    return _alone(options, "doorwardd", _listen)


def helper(options: argparse.Namespace) -> int:
    """Run the helper alone, as doorward-helper.service does, for the one listener that has connected."""
    return _alone(options, "doorward-helper", _help)


def executor(options: argparse.Namespace) -> int:
    """Run doorward-exec alone, as doorward-exec.service does."""
    from doorward.commands import process as commands_process  # noqa: PLC0415  as in _start_exec()

    return commands_process.unit(
        options,
        lambda: log.make(foreground=True, verbose=bool(options.verbose), identity="doorward-exec", facility="daemon"),
        Notifier(os.environ),
    )


def _alone(options: argparse.Namespace, identity: str, work: Callable[[argparse.Namespace, Log], None]) -> int:
    """Run one process with a log to the service manager; return its exit code."""
    made = log.make(foreground=True, verbose=bool(options.verbose), identity=identity, facility="daemon")
    with closing(made) as lines:
        try:
            work(options, lines)
        except DoorwardError as error:
            lines.error("%s: %s", identity, error)
            return 1
    return 0


def _listen(options: argparse.Namespace, lines: Log) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        try:
            channel.connect(HELPER_SOCKET)
        except OSError as error:
            msg = f"the helper behind {HELPER_SOCKET} cannot be reached: {error.strerror}"
            raise HelperError(msg) from error
        notify, orders = Notifier(os.environ), exec_orders.connect()
        Listener(channel, options, log=lines, notify=notify, alarm=Alarm(), orders=orders).run(lambda: None)


def _help(options: argparse.Namespace, lines: Log) -> None:
    knocks, others = udp_sockets(tuple(listen_fds(os.environ)))
    with closing(Handed(knocks)) as handed:
        if len(others) != 1:
            msg = "--helper is for doorward-helper.service, which hands it its socket"
            raise HelperError(msg)
        with others[0] as accepting:
            channel, _ = accepting.accept()
        with channel:
            _help_behind(channel, options, lines, handed)


def _help_behind(channel: socket.socket, options: argparse.Namespace, lines: Log, handed: Handed) -> None:
    give_up_power()
    settings, pid = configuration.settings(options), privileges.check_peer(channel)
    with closing(PidFile(settings.pid_file, pid)), _told(options, settings, pid, lines):
        HelperProcess(options, lines, handed).serve(channel, None, lambda _numbers: None)


@contextmanager
def _told(options: argparse.Namespace, settings: DaemonSettings, pid: int, lines: Log) -> Iterator[None]:
    """Record for the host's commands, while the daemon runs, where its files are.

    One that opens nothing has nothing to be asked for; and beside another daemon it is that one that opens doors here.
    """
    file = record_in(RUN_FOLDER)
    other = noted(file)
    beside = other is not None and other.pid != pid
    if options.test or beside:
        if other is not None and beside:
            lines.warning("doorward status, open and close work on the doorwardd of PID %d; add -r for this", other.pid)
        yield
        return
    running = Running(
        pid=pid,
        settings=options.config_file,
        overrides=tuple(options.override_config),
        access_file=options.access_file,
        access_folder=options.access_folder,
        run_folder=settings.run_folder,
        pid_file=settings.pid_file,
        exec_folder=settings.exec_folder,
        replay_file=settings.replay_file,
    )
    try:
        note(file, running)
    except DoorwardError as error:
        lines.warning("doorward status, open and close need -c, -a and -r: %s", error)
    try:
        yield
    finally:
        forget(file, pid)


def _log(options: argparse.Namespace, settings: DaemonSettings) -> Log:
    return log.make(
        foreground=options.foreground,
        verbose=bool(options.verbose or settings.verbose),
        identity=settings.syslog_identity,
        facility=settings.syslog_facility,
        syslog=options.syslog_enable,
    )
