"""doorward-exec: runs what stanzas name, from decided executions and never from packets, and mails what happened.

One loop over the listener's orders, the commands that run and a clock. The orders come from a process that may have
been taken over: each is checked against this one's own reading of the files. Commands run in the spawner's children.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import signal
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from doorward import audit, withdrawn
from doorward.config.daemon import DaemonSettings
from doorward.config.files import Disk
from doorward.cycles import CYCLES_MAX, OPENED_MAX, Cycle, Journal, Moment
from doorward.daemon import commands, configuration, mail
from doorward.daemon.spawner import Job
from doorward.errors import ConfigError, DoorwardError, HelperError
from doorward.privsep import channel as wire
from doorward.privsep import limits
from doorward.privsep.messages import Execute, Report, Reread, decode_order

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from doorward.config.stanza import Stanza
    from doorward.daemon.log import Log
    from doorward.values import Execution, IPAddress

RUNNING_MAX: Final = 8  # commands at a time
CLOSING_MAX: Final = 4  # besides them closing ones, which no flood of knocks holds up
WAITING_MAX: Final = 128  # commands that wait for their turn
MAILS_MAX: Final = 32  # that wait: one goes at a time, and a server that hangs hinders no command
OUTPUT_MAX: Final = 64 * 1024  # bytes; what comes after is read and dropped
_LINES_SHOWN, _LINE_SHOWN = 5, 200  # of a command's output: lines, characters
_CHUNK: Final = 64 * 1024
_BATCH: Final = 64  # orders between two looks at everything else
REREADS_MAX: Final = 5  # times a second
_TICK: Final = 1.0  # seconds
_MAIL_SECONDS: Final = 30.0
HANDOVER: Final = "handover"  # a file in the journal's folder: somebody else is there to close what is open


@dataclass(slots=True)
class Task:
    """One command on its way: what it is for, and what to do once it is over (with whether it went well)."""

    what: str
    about: tuple[tuple[str, str], ...]
    job: Job
    done: Callable[[bool], None]
    stdin: bytes = b""
    began: float = 0.0
    output: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)
    descriptors: tuple[int, ...] = ()


class Executor:
    """doorward-exec from start to stop."""

    def __init__(self, options: argparse.Namespace, log: Log, spawner: socket.socket, signals: socket.socket) -> None:
        """Read the files.

        Raises:
            DoorwardError: the journal cannot be had.
        """
        self._options = options
        self._log = log
        self._spawner = spawner
        self._signals = signals
        self._settings = DaemonSettings()
        self._stanzas: dict[int, Stanza] = {}
        self._rate = mail.Rate(0)
        self._rereads: deque[float] = deque(maxlen=REREADS_MAX)
        self._reread()
        self._journal = Journal(self._settings.exec_folder)
        self._cycles: dict[str, Cycle] = {}
        self._busy: set[str] = set()
        self._waiting: deque[Task] = deque()
        self._held: deque[Execute] = deque()
        self._mails: deque[Task] = deque()
        self._running: list[Task] = []
        self._selector = selectors.DefaultSelector()
        self._channel: socket.socket | None = None
        self._channels: deque[socket.socket] = deque()
        self._accepting: socket.socket | None = None
        self._stopping = False

    @property
    def folder(self) -> Path:
        """Where the journal is."""
        return self._journal.folder

    # ---- the loop

    def run(self, channels: Iterable[socket.socket], accepting: socket.socket | None = None) -> None:
        """Serve the listener behind each of `channels`, and after them whoever is accepted, until a signal ends it.

        Without `accepting` it ends with its listener, once nothing is open any more.

        Raises:
            HelperError: the spawner is gone.
        """
        self._accepting = accepting
        self._selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
        self._selector.register(self._spawner, selectors.EVENT_READ, self._lose_spawner)
        self._channels.extend(channels)
        self._await_listener()
        next_tick = time.monotonic()
        while not self._is_over():
            for key, _ in self._selector.select(_TICK):
                key.data()
            if time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + _TICK
        self._selector.close()

    def _is_over(self) -> bool:
        """Whether to end: asked to, or nobody will ask for anything and nothing is left to close."""
        if self._stopping:
            return not self._running
        alone = self._channel is None and self._accepting is None
        return alone and not (self._running or self._waiting or self._held or self._mails or self._cycles)

    def _tick(self) -> None:
        self._close_what_is_due()
        self._heed_by_hand()
        self._mail_summary()
        lost = self._log.take_lost()
        if lost:
            self._log.warning("%d lines were lost: the log is slower than what happens", lost)

    def _take_signals(self) -> None:
        for number in set(self._signals.recv(64)):
            if number == signal.SIGHUP:
                self._reread()
            else:
                self._stop(signal.Signals(number).name)

    def _stop(self, why: str) -> None:
        """End what runs, and then this process; what is open is in the journal, for the next start."""
        self._log.info("doorward-exec: %s: stopping, %d cycles stay open until the next start", why, len(self._cycles))
        self._stopping = True
        for kept in (self._waiting, self._held, self._mails):
            kept.clear()
        for task in list(self._running):
            self._finish(task)  # its warden notices that nobody reads any more

    def _lose_spawner(self) -> None:
        msg = "the process that starts commands is gone"
        raise HelperError(msg)

    # ---- the listener

    def _await_listener(self) -> None:
        if self._channels:
            self._listen(self._channels.popleft())
        elif self._accepting is not None:
            self._selector.register(self._accepting, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        """Serve the next one that connects; it is asked who it is by `admit`, which the composition root gives."""
        if self._accepting is None:
            return
        channel, _ = self._accepting.accept()
        try:
            self.admit(channel)
        except HelperError as error:
            self._log.error("doorward-exec: %s", error)
            channel.close()
            return
        self._selector.unregister(self._accepting)
        self._listen(channel)

    def admit(self, channel: socket.socket) -> None:
        """Raise HelperError for whoever is not the listener."""

    def _listen(self, channel: socket.socket) -> None:
        channel.settimeout(0)
        self._channel = channel
        self._selector.register(channel, selectors.EVENT_READ, self._take_orders)

    def _take_orders(self) -> None:
        """Take what has been ordered. What is no order ends the channel, and with it that listener's power."""
        if self._channel is None:
            return
        for _ in range(_BATCH):
            try:
                content, descriptors = wire.receive(self._channel)
            except HelperError as error:
                if not isinstance(error.__cause__, BlockingIOError):
                    self._lose_listener(str(error))
                return
            for descriptor in descriptors:
                os.close(descriptor)
            try:
                self._obey(content)
            except HelperError as error:
                self._lose_listener(str(error))
                return

    def _lose_listener(self, why: str) -> None:
        self._log.info("doorward-exec: the listener: %s", why)
        if self._channel is not None:
            self._selector.unregister(self._channel)
            with suppress(OSError):  # whoever keeps a copy of it for the next doorward-exec has no use for it any more
                self._channel.shutdown(socket.SHUT_RDWR)
            self._channel.close()
        self._channel = None
        if self._accepting is None and self._cycles:
            count, pid = len(self._cycles), os.getpid()
            self._log.warning("doorward-exec: %d cycles are open: PID %d stays until they are closed", count, pid)
        self._await_listener()

    def _obey(self, content: bytes) -> None:
        match decode_order(content):
            case Execute() as order:
                self._execute(order)
            case Report(granted=granted, line=line):
                self._report(line, granted=granted)
            case Reread():
                self._reread()

    # ---- the configuration

    def _reread(self) -> None:
        """Read the files; where they have mistakes everything stays as it was.

        A listener that was taken over cannot keep this process busy with it: so many a second, and no more.
        """
        now = time.monotonic()
        if len(self._rereads) == REREADS_MAX and now - self._rereads[0] < 1:
            return
        self._rereads.append(now)
        try:
            read = configuration.parse(self._options, _NeedsNoKeyrings())
        except ConfigError as error:
            for problem in str(error).splitlines():
                self._log.error("doorward-exec: %s", problem)
            return
        self._settings = read.settings
        self._stanzas = {stanza.number: stanza for stanza in read.access.stanzas}
        if read.settings.alerts is not None and read.settings.alerts.per_hour != self._rate.per_hour:
            self._rate = mail.Rate(read.settings.alerts.per_hour)
        for stanza in read.access.stanzas:
            for problem in commands.problems(stanza):
                self._log.warning("%s", problem)

    def _stanza(self, order: Execute) -> Stanza:
        """Return the stanza that the listener means.

        Raises:
            HelperError: the files here do not have it as the listener read it.
        """
        number = order.execution.stanza
        for again in (False, True):
            if again:
                self._reread()
            stanza = self._stanzas.get(number)
            if stanza is not None and limits.mark(stanza) == order.mark:
                return stanza
        msg = f"stanza {number} is not what the listener read: reload doorwardd"
        raise HelperError(msg)

    # ---- executions

    def _execute(self, order: Execute) -> None:
        """Do what a stanza allows. Whatever keeps it from being done is one loud line, and nothing runs."""
        execution = order.execution
        try:
            stanza = self._stanza(order)
            refusal = limits.refused_execution(stanza, execution, time.time(), self._settings.max_age)
            if refusal:
                raise HelperError(refusal)
            if len(self._waiting) + len(self._held) >= WAITING_MAX:
                msg = f"more than {WAITING_MAX} commands are waiting"
                raise HelperError(msg)
            if execution.command is not None:
                self._run_command(stanza, execution)
            else:
                self._open(stanza, order)
        except (DoorwardError, OSError) as error:
            about = _line((("stanza", str(execution.stanza)), ("source", str(execution.source))))
            self._log.error("doorward-exec: refused %s: %s", about, error)

    def _run_command(self, stanza: Stanza, execution: Execution) -> None:
        named = stanza.commands
        if named is None or execution.command is None:
            return
        user = commands.account(named.user, named.group)
        argv = commands.of_client(named, execution.command, self._settings.sudo_exe)
        environment = commands.environment(execution, user, "command")
        job = self._job(argv, environment, user, may_gain=named.sudo)
        self._put(Task("command", _about(execution.stanza, execution.source, user), job, lambda _: None))

    def _open(self, stanza: Stanza, order: Execute) -> None:
        """Open a cycle, or open it for longer.

        What is open with the same end is not opened twice, unless the opening command is another one now.
        """
        execution, cycle = order.execution, stanza.cycle
        if cycle is None:
            return
        user = commands.cycle_account(cycle)
        argv = commands.of_cycle(cycle.open, execution)
        about = _about(execution.stanza, execution.source, user)
        job = self._job(argv, commands.environment(execution, user, "open"), user)
        if cycle.close is None:
            self._put(Task("open", about, job, lambda _: None))
            return
        wanted = Cycle(
            stanza=execution.stanza,
            source=str(execution.source),
            close=commands.of_cycle(cycle.close, execution),
            environment=commands.environment(execution, user, "close"),
            user=user.name,
            group=cycle.group,
            opened=(),
            at=Moment.now(),
            seconds=execution.seconds,
        )
        if wanted.name in self._busy:
            self._held.append(order)
            return
        kept = self._renewed(wanted)
        self._journal.write(kept)
        self._cycles[kept.name] = kept
        if argv in kept.opened:
            self._log.info("command=renew %s seconds=%d", _line(about), execution.seconds)
            return
        self._busy.add(kept.name)
        self._put(Task("open", about, job, lambda well: self._opened(kept.name, argv, well)))

    def _renewed(self, wanted: Cycle) -> Cycle:
        """Return a cycle with what is known of it: it closes when the later of both ends, never sooner than before."""
        known = self._cycles.get(wanted.name)
        if known is None:
            if len(self._cycles) >= CYCLES_MAX:
                msg = f"more than {CYCLES_MAX} cycles are open"
                raise HelperError(msg)
            return wanted
        same_boot = known.at.boot == wanted.at.boot
        left = known.remaining(wanted.at) if known.retry_at is None else 0.0
        opened = known.opened[-OPENED_MAX:] if same_boot and known.retry_at is None else ()
        return replace(wanted, opened=opened, seconds=max(wanted.seconds, left))

    def _opened(self, name: str, argv: tuple[str, ...], well: bool) -> None:  # noqa: FBT001  a Task's `done`
        self._busy.discard(name)
        known = self._cycles.get(name)
        if known is None or not well:
            return
        self._cycles[name] = replace(known, opened=(*known.opened, argv))
        try:
            self._journal.write(self._cycles[name])
        except OSError as error:  # after a restart another knock would open it again
            self._log.error("doorward-exec: the journal cannot be written: %s", error.strerror)

    # ---- closing

    def adopt(self) -> None:
        """Take over what an earlier process has opened."""
        for found in self._journal.read():
            if isinstance(found, str):
                self._log.error("doorward-exec: %s", found)
                continue
            self._cycles[found.name] = found
        if self._cycles:
            self._log.warning(
                "doorward-exec: %d cycles were left open: they close when they are due", len(self._cycles)
            )

    def _close_what_is_due(self) -> None:
        now = Moment.now()
        closing = sum(task.what == "close" for task in self._running)
        due = (cycle for cycle in self._cycles.values() if cycle.name not in self._busy and cycle.remaining(now) <= 0)
        for cycle in sorted(due, key=lambda one: one.remaining(now))[: max(0, CLOSING_MAX - closing)]:
            self._close(cycle)

    def _close(self, cycle: Cycle) -> None:
        self._cycles[cycle.name] = replace(cycle, opened=())  # from here on it may be half closed
        try:
            user = commands.account(cycle.user, cycle.group)
        except HelperError as error:
            self._log.error("doorward-exec: %s", error)
            self._closed(cycle.name, well=False)
            return
        self._busy.add(cycle.name)
        job = self._job(cycle.close, cycle.environment, user)
        about = _about(cycle.stanza, cycle.source, user)
        self._start(Task("close", about, job, lambda well: self._closed(cycle.name, well=well)))

    def _closed(self, name: str, *, well: bool) -> None:
        self._busy.discard(name)
        cycle = self._cycles[name]
        try:
            if well:
                del self._cycles[name]
                self._journal.remove(cycle)
                return
            self._cycles[name] = cycle.failed(Moment.now())
            self._journal.write(self._cycles[name])
        except OSError as error:
            self._log.error("doorward-exec: the journal cannot be written: %s", error.strerror)
        if not well:
            left = self._cycles[name].remaining(Moment.now())
            what = f"stanza {cycle.stanza} for {cycle.source}: {shlex.join(cycle.close)}"
            self._log.error("doorward-exec: CLOSING FAILED, IT STAYS OPEN, tried again in %.0f s: %s", left, what)

    def _heed_by_hand(self) -> None:
        """Close at once what root closed by hand, and leave to another process what it asks for."""
        folder = self._journal.folder
        if self._channel is None and self._accepting is None and (folder / HANDOVER).exists():
            self._stop("another one takes over")
        taken = folder / "taken"
        try:
            taken.mkdir(mode=0o700, exist_ok=True)
            (folder / withdrawn.FILE).rename(taken / withdrawn.FILE)
        except OSError:
            return
        now = Moment.now()
        for moment, source in withdrawn.read(taken):
            for cycle in list(self._cycles.values()):
                if source in {None, cycle.address} and (cycle.at.boot != now.boot or cycle.at.steady <= moment):
                    self._cycles[cycle.name] = replace(cycle, seconds=0, retry_at=None)
        (taken / withdrawn.FILE).unlink(missing_ok=True)
        self._close_what_is_due()

    # ---- mail

    def _report(self, line: str, *, granted: bool) -> None:
        alerts = self._settings.alerts
        if alerts is None or not (alerts.granted if granted else alerts.denied):
            return
        if self._rate.admits(time.monotonic(), granted=granted):
            self._mail("granted" if granted else "denied", line)

    def _mail_summary(self) -> None:
        line = self._rate.summary(time.monotonic())
        if line is not None:
            self._mail("more", line)

    def _mail(self, word: str, line: str) -> None:
        """Mail one line; that it could not be mailed is a line in the log, and nothing waits for it."""
        alerts = self._settings.alerts
        if alerts is None:
            return
        if len(self._mails) >= MAILS_MAX:
            self._log.error("doorward-exec: a mail was not sent: %d earlier ones have not gone yet", MAILS_MAX)
            return
        try:
            user = commands.account(None)
        except HelperError as error:
            self._log.error("doorward-exec: a mail was not sent: %s", error)
            return
        host = socket.gethostname()
        sender = alerts.sender or f"doorward@{host}"
        content = mail.compose(sender, alerts.addresses, f"doorward {host}: {word}", line)
        argv = (sender, *alerts.addresses)
        if alerts.smtp_server is None:
            argv = (str(alerts.sendmail), "-i", "-f", sender, *alerts.addresses)
        job = replace(
            self._job(argv, commands.clean(user), user), seconds=_MAIL_SECONDS, may_gain=True, server=alerts.smtp_server
        )
        self._mails.append(Task("mail", (("to", ",".join(alerts.addresses)),), job, lambda _: None, stdin=content))
        self._start_waiting()

    # ---- commands

    def _job(
        self, argv: tuple[str, ...], environment: dict[str, str], user: commands.Account, *, may_gain: bool = False
    ) -> Job:
        seconds = self._settings.command_seconds
        return Job(argv, environment, user.uid, user.gid, user.groups, seconds, may_gain)

    def _put(self, task: Task) -> None:
        """Start a command, now or when it is its turn."""
        self._waiting.append(task)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and sum(task.what not in {"close", "mail"} for task in self._running) < RUNNING_MAX:
            self._start(self._waiting.popleft())
        if self._mails and not any(task.what == "mail" for task in self._running):
            self._start(self._mails.popleft())

    def _start(self, task: Task) -> None:
        """Have the spawner run a command whose output and end come back to the loop."""
        task.began = time.monotonic()
        given: list[int] = []
        try:
            given.append(wire.seal("stdin", task.stdin) if task.stdin else os.open(os.devnull, os.O_RDONLY))
            for _ in range(2):
                ours, theirs = os.pipe()
                task.descriptors = (*task.descriptors, ours)
                given.append(theirs)
                os.set_blocking(ours, False)
            wire.send(self._spawner, task.job.encode(), given)
        except (OSError, HelperError) as error:
            for descriptor in task.descriptors:
                os.close(descriptor)
            self._log.error("command=%s %s could not be started: %s", task.what, _line(task.about), error)
            task.done(False)  # noqa: FBT003  a Task's `done`
            return
        finally:
            for descriptor in given:
                os.close(descriptor)
        output, report = task.descriptors
        self._running.append(task)
        self._selector.register(output, selectors.EVENT_READ, lambda: self._take_output(task, output))
        self._selector.register(report, selectors.EVENT_READ, lambda: self._take_report(task, report))

    def _take_output(self, task: Task, output: int) -> None:
        """Keep the beginning of what a command says; once it has closed its output, its end is waited for."""
        content = _read(output)
        if content:
            task.output += content[: OUTPUT_MAX - len(task.output)]
        elif content is not None:
            self._selector.unregister(output)

    def _take_report(self, task: Task, report: int) -> None:
        """Take how a command ended; what it left behind may still hold its output, which nobody waits for."""
        content = _read(report)
        if content:
            task.report += content
        elif content is not None:
            output = task.descriptors[0]
            while (more := _read(output)) and len(task.output) < OUTPUT_MAX:
                task.output += more[: OUTPUT_MAX - len(task.output)]
            self._finish(task)

    def _finish(self, task: Task) -> None:
        for descriptor in task.descriptors:
            with suppress(KeyError):
                self._selector.unregister(descriptor)
            os.close(descriptor)
        self._running.remove(task)
        ended = json.loads(task.report) if task.report else None
        well = ended is not None and ended["in_time"] and ended["status"] == 0
        line = _line((*task.about, *_outcome(task, ended)))
        (self._log.info if well else self._log.error)("command=%s %s", task.what, line)
        if self._stopping:
            return
        task.done(well)
        self._take_up()

    def _take_up(self) -> None:
        """Go on with what had to wait."""
        self._start_waiting()
        for _ in range(len(self._held)):
            self._execute(self._held.popleft())


class _NeedsNoKeyrings(Disk):
    """The files, without what only others need: keyrings, and host names, for which a name server may take its time."""

    def tree(self, folder: Path) -> bytes:
        """Return nothing."""
        del folder
        return b""

    def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """Return none."""
        del name
        return ()


def _read(descriptor: int) -> bytes | None:
    """Return what can be read now, nothing at its end, None where it has to be waited for."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None


def _about(stanza: int, source: object, user: commands.Account) -> tuple[tuple[str, str], ...]:
    return (("stanza", str(stanza)), ("source", str(source)), ("as", user.name))


def _outcome(task: Task, ended: dict[str, int | None] | None) -> tuple[tuple[str, str], ...]:
    """Return how a command went, for its line."""
    if ended is None:
        result = "unknown"
    elif not ended["in_time"]:
        result = f"ended after {task.job.seconds:.0f} s"
    else:
        result = str(ended["status"])
    shown = [line[:_LINE_SHOWN] for line in task.output.decode("utf-8", "replace").splitlines()[:_LINES_SHOWN]]
    return (
        ("argv", "mail" if task.what == "mail" else shlex.join(task.job.argv)),
        ("exit", result),
        ("took", f"{time.monotonic() - task.began:.2f}"),
        ("bytes", str(len(task.output))),
        *((("output", "\n".join(shown)),) if shown else ()),
    )


def _line(pairs: tuple[tuple[str, str], ...]) -> str:
    return " ".join(f"{key}={audit.quote(value)}" for key, value in pairs)
