"""What was granted to whom, and when: connections outlive their grants, and `doorward who` finds here whose they are.

One line a service in a file of the run folder that root alone can read: Unix seconds from and to, source, service,
where it leads to (address and port), and the name. It is gone with the next boot, as are the connections.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from doorward.errors import WireError
from doorward.frozen import dataclass
from doorward.linux.trusted_files import open_regular
from doorward.values import LiveGrant, Service, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from doorward.linux.sessions import Flow
    from doorward.values import Grant, IPAddress, IPNetwork

FILE: Final = "granted"
BEFORE: Final = "granted.1"
BYTES_MAX: Final = 1 << 20  # of one file, some 12 000 grants; the one before it is kept
_NOTHING: Final = "-"
_SLACK: Final = 1.0  # seconds: a connection may begin in the moment before its grant is on record


@dataclass(frozen=True, slots=True)
class Granted:
    """One service that was open to a source, or with `service` None every one.

    `target` and `port` are where it led to: an unspecified address is everywhere, None this host.
    """

    begun: float  # Unix seconds
    ended: float
    source: IPNetwork
    service: Service | None
    target: IPAddress | None
    port: int | None
    name: str | None

    @classmethod
    def of(cls, grant: Grant, now: float) -> Iterator[Granted]:
        """Yield the services of a grant that was opened at `now`."""
        for live in LiveGrant.of(grant):
            target, port = (None, None) if live.nat is None else (live.nat.target, live.nat.port)
            yield cls(now, now + live.remaining, live.network, live.service, target, port, live.name)

    def __str__(self) -> str:
        """The line that parse() reads."""
        times, about = f"{self.begun:.3f} {self.ended:.3f}", (self.service, self.target, self.port, self.name)
        return " ".join([times, str(self.source), *(_NOTHING if one is None else str(one) for one in about)])

    @classmethod
    def parse(cls, line: str) -> Granted:
        """Read a line.

        Raises:
            ValueError, WireError: it is none.
        """
        begun, ended, source, service, target, port, name = line.split()
        return cls(
            float(begun),
            float(ended),
            ipaddress.ip_network(source),
            None if service == _NOTHING else Service.parse(service),
            None if target == _NOTHING else ipaddress.ip_address(target),
            None if port == _NOTHING else int(port),
            None if name == _NOTHING else check_name(name),
        )

    def let_in(self, flow: Flow) -> bool:
        """Whether a flow can have begun by this grant: source, dialled port and, where it is known, its time fit."""
        if self.service is not None and self.service.protocol is not flow.protocol:
            return False
        in_time = flow.began is None or self.begun - _SLACK <= flow.began <= self.ended + _SLACK
        return in_time and flow.source.address in self.source and self._leads(flow)

    def _leads(self, flow: Flow) -> bool:
        if flow.is_for_us:
            return self.service is None or flow.asked.port == self.service.port
        passes = self.target is not None and (self.target.is_unspecified or self.target == flow.asked.address)
        return passes and self.port in {None, flow.asked.port}


class Record:
    """Grants by their source."""

    def __init__(self, entries: Iterable[Granted] = ()) -> None:
        """Hold some grants."""
        self._of_one: dict[IPAddress, list[Granted]] = {}
        self._wide: list[Granted] = []
        self.add(entries)

    def add(self, entries: Iterable[Granted]) -> None:
        """Hold more."""
        for entry in entries:
            single = entry.source.num_addresses == 1
            (self._of_one.setdefault(entry.source.network_address, []) if single else self._wide).append(entry)

    def knows(self, source: IPAddress) -> bool:
        """Whether there may be grants of a source."""
        return source in self._of_one or bool(self._wide)

    def fitting(self, flow: Flow) -> list[Granted]:
        """The grants by which a flow can have begun."""
        if not flow.established:
            return []
        return [one for one in (*self._of_one.get(flow.source.address, ()), *self._wide) if one.let_in(flow)]


def append(folder: Path, entries: Iterable[Granted]) -> None:
    """Add lines; where the file has become long, the next ones begin a new one.

    Raises:
        OSError: they cannot be written, or another user could have chosen which file it is.
    """
    content = "".join(f"{entry}\n" for entry in entries).encode("ascii")
    descriptor = _opened(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        before = os.fstat(descriptor).st_size
        if os.write(descriptor, content) < len(content):
            os.ftruncate(descriptor, before)  # else the next line would be broken too
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if before + len(content) > BYTES_MAX:
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
