"""The journal of command cycles: what has to be closed, when and how, written before anything is opened.

One file a cycle in a folder that only root can write. A file that is there will be closed, whatever happened since:
a restart, kill -9 or a reboot. Within one boot a clock counts that nobody sets, across boots the wall clock.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.errors import ConfigError, DoorwardError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.values import IPAddress

CYCLES_MAX: Final = 4096  # open at a time
OPENED_MAX: Final = 64  # commands that one closing undoes
BACKOFF_FIRST: Final = 5  # seconds until a close that failed is tried again, doubled each time
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
        """Return the present moment."""
        return cls(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), _BOOT_ID.read_text("ascii").strip())


@dataclass(frozen=True, slots=True)
class Cycle:
    """What was opened for `source` and how it is closed: arguments, environment, whose command.

    It is due `seconds` after `at`; after a reboot it waits no longer than that again, whatever the wall clock says.
    `opened` are the arguments of what ran, or was about to, when this was written.
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
    name: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Name it after what closes it: two openings with the same end are one cycle."""
        told = json.dumps([self.close, self.user, self.group]).encode()
        object.__setattr__(self, "name", hashlib.sha256(told).hexdigest()[:32])

    @property
    def address(self) -> IPAddress:
        """The source."""
        return ipaddress.ip_address(self.source)

    def remaining(self, now: Moment) -> float:
        """Return the seconds until it is closed; none or fewer where it is due."""
        left = _left(self.at, self.seconds, now)
        if self.retry_at is None:
            return left
        return max(left, _left(self.retry_at, _backoff(self.failures), now))

    def failed(self, now: Moment) -> Cycle:
        """Return it after its closing failed."""
        return replace(self, failures=self.failures + 1, retry_at=now)


def _left(at: Moment, seconds: float, now: Moment) -> float:
    if at.boot == now.boot:
        return at.steady + seconds - now.steady
    return min(at.wall + seconds - now.wall, seconds)  # a clock that was not set yet does not hold a door open


def _backoff(failures: int) -> int:
    return min(BACKOFF_FIRST << min(failures - 1, 20), BACKOFF_MAX)


class Journal:
    """The folder of cycles. Every method raises OSError where the disk does not do what is asked."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made.

        Raises:
            ConfigError: others than root could write it, and so have root run what they like.
            DoorwardError: it cannot be had.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _see_that_only_root_writes(folder)
        except OSError as error:
            msg = f"{folder} cannot be used: {error.strerror}"
            raise DoorwardError(msg) from error
        self.folder = folder

    def write(self, cycle: Cycle) -> None:
        """Keep a cycle; it is on the disk when this returns."""
        path = self.folder / f"{cycle.name}.new"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(asdict(cycle)).encode())
                file.flush()
                os.fsync(descriptor)
            path.rename(self._path(cycle))
        except OSError:
            with suppress(OSError):
                path.unlink()
            raise
        self._settle()

    def remove(self, cycle: Cycle) -> None:
        """Forget a cycle that is closed."""
        self._path(cycle).unlink(missing_ok=True)
        self._settle()

    def read(self) -> Iterator[Cycle | str]:
        """Yield every cycle; for a file that is none, what is wrong with it. Such a file is kept under another name."""
        for left_over in self.folder.glob("*.new"):
            left_over.unlink()
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            try:
                yield parse(path.read_bytes())
            except (ValueError, TypeError, KeyError, OSError) as error:  # noqa: PERF203  one bad file is one bad file
                aside = path.with_suffix(".damaged")
                with suppress(OSError):
                    path.rename(aside)
                yield f"{path} is damaged, WHAT IT WAS TO CLOSE STAYS OPEN: {error} (see {aside})"

    def _path(self, cycle: Cycle) -> Path:
        return self.folder / f"{cycle.name}{_SUFFIX}"

    def _settle(self) -> None:
        """Wait until the folder itself is on the disk."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def parse(content: bytes) -> Cycle:
    """Return the cycle of a file's bytes.

    Raises:
        ValueError, TypeError, KeyError: it is none.
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
    """Return what is open, for commands that only look; what cannot be read is passed over."""
    found = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with suppress(ValueError, TypeError, KeyError, OSError):
            found.append(parse(path.read_bytes()))
    return found


def _see_that_only_root_writes(folder: Path) -> None:
    """Refuse a folder that others can write, or replace by one of theirs: what is in it is run by root."""
    for path in (folder, *folder.resolve().parents):
        status = path.stat()
        others = status.st_mode & _NOT_ROOTS_ALONE and not (path != folder and status.st_mode & stat.S_ISVTX)
        if status.st_uid != 0 or others:
            raise ConfigError([Problem(str(folder), 0, f"cannot be used: others than root can write {path}")])
