"""The commands of doorward-exec on their way: which of them run, which wait, and how they went."""

from __future__ import annotations

import json
import os
import selectors
import shlex
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from doorward import audit
from doorward.daemon.spawner import Job
from doorward.errors import HelperError
from doorward.privsep import channel as wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from doorward.daemon.commands import Account
    from doorward.daemon.log import Log

RUNNING_MAX: Final = 8  # commands at a time
OUTPUT_MAX: Final = 64 * 1024  # bytes; what comes after is read and dropped
_LINES_SHOWN, _LINE_SHOWN = 5, 200  # of a command's output: lines, characters
_CHUNK: Final = 64 * 1024


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


class Tasks:
    """What runs in the spawner's children, and what waits for its turn there.

    Closing ones wait for nothing, mails go one at a time, of the others RUNNING_MAX run at once.
    """

    def __init__(
        self,
        spawner: socket.socket,
        selector: selectors.BaseSelector,
        log: Log,
        seconds: float,
        after_each: Callable[[], None],
    ) -> None:
        """Start nothing yet. `selector` serves callbacks; `after_each` is called when a command is over."""
        self._spawner = spawner
        self._selector = selector
        self._log = log
        self._after_each = after_each
        self._waiting: deque[Task] = deque()
        self._mails: deque[Task] = deque()
        self.running: list[Task] = []
        self.seconds = seconds  # that a command may take
        self._stopping = False

    @property
    def any(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self.running or self._waiting or self._mails)

    @property
    def waiting(self) -> int:
        """How many wait, mails apart."""
        return len(self._waiting)

    @property
    def mails(self) -> int:
        """How many mails wait."""
        return len(self._mails)

    def count(self, what: str) -> int:
        """Return how many of a kind run."""
        return sum(task.what == what for task in self.running)

    def job(self, argv: tuple[str, ...], environment: dict[str, str], user: Account, *, may_gain: bool = False) -> Job:
        """Return a command of some account's that has the usual time."""
        return Job(argv, environment, user.uid, user.gid, user.groups, self.seconds, may_gain)

    def stop(self) -> None:
        """End what runs, and start nothing any more. What has ended already is over as ever."""
        self._stopping = True
        for task in (*self._waiting, *self._mails):
            about = line_of((*task.about, ("argv", _argv(task))))
            self._log.error("command=%s %s was not run: doorward-exec stops", task.what, about)
        self._waiting.clear()
        self._mails.clear()
        for task in list(self.running):
            task.report += _read(task.descriptors[1]) or b""
            self._finish(task)  # its warden notices that nobody reads any more

    def put(self, task: Task) -> None:
        """Start a command, now or when it is its turn."""
        (self._mails if task.what == "mail" else self._waiting).append(task)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and sum(task.what not in {"close", "mail"} for task in self.running) < RUNNING_MAX:
            self.start(self._waiting.popleft())
        if self._mails and not any(task.what == "mail" for task in self.running):
            self.start(self._mails.popleft())

    def start(self, task: Task) -> None:
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
            self._log.error("command=%s %s could not be started: %s", task.what, line_of(task.about), error)
            task.done(False)  # noqa: FBT003  a Task's `done`
            return
        finally:
            for descriptor in given:
                os.close(descriptor)
        output, report = task.descriptors
        self.running.append(task)
        self._selector.register(output, selectors.EVENT_READ, lambda: self._take_output(task, output))
        self._selector.register(report, selectors.EVENT_READ, lambda: self._take_report(task, report))

    def _take_output(self, task: Task, output: int) -> None:
        """Keep the beginning of what a command says; once it has closed its output, its end is waited for."""
        if output not in task.descriptors:  # its end, or all others', came just before
            return
        content = _read(output)
        if content:
            task.output += content[: OUTPUT_MAX - len(task.output)]
        elif content is not None:
            self._selector.unregister(output)

    def _take_report(self, task: Task, report: int) -> None:
        """Take how a command ended; what it left behind may still hold its output, which nobody waits for."""
        if report not in task.descriptors:
            return
        content = _read(report)
        if content:
            task.report += content
        elif content is not None:
            self._finish(task)

    def _finish(self, task: Task) -> None:
        output = task.descriptors[0]
        while (more := _read(output)) and len(task.output) < OUTPUT_MAX:
            task.output += more[: OUTPUT_MAX - len(task.output)]
        for descriptor in task.descriptors:
            with suppress(KeyError):
                self._selector.unregister(descriptor)
            os.close(descriptor)
        task.descriptors = ()
        self.running.remove(task)
        ended = json.loads(task.report) if task.report else None
        well = ended is not None and ended["in_time"] and ended["status"] == 0
        line = line_of((*task.about, *_outcome(task, ended)))
        (self._log.info if well else self._log.error)("command=%s %s", task.what, line)
        if ended is not None or not self._stopping:
            task.done(well)
        if self._stopping:
            return
        self._start_waiting()
        self._after_each()


def about_of(stanza: int, source: object, user: Account) -> tuple[tuple[str, str], ...]:
    """Return what a command is for: its stanza, its source, its account."""
    return (("stanza", str(stanza)), ("source", str(source)), ("as", user.name))


def line_of(pairs: tuple[tuple[str, str], ...]) -> str:
    """Return pairs as a line of the log has them."""
    return " ".join(f"{key}={audit.quote(value)}" for key, value in pairs)


def _read(descriptor: int) -> bytes | None:
    """Return what can be read now, nothing at its end, None where it has to be waited for."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None


def _argv(task: Task) -> str:
    """Return what a command's line shows of its arguments; a mail's are in what it is about."""
    return "mail" if task.what == "mail" else shlex.join(task.job.argv)


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
        ("argv", _argv(task)),
        ("exit", result),
        ("took", f"{time.monotonic() - task.began:.2f}"),
        ("bytes", str(len(task.output))),
        *((("output", "\n".join(shown)),) if shown else ()),
    )
