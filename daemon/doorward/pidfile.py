"""The PID file: one daemon at a time, and how its commands find it."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from doorward.errors import DoorwardError

if TYPE_CHECKING:
    from pathlib import Path


class PidFile:
    """A file with the PID of its holder, locked while the holder lives; a left-over file locks nobody out."""

    def __init__(self, path: Path, pid: int | None = None) -> None:
        """Take the lock and write `pid`, or else our own: who is to be signalled.

        Raises:
            DoorwardError: another daemon holds it, or it cannot be written.
        """
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.fchmod(self._descriptor, 0o600)  # whoever can open it can lock it, and keep the daemon from starting
        except OSError as error:
            msg = f"the PID file {path} cannot be written: {error.strerror}"
            raise DoorwardError(msg) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            msg = f"a doorwardd with the PID file {path} is running already"
            raise DoorwardError(msg) from error
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{pid or os.getpid()}\n".encode("ascii"))

    def leave(self) -> None:
        """Let go of the file in a child that shares it, which is not to write there; the lock stays the parent's."""
        os.close(self._descriptor)

    def close(self) -> None:
        """Empty the file and let go of the lock; the file stays, so that nobody locks a deleted one."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder(path: Path) -> int | None:
    """Return the PID of the running daemon, or None where none runs."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        content = os.read(descriptor, 32).strip()
        return int(content) if content.isdigit() else None
    else:
        return None
    finally:
        os.close(descriptor)
