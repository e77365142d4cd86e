"""Files of mode 0600 that are replaced in one step: a reader, or a crash, finds the old file or the new one.

The client uses this module too: nothing here is Linux's alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from doorward import portable

if TYPE_CHECKING:
    from pathlib import Path

MODE: Final = 0o600
_OWN: Final = ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")


def create(path: Path, content: bytes, owner: tuple[int, int] | None = None) -> None:
    """Create a file, never following a link; a half-written file is removed again.

    `owner` (uid, gid) is set on the descriptor, since the name may lead elsewhere by then.

    Raises:
        OSError: it exists (FileExistsError), or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | portable.flags(*_OWN), MODE)
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
    """Replace a file, or a link, by a complete new file; a crash or a full disk leaves the old one.

    Where root replaces another user's file, it stays that user's.

    Raises:
        OSError: it cannot be written; the old file is intact.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)  # left over from a process of this number that was killed
    create(fresh, content, _owner(path))
    try:
        fresh.replace(path)
    except OSError:
        fresh.unlink()
        raise
    sync(path.parent)


def _owner(path: Path) -> tuple[int, int] | None:
    """Return the owner to keep, uid and gid, where root replaces another user's file."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return None
    if portable.user() != 0:
        return None
    return (old.st_uid, old.st_gid) if (old.st_uid, old.st_gid) != (0, os.getegid()) else None


def sync(folder: Path) -> None:
    """Write a folder to the disk, so that a crash keeps the new name, where the system can do that."""
    directory = portable.flags("O_DIRECTORY")
    if not directory:  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY | directory | portable.flags("O_CLOEXEC"))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
