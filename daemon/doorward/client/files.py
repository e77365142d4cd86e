"""Files of the client's that nobody else can read, replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MODE: Final = 0o600


def create(path: Path, content: bytes) -> None:
    """Create a file of mode 0600, never following a link; a half-written file is removed again.

    Raises:
        OSError: it exists (FileExistsError), or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        path.unlink()
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Put a complete new file where the old one (or a link) stood; a crash or a full disk leaves the old one.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        create(fresh, content)
    except FileExistsError:  # left over from a process of this number that was killed
        fresh.unlink()
        create(fresh, content)
    try:
        _keep_owner(path, fresh)
        fresh.replace(path)
    except OSError:
        fresh.unlink()
        raise


def _keep_owner(path: Path, fresh: Path) -> None:
    """Leave the file to whom it belonged, where root replaces somebody's."""
    with contextlib.suppress(FileNotFoundError):
        old = path.stat()
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
            os.chown(fresh, old.st_uid, old.st_gid)
