"""The PID file, for one daemon at a time, and the record by which commands find the daemon and its files."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from doorward.errors import DoorwardError
from doorward.frozen import dataclass
from doorward.linux.files import replace_file

_RECORD_MAX = 65536  # bytes


class PidFile:
    """A file with the PID of its holder, locked while the holder lives; a left-over file does no harm."""

    def __init__(self, path: Path, pid: int | None = None) -> None:
        """Take the lock and write `pid`, by default our own, for signals.

        Raises:
            DoorwardError: another daemon holds the lock, or the file cannot be written.
        """
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.fchmod(self._descriptor, 0o600)  # a process that opens it can lock it, and keep the daemon from starting
        except OSError as error:
            msg = f"the PID file {path} cannot be written: {error.strerror}"
            raise DoorwardError(msg) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            msg = f"a doorwardd with the PID file {path} is running already"
            raise DoorwardError(msg) from error
        try:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{pid or os.getpid()}\n".encode("ascii"))
        except OSError as error:
            os.close(self._descriptor)
            msg = f"the PID file {path} cannot be written: {error.strerror}"
            raise DoorwardError(msg) from error

    def leave(self) -> None:
        """Close the file in a child, which must not write to it; the parent keeps the lock."""
        os.close(self._descriptor)

    def close(self) -> None:
        """Empty the file and release the lock; the file stays, so that nobody locks a deleted one."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder(path: Path) -> int | None:
    """The PID of the running daemon, or None."""
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


@dataclass(frozen=True, slots=True)
class Running:
    """Paths of the running daemon, for the host's commands.

    Values that can change with a reload are in the settings file only; `access_file` and `access_folder` are those of
    the command line, None where the file names them.
    """

    pid: int
    overrides: tuple[Path, ...]
    run_folder: Path
    pid_file: Path
    exec_folder: Path
    replay_file: Path
    settings: Path | None = None
    access_file: Path | None = None
    access_folder: Path | None = None


def record_in(folder: Path) -> Path:
    """The record of the daemon in this network namespace, which has a packet filter of its own."""
    return folder / f"running.{Path('/proc/self/ns/net').stat().st_ino}.json"


def note(file: Path, running: Running) -> None:
    """Write the record for the host's commands, readable by root alone.

    Raises:
        DoorwardError: it cannot be written.
    """
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(file, json.dumps(asdict(running), default=str).encode())
    except OSError as error:
        msg = f"{file}: {error.strerror}"
        raise DoorwardError(msg) from error


def forget(file: Path, pid: int) -> None:
    """Remove the record of the daemon `pid`, but not another one's."""
    found = _read(file)
    if found is not None and found.pid == pid:
        with suppress(OSError):
            file.unlink()


def noted(file: Path) -> Running | None:
    """The record of the running daemon; None where none runs, or root did not write it."""
    found = _read(file)
    return found if found is not None and holder(found.pid_file) == found.pid else None


def _read(file: Path) -> Running | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
            return _understood(json.loads(os.read(descriptor, _RECORD_MAX)))
        finally:
            os.close(descriptor)
    return None


def _understood(found: dict[str, Any]) -> Running:
    """The record in a file; a path that must be there and is not raises TypeError."""
    known = {name: found[name] for name in (field.name for field in fields(Running))}
    pid, overrides = int(known.pop("pid")), tuple(map(Path, known.pop("overrides")))
    return Running(pid, overrides, **{name: Path(path) for name, path in known.items() if path is not None})
