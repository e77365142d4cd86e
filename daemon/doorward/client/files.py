"""Files of the client's that nobody else can read, replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MODE: Final = 0o600


def create(path: Path, content: bytes, owner: tuple[int, int] | None = None) -> None:
    """Create a file of mode 0600, never following a link; a half-written file is removed again.

    `owner` (uid, gid) gets it once it is written: by its descriptor, since the name may lead elsewhere by then.

    Raises:
        OSError: it exists (FileExistsError), or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
    except OSError:
        path.unlink()
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Put a complete new file where the old one (or a link) stood; a crash or a full disk leaves the old one.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    owner = _owner(path)
    try:
        create(fresh, content, owner)
    except FileExistsError:  # left over from a process of this number that was killed
        fresh.unlink()
        create(fresh, content, owner)
    try:
        fresh.replace(path)
    except OSError:
        fresh.unlink()
        raise


def _owner(path: Path) -> tuple[int, int] | None:
    """Return whose the file stays, uid and gid, where root replaces somebody's."""
    with contextlib.suppress(FileNotFoundError):
        old = path.stat()
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
            return old.st_uid, old.st_gid
    return None
