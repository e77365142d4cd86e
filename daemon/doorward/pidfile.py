"""The PID file: one daemon at a time, and how its commands find it and what it works with."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from doorward.errors import DoorwardError
from doorward.firewall.replacing import replace_file
from doorward.values import FirewallBackend

_RECORD_MAX = 65536  # bytes


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


@dataclass(frozen=True, slots=True)
class Running:
    """Where the running daemon's things are, as the host's commands have to know it.

    What can change with a reload is not in it but in the settings' file; `access_file` and `access_folder` are those of
    the command line, None where the file says.
    """

    pid: int
    settings: Path | None
    overrides: tuple[Path, ...]
    access_file: Path | None
    access_folder: Path | None
    run_folder: Path
    pid_file: Path
    exec_folder: Path
    backend: FirewallBackend
    firewall_exe: Path | None


def record_in(folder: Path) -> Path:
    """Return the file that tells of the daemon of this network namespace, whose packet filter is one of its own."""
    return folder / f"running.{Path('/proc/self/ns/net').stat().st_ino}.json"


def note(file: Path, running: Running) -> None:
    """Write what the host's commands have to know, for root alone.

    Raises:
        DoorwardError: it cannot be written.
    """
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{file.parent}: {error.strerror}"
        raise DoorwardError(msg) from error
    found = {field.name: getattr(running, field.name) for field in fields(running)}
    replace_file(file, json.dumps(found, default=_words).encode())


def forget(file: Path, pid: int) -> None:
    """Remove what the daemon `pid` has noted; another one's stays."""
    found = _read(file)
    if found is not None and found.pid == pid:
        with suppress(OSError):
            file.unlink()


def noted(file: Path) -> Running | None:
    """Return what the running daemon has noted; None where none runs, or it was not root who wrote."""
    found = _read(file)
    return found if found is not None and holder(found.pid_file) == found.pid else None


def _words(value: Path | FirewallBackend) -> str:
    return str(value)


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
    paths = {
        name: None if found[name] is None else Path(found[name])
        for name in ("settings", "access_file", "access_folder", "firewall_exe")
    }
    return Running(
        pid=int(found["pid"]),
        overrides=tuple(map(Path, found["overrides"])),
        run_folder=Path(found["run_folder"]),
        pid_file=Path(found["pid_file"]),
        exec_folder=Path(found["exec_folder"]),
        backend=FirewallBackend(found["backend"]),
        **paths,
    )
