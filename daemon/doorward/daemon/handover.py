"""One doorward-exec a journal: who holds its lock, and how one that only stays for what is open hands over.

The next one asks with a lock too: a question that its process cannot leave behind, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from doorward import cycles
from doorward.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOCK: Final = "lock"  # exclusive: it closes what is open
_HANDOVER: Final = "handover"  # shared: it would like to
_PATIENCE: Final = 60.0  # seconds in which an earlier one may come to an end with its own listener
_LEAVING: Final = 2.0  # seconds that an earlier one takes at most from its look at the question to its end
_PAUSE: Final = 0.05  # seconds between two attempts


@contextlib.contextmanager
def alone(folder: Path, wanted: Callable[[], bool] | None = None) -> Iterator[None]:
    """Hold the journal's lock in the block.

    With `wanted` one that only stays for what is open is asked to leave it, and waited for as long as that is true.

    Raises:
        HelperError: somebody else has it.
    """
    descriptor = _opened(folder / _LOCK)
    try:
        if not (_locked(descriptor) or (wanted is not None and _handed_over(descriptor, folder, wanted))):
            msg = f"another doorward-exec (PID {os.pread(descriptor, 32, 0).decode().strip()}) has {folder}"
            raise HelperError(msg)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_asked_for(folder: Path) -> bool:
    """Say whether another doorward-exec waits for the journal."""
    return _is_held(folder / _HANDOVER)


def is_left_open(folder: Path) -> bool:
    """Say whether something is open that nobody is there to close."""
    return bool(cycles.listed(folder)) and not _is_held(folder / _LOCK)


def _handed_over(descriptor: int, folder: Path, wanted: Callable[[], bool]) -> bool:
    """Ask for the lock behind `descriptor`, and return whether it has come.

    Whoever was asked may be leaving when the question is taken back: so the lock is waited for a little longer, and
    one of both closes what is open.
    """
    deadline = time.monotonic() + _PATIENCE
    asking = _opened(folder / _HANDOVER)
    try:
        while wanted() and time.monotonic() < deadline:
            _locked(asking, fcntl.LOCK_SH)  # again and again: somebody may be looking at it
            if _locked(descriptor):
                return True
            time.sleep(_PAUSE)
    finally:
        os.close(asking)
    deadline = time.monotonic() + _LEAVING
    while not (ours := _locked(descriptor)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return ours


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(path: Path) -> bool:
    """Say whether a process holds a lock on a file; one that is not there is held by none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)
