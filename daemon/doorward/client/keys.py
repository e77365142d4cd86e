"""`doorward keys generate`: a new pair of keys, printed or put into a file that nobody else can read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path

_MODE = 0o600


def write(text: str, path: Path, *, force: bool = False) -> None:
    """Write a key text to a new file of mode 0600; with `force` replace what stands there in one step.

    Raises:
        ClientError: the file exists, or cannot be written.
    """
    try:
        if force:
            _replace(text, path)
        else:
            _create(text, path)
    except FileExistsError as error:
        msg = f"{path}: exists; keys are never overwritten without --force"
        raise ClientError(msg) from error
    except OSError as error:
        msg = f"{path}: {error.strerror or error}"
        raise ClientError(msg) from error


def _create(text: str, path: Path) -> None:
    """Create the file, never following a link; a half-written file is removed again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        path.unlink()
        raise


def _replace(text: str, path: Path) -> None:
    """Put a complete new file where the old one (or a link) stood; a crash leaves the old one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    _create(text, fresh)
    try:
        fresh.replace(path)
    except OSError:
        fresh.unlink()
        raise
