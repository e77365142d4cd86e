"""The lock of a journal, one doorward-exec each, and the handover from a process that only waits for open cycles.

The next one asks with a lock too: a question that its process cannot leave behind, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from doorward.commands import journal
from doorward.errors import HelperError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOCK: Final = "lock"  # exclusive: held by the process that closes the cycles
_HANDOVER: Final = "handover"  # shared: held by processes that ask for it
_PATIENCE: Final = 60.0  # seconds for an earlier process to end with its own listener
_LEAVING: Final = 2.0  # seconds from the moment an earlier process sees the request to its end
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
    """Whether another doorward-exec waits for the journal."""
    return _is_held(folder / _HANDOVER)


def is_left_open(folder: Path) -> bool:
    """Whether cycles are open and no process is there to close them."""
    return bool(journal.listed(folder)) and not _is_held(folder / _LOCK)


def _handed_over(descriptor: int, folder: Path, wanted: Callable[[], bool]) -> bool:
    """Ask for the lock behind `descriptor`; whether it was granted.

    Whoever was asked may be leaving when the question is taken back: so the lock is waited for a little longer, and
    one of both closes what is open.
    """
    deadline = time.monotonic() + _PATIENCE
    asking = _opened(folder / _HANDOVER)
    try:
        while wanted() and time.monotonic() < deadline:
            _locked(asking, fcntl.LOCK_SH)  # repeatedly: another process may be testing it
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
    """Whether a process holds a lock on a file; False where the file does not exist."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)
