"""AUDIT_FILE: every verdict once more, chained, so that `doorward audit verify` can tell whether all are there."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
from typing import TYPE_CHECKING, Final

from doorward import chain
from doorward.errors import DoorwardError

if TYPE_CHECKING:
    from pathlib import Path

_TAIL: Final = 16_384  # bytes; a line has at most some hundreds


class AuditFile(logging.Handler):
    """Appends the lines of verdicts to a file. Runs in the log's thread, so that a slow disk costs no verdict."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it.

        Raises:
            DoorwardError: it cannot be opened.
        """
        super().__init__()
        self.path = path
        self.failed = 0
        self._previous = chain.GENESIS
        self._descriptor = -1
        self._begin = True
        self.reopen()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a verdict; any other line passes by. What cannot be written is counted in `failed`."""
        message = record.getMessage()
        if "verdict=" in message[:20]:
            self._write(f"{_time(record.created)} {message}", record.created)

    def reopen(self) -> None:
        """Go on in the file of that name, which may be a new one since the last call (logrotate renames it).

        Raises:
            DoorwardError: it cannot be opened; the old one stays.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            msg = f"AUDIT_FILE {self.path} cannot be opened: {error.strerror}"
            raise DoorwardError(msg) from error
        with self.lock or contextlib.nullcontext():
            if self._descriptor >= 0:
                if os.path.sameopenfile(descriptor, self._descriptor):
                    os.close(descriptor)
                    return
                os.close(self._descriptor)
            self._descriptor = descriptor
            self._previous = _last_hash(descriptor) or self._previous
            self._begin = True

    def _write(self, line: str, now: float) -> None:
        if self._begin:
            self._begin = False
            self._append(chain.begin(self._previous, _time(now)))
        self._append(line)

    def _append(self, line: str) -> None:
        text, made = chain.seal(self._previous, line)
        content = f"{text}\n".encode()
        try:
            whole = os.write(self._descriptor, content) == len(content)
        except OSError:
            whole = False
        if whole:
            self._previous = made
        else:
            self.failed += 1
            _drop_torn_line(self._descriptor)

    def close(self) -> None:
        """Give the file back."""
        super().close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).isoformat(timespec="milliseconds")


def _last_hash(descriptor: int) -> str | None:
    """Return the hash of the last line of a file; one that a crash has torn is cut off first."""
    _drop_torn_line(descriptor)
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL)).decode("utf-8", "replace")
    lines = tail.splitlines()
    return chain.last(lines[-1]) if lines else None


def _drop_torn_line(descriptor: int) -> None:
    """Cut off what stands behind the last line's end."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL)
    tail = os.pread(descriptor, _TAIL, start)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(descriptor, start + tail.rfind(b"\n") + 1)
