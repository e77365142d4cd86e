"""doorward-exec: runs the commands of stanzas, from decided executions and never from packets, and mails verdicts.

One loop over the listener's orders, the commands that run and a clock. The orders come from a process that may have
been taken over: each is checked against this one's own reading of the files. Commands run in the spawner's children.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from doorward.commands import arguments, lock
from doorward.commands.alerts import Mailing
from doorward.commands.messages import ORDERS, Execute, Report, Reread
from doorward.commands.open_cycles import OpenCycles
from doorward.commands.tasks import Task, Tasks, about_of, line_of
from doorward.config.files import Disk, Question
from doorward.errors import ConfigError, DoorwardError, HelperError
from doorward.helper import limits
from doorward.linux import seqpacket
from doorward.processes import configuration
from doorward.record.log import Throttle

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from pathlib import Path

    from doorward.config.settings import DaemonSettings
    from doorward.config.stanza import Stanza
    from doorward.record.log import Log
    from doorward.values import Execution

WAITING_MAX: Final = 128  # waiting commands
_BATCH: Final = 64  # orders before other events have their turn
REREADS_MAX: Final = 5  # times a second
_TICK: Final = 1.0  # seconds


class Executor:
    """doorward-exec from start to stop."""

    def __init__(
        self,
        options: argparse.Namespace,
        settings: DaemonSettings,
        log: Log,
        spawner: socket.socket,
        signals: socket.socket,
    ) -> None:
        """Read the files. `settings` name the journal; the rest of them is used until the files have no mistakes.

        Raises:
            DoorwardError: the journal cannot be used.
        """
        self._options = options
        self._log = log
        self._refusals = Throttle(log)
        self._spawner = spawner
        self._signals = signals
        self._selector = selectors.DefaultSelector()
        self._settings = settings
        self._tasks = Tasks(spawner, self._selector, log, self._settings.command_seconds, self._take_up)
        self._mailing = Mailing(log, self._tasks)
        self._mailing.follow(settings.alerts)
        self._stanzas: dict[int, Stanza] = {}
        self._rereads: deque[float] = deque(maxlen=REREADS_MAX)
        self._cycles = OpenCycles(settings.exec_folder, log, self._tasks)
        self.folder: Path = self._cycles.folder
        self._held: deque[Execute] = deque()  # waiting for an open or close command of their own cycle
        self._channel: socket.socket | None = None
        self._channels: deque[socket.socket] = deque()
        self._accepting: socket.socket | None = None
        self._stopping = False
        self._reread()

    # ---- the loop

    def run(self, channels: Iterable[socket.socket], accepting: socket.socket | None = None) -> None:
        """Serve the listener behind each of `channels`, then accepted ones, until a signal ends it.

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
                if not self._stopping:  # then nothing new is started
                    key.data()
            if not self._stopping and time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + _TICK
        self._refusals.tick(time.monotonic() + 1)
        self._selector.close()

    def _is_over(self) -> bool:
        """Whether to end: on request, or with no listener left and nothing to close."""
        if self._stopping:
            return True
        return self._is_left_alone and not (self._tasks.any or self._held or self._cycles)

    @property
    def _is_left_alone(self) -> bool:
        """Whether no listener can connect any more."""
        return self._channel is None and self._accepting is None

    def _tick(self) -> None:
        if self._is_left_alone and lock.is_asked_for(self.folder):
            self._stop("another one takes over")
            return
        self._cycles.close_what_is_due()
        self._cycles.close_at_once()
        self._mailing.tick()
        self._refusals.tick(time.monotonic())
        lost = self._log.take_lost()
        if lost:
            self._log.warning("%d lines were lost: the log does not keep up", lost)

    def _take_signals(self) -> None:
        for number in set(self._signals.recv(64)):
            if number == signal.SIGHUP:
                self._reread()
            else:
                self._stop(signal.Signals(number).name)
                return

    def _stop(self, why: str) -> None:
        """End running commands and this process; open cycles stay in the journal for the next start."""
        self._stopping = True
        self._tasks.stop()
        while self._held:
            self._refuse(self._held.popleft().execution, "doorward-exec stops")
        self._log.info("doorward-exec: %s: stopping, %d cycles stay open until the next start", why, len(self._cycles))

    def adopt(self) -> None:
        """Take over the cycles of an earlier process."""
        self._cycles.adopt()

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
        """Serve the next peer that connects; `admit`, from the composition root, checks who it is."""
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
        """Raise HelperError for a peer that is not the listener."""

    def _listen(self, channel: socket.socket) -> None:
        channel.settimeout(0)
        self._channel = channel
        self._selector.register(channel, selectors.EVENT_READ, self._take_orders)

    def _take_orders(self) -> None:
        """Take the orders. A protocol error closes the channel: that listener is no longer served."""
        if self._channel is None:
            return
        try:
            for _ in range(_BATCH):
                self._obey(seqpacket.hear(self._channel))
        except HelperError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                self._lose_listener(str(error))

    def _lose_listener(self, why: str) -> None:
        self._log.info("doorward-exec: the listener: %s", why)
        if self._channel is not None:
            self._selector.unregister(self._channel)
            with suppress(OSError):  # copies that are kept for the next doorward-exec become useless
                self._channel.shutdown(socket.SHUT_RDWR)
            self._channel.close()
        self._channel = None
        if self._accepting is None and self._cycles:
            count, pid = len(self._cycles), os.getpid()
            self._log.warning("doorward-exec: %d cycles are open: PID %d stays until they are closed", count, pid)
        self._await_listener()

    def _obey(self, content: bytes) -> None:
        match ORDERS.decode(content):
            case Execute() as order:
                self._execute(order)
            case Report(granted=granted, line=line):
                self._mailing.report(line, granted=granted)
            case Reread():
                self._reread()

    # ---- the configuration

    def _reread(self) -> None:
        """Read the files; if they have mistakes everything stays as it was.

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
        self._tasks.seconds = read.settings.command_seconds
        self._mailing.follow(read.settings.alerts)
        for stanza in read.access.stanzas:
            for problem in arguments.problems(stanza):
                self._log.warning("%s", problem)

    def _stanza(self, order: Execute) -> Stanza:
        """The stanza that the listener means.

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
        """Run what a stanza allows. A refusal is one line of the log, and nothing runs."""
        execution = order.execution
        try:
            stanza = self._stanza(order)
            refusal = limits.refused_execution(stanza, execution, time.time(), self._settings.max_age)
            if refusal:
                raise HelperError(refusal)
            if len(self._tasks.waiting) + len(self._held) >= WAITING_MAX:
                msg = f"more than {WAITING_MAX} commands are waiting"
                raise HelperError(msg)
            if execution.named:
                self._run_named(stanza, execution)
            elif execution.command is not None:
                self._run_command(stanza, execution)
            elif stanza.cycle is not None and not self._cycles.open(stanza.cycle, execution, stanza.name):
                self._held.append(order)
        except (DoorwardError, OSError) as error:
            self._refuse(execution, str(error))

    def _refuse(self, execution: Execution, why: str) -> None:
        about = line_of((("stanza", str(execution.stanza)), ("source", str(execution.source))))
        self._refusals.error(time.monotonic(), f"doorward-exec: refused {about}: {why}")

    def _take_up(self) -> None:
        """Continue with held executions."""
        for _ in range(len(self._held)):
            self._execute(self._held.popleft())

    def _run_command(self, stanza: Stanza, execution: Execution) -> None:
        named = stanza.commands
        if named is None or execution.command is None:
            return
        user = arguments.account(named.user, named.group)
        argv = arguments.of_client(named, execution.command, self._settings.sudo_exe)
        environment = arguments.environment(execution, user, "command")
        job = self._tasks.job(argv, environment, user, may_gain=named.sudo)
        self._tasks.put(
            Task("command", about_of(stanza.number, stanza.name, execution.source, user), job, lambda _: None)
        )

    def _run_named(self, stanza: Stanza, execution: Execution) -> None:
        """Run a command of the files; of the client's packet its addresses are in it, and nothing else."""
        named, name = stanza.named, execution.command or ""
        text = None if named is None else named.find(name)
        if named is None or text is None:
            return
        user = arguments.account(named.user, named.group)
        argv, environment = arguments.of_cycle(text, execution), arguments.environment(execution, user, "command")
        about = (*about_of(stanza.number, stanza.name, execution.source, user), ("called", name))
        self._tasks.put(Task("named", about, self._tasks.job(argv, environment, user), lambda _: None))


class _NeedsNoKeyrings(Disk):
    """The files, without keyrings and host names, which only other processes need."""

    def ask(self, question: Question, name: str) -> bytes:
        """Empty for those questions."""
        return b"" if question in {Question.TREE, Question.ADDRESSES} else super().ask(question, name)
