"""AUDIT_FILE: every verdict once more, chained, so that `doorward audit verify` can tell whether all are there."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import logging
import os
from typing import TYPE_CHECKING, Final

from doorward.errors import RefusedConfigError, ReportError
from doorward.linux import privileges, trusted_files
from doorward.record import chain
from doorward.record.line import line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doorward.gate import Verdict
    from doorward.record.line import Carried, Suppressed

VERDICT: Final = "verdict"  # logging's `extra`: the verdict of a record
_TAIL: Final = 16_384  # bytes; a line has at most some hundreds


class AuditFile(logging.Handler):
    """Appends the lines of verdicts to a file. Runs in the log's thread, so that a slow disk costs no verdict."""

    def __init__(self, path: Path, opener: Callable[[], int], *, test: bool = False) -> None:
        """Open the file by `opener`, or begin it; `test` marks each line.

        Raises:
            DoorwardError: it cannot be opened.
        """
        super().__init__()
        self.path = path
        self._opener = opener
        self._test = test
        self.failed = 0
        self.why = ""  # the last failure
        self._previous = chain.GENESIS
        self._descriptor = -1
        self._begin = True
        self.reopen()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the verdict of a record that has one. Lines that cannot be written are counted in `failed`."""
        verdict: Verdict | Suppressed | Carried | None = getattr(record, VERDICT, None)
        if verdict is not None:
            self._write(f"{_time(record.created)} {line(verdict, test=self._test)}", record.created)

    def reopen(self) -> None:
        """Go on in the file of that name, which may be a new one since the last call (logrotate renames it).

        Raises:
            DoorwardError: it cannot be opened; the old one stays.
        """
        descriptor = self._opener()
        with self.lock or contextlib.nullcontext():
            if self._descriptor >= 0:
                if os.path.sameopenfile(descriptor, self._descriptor):
                    os.close(descriptor)
                    return
                os.close(self._descriptor)
            self._descriptor = descriptor
            self._previous = _last_hash(descriptor) or self._previous
            self._begin = True

    def _write(self, text: str, now: float) -> None:
        if self._begin:
            self._begin = False
            self._append(chain.begin(self._previous, _time(now)))
        self._append(text)

    def _append(self, text: str) -> None:
        text, made = chain.seal(self._previous, text)
        content = f"{text}\n".encode()
        try:
            whole = os.write(self._descriptor, content) == len(content)
            self.why = os.strerror(errno.ENOSPC)
        except OSError as error:
            whole, self.why = False, str(error.strerror)
        if whole:
            self._previous = made
        else:
            self.failed += 1
            _drop_torn_line(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def of_root(path: Path, *, begin: bool = True) -> int:
    """The descriptor of the file, where no other user can have chosen which file it is; for the helper.

    Raises:
        ReportError: root cannot open it, or may not.
    """
    user = privileges.account()
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    try:
        return _descriptor(path, lambda flags: trusted_files.open_roots(path, flags, groups), begin=begin)
    except OSError as error:
        msg = f"AUDIT_FILE {path} cannot be opened: {error.strerror}"
        raise ReportError(msg) from error


def of_either(path: Path, by_root: Callable[[], int], *, begin: bool = True) -> int:
    """The descriptor of the file, opened by root or else as the listener's user: whoever can, can do so at any time.

    Raises:
        ReportError: neither of them can.
    """
    try:
        return by_root()
    except (RefusedConfigError, ReportError) as error:
        roots = str(error)
    user = privileges.account()
    try:
        with privileges.acting_as(user.pw_uid, user.pw_gid):
            return _descriptor(path, lambda flags: trusted_files.open_regular(path, flags), begin=begin)
    except OSError as error:
        same = roots.endswith(f": {error.strerror}")
        msg = roots if same else f"{roots}; as {user.pw_name}: {error.strerror}"
        raise ReportError(msg) from error


def _descriptor(path: Path, how: Callable[[int], int], *, begin: bool) -> int:
    """Open the file for appending. Without `begin` one that is not there stays so: its folder stands for it."""
    try:
        return how(os.O_RDWR | os.O_APPEND | (os.O_CREAT if begin else 0))
    except FileNotFoundError:
        if begin or not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
            raise
        return os.open(path.parent, os.O_PATH | os.O_CLOEXEC)


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).isoformat(timespec="milliseconds")


def _last_hash(descriptor: int) -> str | None:
    """The hash of the last line of a file; a line that a crash has torn is cut off first."""
    _drop_torn_line(descriptor)
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL)).decode("utf-8", "replace")
    lines = tail.splitlines()
    return chain.last(lines[-1]) if lines else None


def _drop_torn_line(descriptor: int) -> None:
    """Cut off the bytes behind the end of the last line."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL)
    tail = os.pread(descriptor, _TAIL, start)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(descriptor, start + tail.rfind(b"\n") + 1)
