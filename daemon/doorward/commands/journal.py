"""The journal of command cycles: the close commands and their times, written before anything is opened.

One file a cycle in a folder that only root can write. A file that is there will be closed, whatever happened since:
a restart, kill -9 or a reboot. Within one boot the monotonic clock counts, across boots the wall clock.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.errors import ConfigError, DoorwardError, Problem
from doorward.linux import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.values import IPAddress

CYCLES_MAX: Final = 4096  # open at a time
OPENED_MAX: Final = 64  # commands that one close command undoes
BACKOFF_FIRST: Final = 5  # seconds until a failed close command is tried again, doubled each time
BACKOFF_MAX: Final = 3600
_SUFFIX: Final = ".json"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NOT_ROOTS_ALONE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by both clocks: Unix seconds, and seconds since this boot."""

    wall: float
    steady: float
    boot: str

    @classmethod
    def now(cls) -> Moment:
        """The present moment."""
        return cls(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), _BOOT_ID.read_text("ascii").strip())


@dataclass(frozen=True, slots=True)
class Cycle:
    """An open cycle of `source` and its close command: arguments, environment, account.

    It is due `seconds` after `at`; after a reboot it waits no longer than that again, whatever the wall clock says.
    `opened` are the arguments of what ran, or was about to, when this was written; `client` is the stanza's name.
    """

    stanza: int
    source: str
    close: tuple[str, ...]
    environment: dict[str, str]
    user: str
    group: str | None
    opened: tuple[tuple[str, ...], ...]
    at: Moment
    seconds: float
    failures: int = 0
    retry_at: Moment | None = None
    client: str | None = None
    name: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Derive the name from the close command: two openings with the same end are one cycle."""
        told = json.dumps([self.close, self.user, self.group]).encode()
        object.__setattr__(self, "name", hashlib.sha256(told).hexdigest()[:32])

    @property
    def address(self) -> IPAddress:
        """The source."""
        return ipaddress.ip_address(self.source)

    def remaining(self, now: Moment) -> float:
        """The seconds until it is due; zero or negative once it is."""
        left = _left(self.at, self.seconds, now)
        if self.retry_at is None:
            return left
        return max(left, _left(self.retry_at, _backoff(self.failures), now))

    def failed(self, now: Moment) -> Cycle:
        """The cycle after a failed close command."""
        return replace(self, failures=self.failures + 1, retry_at=now)


def _left(at: Moment, seconds: float, now: Moment) -> float:
    if at.boot == now.boot:
        return at.steady + seconds - now.steady
    return min(at.wall + seconds - now.wall, seconds)  # a clock that is not set yet keeps no door open


def _backoff(failures: int) -> int:
    return min(BACKOFF_FIRST << min(failures - 1, 20), BACKOFF_MAX)


class Journal:
    """The folder of cycles. Every method raises OSError on a disk error."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`; it is created.

        Raises:
            ConfigError: other users could write it, and have root run their commands.
            DoorwardError: it cannot be created.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _see_that_only_root_writes(folder)
        except OSError as error:
            msg = f"{folder} cannot be used: {error.strerror}"
            raise DoorwardError(msg) from error
        self.folder = folder

    def write(self, cycle: Cycle) -> None:
        """Store a cycle; it is on the disk when this returns."""
        files.replace_file(self._path(cycle), json.dumps(asdict(cycle)).encode())

    def remove(self, cycle: Cycle) -> None:
        """Remove a closed cycle."""
        self._path(cycle).unlink(missing_ok=True)
        files.sync(self.folder)

    def read(self) -> Iterator[Cycle | str]:
        """Every cycle, and for a damaged file its fault; the file is renamed."""
        for left_over in self.folder.glob("*.new"):
            left_over.unlink()
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            try:
                yield parse(path.read_bytes())
            except (ValueError, TypeError, KeyError, OSError) as error:  # noqa: PERF203  the other files are still read
                aside = path.with_suffix(".damaged")
                with suppress(OSError):
                    path.rename(aside)
                yield f"{path} is damaged, WHAT IT WAS TO CLOSE STAYS OPEN: {error} (see {aside})"

    def _path(self, cycle: Cycle) -> Path:
        return self.folder / f"{cycle.name}{_SUFFIX}"


def parse(content: bytes) -> Cycle:
    """Parse a file of the journal.

    Raises:
        ValueError, TypeError, KeyError: it is damaged.
    """
    fields: dict[str, Any] = json.loads(content)
    del fields["name"]
    for name in ("at", "retry_at"):
        fields[name] = None if fields[name] is None else Moment(**fields[name])
    close, opened = fields["close"], fields["opened"]
    cycle = Cycle(**fields | {"close": tuple(close), "opened": tuple(map(tuple, opened))})
    if not cycle.close or not all(isinstance(word, str) for word in cycle.close):
        msg = "no closing command"
        raise ValueError(msg)
    cycle.remaining(cycle.at)
    _ = cycle.address
    return cycle


def listed(folder: Path) -> list[Cycle]:
    """The open cycles, for commands that only read; damaged files are skipped."""
    found = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with suppress(ValueError, TypeError, KeyError, OSError):
            found.append(parse(path.read_bytes()))
    return found


def _see_that_only_root_writes(folder: Path) -> None:
    """Refuse a folder that other users can write or replace: root runs the commands in it."""
    for path in (folder, *folder.resolve().parents):
        status = path.stat()
        others = status.st_mode & _NOT_ROOTS_ALONE and not (path != folder and status.st_mode & stat.S_ISVTX)
        if status.st_uid != 0 or others:
            raise ConfigError([Problem(str(folder), 0, f"cannot be used: others than root can write {path}")])
