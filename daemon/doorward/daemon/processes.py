"""How the processes come about: parent and children started by hand, or units of systemd. One code path behind."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from doorward.config.daemon import RUN_FOLDER
from doorward.daemon import configuration, handover, log
from doorward.daemon.detach import leave_terminal
from doorward.daemon.helper import HelperProcess, exit_code
from doorward.daemon.listener import Alarm, Listener
from doorward.daemon.notify import Notifier
from doorward.errors import DoorwardError, HelperError
from doorward.pidfile import PidFile, Running, forget, note, noted, record_in
from doorward.privsep import orders as exec_orders
from doorward.privsep import privileges

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from doorward.config.daemon import DaemonSettings
    from doorward.daemon.configuration import Configuration
    from doorward.daemon.log import Log

HELPER_SOCKET: Final = "/run/doorward/helper.sock"
_LISTEN_FDS_START: Final = 3  # sd_listen_fds(3)
_PEER: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid


def both(options: argparse.Namespace, found: Configuration, ready: Callable[[], None]) -> int:
    """Run helper and listener as parent and child, and doorward-exec where it is needed; return the listener's end.

    `ready` is called in the listener once it hears knocks.
    """
    settings = found.settings
    pid_file = PidFile(settings.pid_file)
    needed = found.for_exec or handover.is_left_open(settings.exec_folder)
    orders = _start_exec(options, settings, pid_file) if needed else None
    helpers_end, listeners_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    alarm = Alarm()
    gc.freeze()  # what both processes share stays shared: nothing of it is garbage, and no collection marks it
    child = os.fork()
    if not child:
        helpers_end.close()
        pid_file.leave()  # with it whoever takes the listener over could say whom `doorwardd -K` ends
        os._exit(_in_child(options, settings, listeners_end, alarm, ready, orders=orders))
    listeners_end.close()
    if orders is not None:
        orders.close()
    try:
        return _beside(child, options, settings, helpers_end, alarm)
    finally:
        pid_file.close()


def _start_exec(options: argparse.Namespace, settings: DaemonSettings, pid_file: PidFile) -> socket.socket:
    """Start doorward-exec, before there is anything it should not inherit; return where it takes orders."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        pid_file.leave()  # it may stay longer than the daemon, for what is to be closed
        from doorward.daemon import execution  # noqa: PLC0415  neither helper nor listener needs what comes with it

        if not options.foreground:
            leave_terminal()
        _keep_only(theirs)
        os._exit(execution.beside(options, settings, lambda: _log(options, settings), theirs))
    theirs.close()
    return ours


def _keep_only(channel: socket.socket) -> None:
    """Close what a child has of its parent but `channel`: whoever waits for the daemon does not wait for it too."""
    kept = channel.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _in_child(  # noqa: PLR0913  what a child gets from its parent
    options: argparse.Namespace,
    settings: DaemonSettings,
    channel: socket.socket,
    alarm: Alarm,
    ready: Callable[[], None],
    *,
    orders: socket.socket | None,
) -> int:
    lines = _log(options, settings)
    notify = Notifier(os.environ)
    try:
        Listener(channel, options, log=lines, notify=notify, alarm=alarm, orders=orders).run(ready)
    except DoorwardError as error:
        lines.error("doorwardd: %s", error)
        if not options.foreground:  # the terminal, or nobody any more
            print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why it does not start
        return 1
    finally:
        lines.close()
    return 0


def _beside(
    child: int, options: argparse.Namespace, settings: DaemonSettings, channel: socket.socket, alarm: Alarm
) -> int:
    """Be the helper of a child; what is signalled to us is handed on, since we could not signal another user."""
    mine = Alarm()
    mine.catch()
    alarm.reader.close()
    lines = _log(options, settings)
    try:
        if not options.foreground:
            leave_terminal()
        with _told(options, settings, os.getpid(), lines):
            HelperProcess(options, lines).serve(channel, mine.reader, lambda numbers: hand_on(alarm, numbers))
    finally:
        channel.close()
        alarm.writer.close()
        lines.close()
        mine.close()
    return exit_code(child)


def hand_on(alarm: Alarm, numbers: bytes) -> None:
    """Write signal numbers to the listener's alarm; one that is gone or deaf needs none."""
    try:
        alarm.writer.send(numbers)
    except OSError:
        return


def listener(options: argparse.Namespace) -> int:
    """Run the listener alone, as doorwardd.service does; the helper is behind a socket that systemd holds."""
    return _alone(options, "doorwardd", _listen)


def helper(options: argparse.Namespace) -> int:
    """Run the helper alone, as doorward-helper.service does, for the one listener that has connected."""
    if os.environ.get("LISTEN_FDS") != "1" or os.environ.get("LISTEN_PID") != str(os.getpid()):
        msg = "--helper is for doorward-helper.service, which hands it its socket"
        raise HelperError(msg)
    return _alone(options, "doorward-helper", _help)


def executor(options: argparse.Namespace) -> int:
    """Run doorward-exec alone, as doorward-exec.service does."""
    from doorward.daemon import execution  # noqa: PLC0415  as in _start_exec()

    return execution.unit(
        options,
        lambda: log.make(foreground=True, verbose=bool(options.verbose), identity="doorward-exec", facility="daemon"),
        Notifier(os.environ),
    )


def _alone(options: argparse.Namespace, identity: str, work: Callable[[argparse.Namespace, Log], None]) -> int:
    """Do the work of one process with a log to the service manager; return its exit code."""
    lines = log.make(foreground=True, verbose=bool(options.verbose), identity=identity, facility="daemon")
    try:
        work(options, lines)
    except DoorwardError as error:
        lines.error("%s: %s", identity, error)
        return 1
    finally:
        lines.close()
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
    with socket.socket(fileno=_LISTEN_FDS_START) as accepting:
        channel, _ = accepting.accept()
    settings, pid = configuration.settings(options), _listener_pid(channel)
    with channel, contextlib.closing(PidFile(settings.pid_file, pid)), _told(options, settings, pid, lines):
        HelperProcess(options, lines).serve(channel, None, lambda _numbers: None)


@contextlib.contextmanager
def _told(options: argparse.Namespace, settings: DaemonSettings, pid: int, lines: Log) -> Iterator[None]:
    """Tell the host's commands, while the daemon lives, where its things are.

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
        backend=settings.backend,
        firewall_exe=settings.firewall_exe,
    )
    try:
        note(file, running)
    except DoorwardError as error:
        lines.warning("doorward status, open and close need -c, -a and -r: %s", error)
    try:
        yield
    finally:
        forget(file, pid)


def _listener_pid(channel: socket.socket) -> int:
    """Return the PID behind a channel; only the listener's user is served, whatever the socket's mode says."""
    pid, uid, _ = _PEER.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid != privileges.account().pw_uid:
        msg = f"a process of uid {uid} is not the listener"
        raise HelperError(msg)
    return int(pid)


def _log(options: argparse.Namespace, settings: DaemonSettings) -> Log:
    return log.make(
        foreground=options.foreground,
        verbose=bool(options.verbose or settings.verbose),
        identity=settings.syslog_identity,
        facility=settings.syslog_facility,
        syslog=options.syslog_enable,
    )
