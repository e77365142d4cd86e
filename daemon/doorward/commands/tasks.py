"""The commands of doorward-exec: running, waiting, and their results."""

from __future__ import annotations

import os
import selectors
import shlex
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from doorward.commands.messages import ENDS, JOBS, Ended, Job
from doorward.errors import HelperError
from doorward.linux import seqpacket
from doorward.record import line as record_line

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from doorward.commands.arguments import Account
    from doorward.record.log import Log

RUNNING_MAX: Final = 8  # commands at a time
OUTPUT_MAX: Final = 64 * 1024  # bytes; further output is read and dropped
_LINES_SHOWN, _LINE_SHOWN = 5, 200  # of a command's output: lines, characters
_CHUNK: Final = 64 * 1024


@dataclass(slots=True)
class Task:
    """One command, its purpose, and the callback at its end (with whether it succeeded)."""

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
    """The commands that run in the spawner's children or wait for their turn.

    Close commands never wait, mails are sent one at a time, of the others RUNNING_MAX run at once.
    """

    def __init__(
        self,
        spawner: socket.socket,
        selector: selectors.BaseSelector,
        log: Log,
        seconds: int,
        after_each: Callable[[], None],
    ) -> None:
        """Start nothing yet. `selector` serves callbacks; `after_each` is called when a command has ended."""
        self._spawner = spawner
        self._selector = selector
        self._log = log
        self._after_each = after_each
        self.waiting: deque[Task] = deque()  # without mails
        self.mails: deque[Task] = deque()
        self.running: list[Task] = []
        self.seconds = seconds  # that a command may take
        self._stopping = False

    @property
    def any(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self.running or self.waiting or self.mails)

    def count(self, what: str) -> int:
        """The number of running commands of a kind."""
        return sum(task.what == what for task in self.running)

    def job(self, argv: tuple[str, ...], environment: dict[str, str], user: Account, *, may_gain: bool = False) -> Job:
        """A command under an account, with the usual time limit."""
        return Job(argv, tuple(environment.items()), user.uid, user.gid, user.groups, self.seconds, may_gain)

    def stop(self) -> None:
        """End running commands and start none any more; commands that have ended already are handled as usual."""
        self._stopping = True
        for task in (*self.waiting, *self.mails):
            about = line_of((*task.about, _program(task)))
            self._log.error("command=%s %s was not run: doorward-exec stops", task.what, about)
        self.waiting.clear()
        self.mails.clear()
        for task in list(self.running):
            task.report += _read(task.descriptors[1]) or b""
            self._finish(task)  # its warden notices the closed pipe

    def put(self, task: Task) -> None:
        """Start a command, now or when it is its turn."""
        (self.mails if task.what == "mail" else self.waiting).append(task)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self.waiting and sum(task.what not in {"close", "mail"} for task in self.running) < RUNNING_MAX:
            self.start(self.waiting.popleft())
        if self.mails and not any(task.what == "mail" for task in self.running):
            self.start(self.mails.popleft())

    def start(self, task: Task) -> None:
        """Have the spawner run a command; the loop reads its output and its end."""
        task.began = time.monotonic()
        given: list[int] = []
        try:
            given.append(seqpacket.freeze("stdin", task.stdin) if task.stdin else os.open(os.devnull, os.O_RDONLY))
            for _ in range(2):
                ours, theirs = os.pipe()
                task.descriptors = (*task.descriptors, ours)
                given.append(theirs)
                os.set_blocking(ours, False)
            seqpacket.send(self._spawner, JOBS.encode(task.job), given)
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
        """Keep the beginning of a command's output; after its output is closed only its end is waited for."""
        if output not in task.descriptors:  # the task has just ended
            return
        content = _read(output)
        if content:
            task.output += content[: OUTPUT_MAX - len(task.output)]
        elif content is not None:
            self._selector.unregister(output)

    def _take_report(self, task: Task, report: int) -> None:
        """Read the result of a command; processes that it left behind may still hold its output: not waited for."""
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
        ended = ENDS.decode(bytes(task.report)) if task.report else None
        well = ended is not None and ended.well
        line = line_of((*task.about, *_outcome(task, ended)))
        (self._log.info if well else self._log.error)("command=%s %s", task.what, line)
        if ended is not None or not self._stopping:
            task.done(well)
        if self._stopping:
            return
        self._start_waiting()
        self._after_each()


def about_of(stanza: int, name: str | None, source: object, user: Account) -> tuple[tuple[str, str], ...]:
    """The stanza with its name, source and account of a command."""
    return (*stanza_of(stanza, name), ("source", str(source)), ("as", user.name))


def stanza_of(number: int, name: str | None) -> tuple[tuple[str, str], ...]:
    """A stanza's number, and its name if it has one."""
    return (("stanza", str(number)), *(() if name is None else (("name", name),)))


def line_of(pairs: tuple[tuple[str, str], ...]) -> str:
    """Pairs as a line of the log."""
    return " ".join(f"{key}={record_line.quote(value)}" for key, value in pairs)


def _read(descriptor: int) -> bytes | None:
    """The bytes that can be read now; none at the end, None where nothing has come yet."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None


def _program(task: Task) -> tuple[str, str]:
    """What was run, as its line shows it: a client's command, else the program alone.

    The words of a configured command may be secrets: they are in access.conf, for root, and not in the log.
    """
    return ("argv", shlex.join(task.job.argv)) if task.what == "command" else ("program", task.job.argv[0])


def _outcome(task: Task, ended: Ended | None) -> tuple[tuple[str, str], ...]:
    """The result of a command, for its line."""
    if ended is None:
        result = "unknown"
    elif not ended.in_time:
        result = f"ended after {task.job.seconds} s"
    else:
        result = str(ended.status)
    shown = [line[:_LINE_SHOWN] for line in task.output.decode("utf-8", "replace").splitlines()[:_LINES_SHOWN]]
    return (
        _program(task),
        ("exit", result),
        ("took", f"{time.monotonic() - task.began:.2f}"),
        ("bytes", str(len(task.output))),
        *((("output", "\n".join(shown)),) if shown else ()),
    )
