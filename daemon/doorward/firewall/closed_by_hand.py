"""Grants that root closed manually, for the helper: a reloaded table must not open them again.

One line a closing in a file of the run folder: seconds of time.monotonic(), which all processes share, and the source,
or * for everybody.
"""

from __future__ import annotations

import ipaddress
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doorward.values import IPAddress

FILE: Final = "withdrawn"
_EVERYBODY: Final = "*"


def record(folder: Path, source: IPAddress | None, now: float) -> None:
    """Record that the grants of `source`, or all of them, were closed at `now`.

    Raises:
        OSError: it cannot be recorded.
    """
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / FILE, flags, 0o600)
    try:
        os.write(descriptor, f"{now!r} {source or _EVERYBODY}\n".encode("ascii"))
    finally:
        os.close(descriptor)


def read(folder: Path) -> Iterator[tuple[float, IPAddress | None]]:
    """Moment and source of every closing; None stands for everybody. Invalid lines are ignored."""
    try:
        lines = (folder / FILE).read_text("ascii", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        moment, _, source = line.partition(" ")
        with suppress(ValueError):
            yield float(moment), None if source == _EVERYBODY else ipaddress.ip_address(source)
