"""Where the daemon's lines go. A log that is slow or full costs lines, which are counted, and never a verdict."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import socket
import sys
import threading
from typing import Final

LAST_WORDS: Final = 1.0  # seconds
LINES_PER_SECOND: Final = 50  # of each kind; a person with a wrong key makes one or two
_QUEUE_MAX: Final = 10_000  # lines, some 2 MB
_FACILITIES: Final = logging.handlers.SysLogHandler.facility_names
_SYSLOG: Final = "/dev/log"
_SEVERITY: Final = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}  # syslog(3); 7 is debug


class UnlockedHandler(logging.Handler):
    """A handler for one thread alone: held up in a write, it holds no lock that the program's end waits for."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Write one line, unless a filter is against it."""
        wanted = bool(self.filter(record))
        if wanted:
            self.emit(record)
        return wanted


class SyslogHandler(UnlockedHandler):
    """Lines to syslog by write(2) on a connected socket, which the listener's system call filter leaves it."""

    def __init__(self, identity: str, facility: str) -> None:
        """Connect to the local syslog."""
        super().__init__()
        self._prefix = f"{identity}[{os.getpid()}]: "
        self._facility = _FACILITIES[facility]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(_SYSLOG)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        severity = _SEVERITY.get(record.levelno, 7)
        line = f"<{self._facility << 3 | severity}>{self._prefix}{self.format(record)}"
        try:
            os.write(self._socket.fileno(), line.encode("utf-8", "replace"))
        except OSError:
            self.handleError(record)


class DescriptorHandler(UnlockedHandler):
    """Lines to a descriptor by write(2)."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which stays its owner's; to the journal with the severity in front (sd-daemon(3))."""
        super().__init__()
        self._descriptor = descriptor
        self._severities = _is_journal(descriptor)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; where nobody can read it any more, it is lost."""
        severity = f"<{_SEVERITY.get(record.levelno, 7)}>" if self._severities else ""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, f"{severity}{self.format(record)}\n".encode("utf-8", "replace"))


def _is_journal(descriptor: int) -> bool:
    """Whether a descriptor is the stream that systemd joined to the journal: JOURNAL_STREAM in systemd.exec(5)."""
    status = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class Writer(logging.handlers.QueueListener):
    """The thread that writes; a full queue does not hinder its end from being asked for."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None], *shown: logging.Handler) -> None:
        """Write `lines` through all of the handlers, each by its own level."""
        super().__init__(lines, *shown)
        self._lines = lines

    def enqueue_sentinel(self) -> None:
        """Ask for the end once there is room."""
        self._lines.put(None)


class BoundedQueueHandler(logging.handlers.QueueHandler):
    """Hands lines to a thread that may block; when it lags too far behind, lines are counted instead of kept."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None]) -> None:
        """Put lines into `lines`."""
        super().__init__(lines)
        self.lost = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Keep a line if there is room."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.lost += 1


class Log:
    """The daemon's logger and the thread that writes for it."""

    def __init__(self, logger: logging.Logger, *shown: logging.Handler) -> None:
        """Write the lines of `logger` through the handlers, from a thread.

        A record with `hidden` (logging's `extra`) passes these by and reaches only what write_also() added.
        """
        self._logger = logger
        self.debug, self.info, self.warning, self.error = logger.debug, logger.info, logger.warning, logger.error
        for handler in shown:
            handler.addFilter(lambda record: not getattr(record, "hidden", False))
        lines: queue.Queue[logging.LogRecord | None] = queue.Queue(_QUEUE_MAX)
        self._bounded = BoundedQueueHandler(lines)
        logger.addHandler(self._bounded)
        self._writer = Writer(lines, *shown)
        self._writer.start()

    def write(self, severity: str, text: str) -> None:
        """Write one line; `severity` is debug, info, warning or error."""
        {"debug": self.debug, "info": self.info, "warning": self.warning, "error": self.error}[severity]("%s", text)

    def write_also(self, handler: logging.Handler) -> None:
        """Write the next lines through `handler` too."""
        self._writer.handlers = (*self._writer.handlers, handler)

    def write_no_more(self, handler: logging.Handler) -> None:
        """Write the next lines without `handler`, and close it."""
        self._writer.handlers = tuple(kept for kept in self._writer.handlers if kept is not handler)
        handler.close()

    def take_lost(self) -> int:
        """The number of lines that were lost since the last call."""
        lost, self._bounded.lost = self._bounded.lost, 0
        return lost

    def close(self) -> None:
        """Write the lines that are left and end the thread; give up after LAST_WORDS seconds."""
        self._logger.removeHandler(self._bounded)
        ending = threading.Thread(target=self._writer.stop, daemon=True)
        ending.start()
        ending.join(LAST_WORDS)


class Throttle:
    """Errors that a less trusted process can cause: so many lines a second, and then a count."""

    def __init__(self, log: Log, lines_per_second: int = LINES_PER_SECOND) -> None:
        """Write to `log`."""
        self._log = log
        self._most = lines_per_second
        self._second = self._seen = 0

    def error(self, now: float, text: str) -> None:
        """Write a line at `now` (seconds of a monotonic clock), unless there were too many in its second."""
        self.tick(now)
        self._seen += 1
        if self._seen <= self._most:
            self._log.error("%s", text)

    def tick(self, now: float) -> None:
        """Write how many lines an earlier second than `now` suppressed: a flood's end is counted too."""
        if int(now) == self._second:
            return
        if self._seen > self._most:
            self._log.error("%d more such lines in a second were not written", self._seen - self._most)
        self._second, self._seen = int(now), 0


def make(*, foreground: bool, verbose: bool, identity: str, facility: str, syslog: bool = False) -> Log:
    """The log of this process: standard error in the foreground, syslog in the background or with `syslog`."""
    logger = logging.getLogger(f"doorwardd.{os.getpid()}")
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    shown: list[logging.Handler] = [DescriptorHandler(sys.stderr.fileno())] if foreground else []
    if syslog or not foreground:
        shown.append(_syslog(identity, facility))
    return Log(logger, *shown)


def _syslog(identity: str, facility: str) -> logging.Handler:
    try:
        return SyslogHandler(identity, facility)
    except OSError as error:
        print(f"doorwardd: no syslog at {_SYSLOG} ({error.strerror}): nothing is logged", file=sys.stderr)  # noqa: T201  the last chance to say it
        return logging.NullHandler()
