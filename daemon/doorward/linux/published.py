"""A file for other programs to read, replaced in one step in a folder that no link leads to.

Its folder may be another user's: what is written there is meant for all to read. Root is led nowhere else by that user,
since no link is followed, and another user's folders only lead to folders that this user could move.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MODE: Final = 0o644
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FRESH: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def publish(path: Path, content: bytes) -> None:
    """Replace a file, or a link of its name, by a new one that all can read: a reader finds the old one or the new one.

    It is not written to the disk at once: after a crash of the machine it may be empty.

    Raises:
        OSError: it cannot be written, or a link leads to it; the old one is intact.
    """
    with ExitStack() as opened:
        folder = os.open("/", _STEP)
        opened.callback(os.close, folder)
        for name in path.parent.parts[1:]:
            folder = _next(name, folder)
            opened.callback(os.close, folder)
        _replace(folder, path.name, content)


def _next(name: str, folder: int) -> int:
    try:
        return os.open(name, _STEP, dir_fd=folder)
    except NotADirectoryError as error:
        raise OSError(errno.ELOOP, f"{name} is a link, or no folder") from error


def _replace(folder: int, name: str, content: bytes) -> None:
    fresh = f".{name}.new"  # a collector that looks for names that end in .prom does not see it
    with suppress(FileNotFoundError):  # left over from a process that was killed
        os.unlink(fresh, dir_fd=folder)
    descriptor = os.open(fresh, _FRESH, MODE, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, MODE)
            stream.write(content)
        os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=folder)
        raise
