"""What was granted to whom, and when: connections outlive their grants, and `doorward who` finds here whose they are.

One line a service in a file of the run folder that root alone can read: Unix seconds from and to, source, service and
port that it leads to, and the name. It is gone with the next boot, as are the connections.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.errors import WireError
from doorward.linux.trusted_files import open_regular
from doorward.values import LiveGrant, Service, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from doorward.values import Grant, IPNetwork

FILE: Final = "granted"
BEFORE: Final = "granted.1"
BYTES_MAX: Final = 1 << 20  # of one file, some 12 000 grants; the one before it is kept
_NOTHING: Final = "-"


@dataclass(frozen=True, slots=True)
class Granted:
    """One service that was open to a source; `service` None is every one, `inner` the port that it led to."""

    begun: float  # Unix seconds
    ended: float
    source: IPNetwork
    service: Service | None
    inner: int | None
    name: str | None

    @classmethod
    def of(cls, grant: Grant, now: float) -> Iterator[Granted]:
        """Yield the services of a grant that was opened at `now`."""
        for live in LiveGrant.of(grant):
            inner = None if live.nat is None else live.nat.port
            yield cls(now, now + live.remaining, live.network, live.service, inner, live.name)

    def __str__(self) -> str:
        """The line that parse() reads."""
        inner = _NOTHING if self.inner is None else self.inner
        return (
            f"{self.begun:.3f} {self.ended:.3f} {self.source} {self.service or _NOTHING} {inner} "
            f"{self.name or _NOTHING}"
        )

    @classmethod
    def parse(cls, line: str) -> Granted:
        """Read a line.

        Raises:
            ValueError, WireError: it is none.
        """
        begun, ended, source, service, inner, name = line.split()
        return cls(
            float(begun),
            float(ended),
            ipaddress.ip_network(source),
            None if service == _NOTHING else Service.parse(service),
            None if inner == _NOTHING else int(inner),
            None if name == _NOTHING else check_name(name),
        )


def append(folder: Path, entries: Iterable[Granted]) -> None:
    """Add lines; where the file has become long, the next ones begin a new one.

    Raises:
        OSError: they cannot be written, or another user could have chosen which file it is.
    """
    content = "".join(f"{entry}\n" for entry in entries).encode("ascii")
    descriptor = _opened(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, content)
        if os.fstat(descriptor).st_size > BYTES_MAX:
            (folder / FILE).rename(folder / BEFORE)
    finally:
        os.close(descriptor)


def read(folder: Path) -> list[Granted]:
    """All that is on record, the oldest first; broken lines are left out."""
    return [entry for name in (BEFORE, FILE) for entry in _read(folder / name)]


def _read(path: Path) -> Iterator[Granted]:
    try:
        descriptor = _opened(path, os.O_RDONLY)
    except OSError:
        return
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as stream:
        lines = stream.read(2 * BYTES_MAX).splitlines()
    for line in lines:
        with suppress(ValueError, WireError):
            yield Granted.parse(line)


def _opened(path: Path, flags: int) -> int:
    """A descriptor of the file, which is this user's."""
    descriptor = open_regular(path, flags)
    if os.fstat(descriptor).st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, f"{path.name} is another user's")
