"""Files that are replaced in one step: what is read at boot, or by somebody else, is the old one or the new one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from doorward.errors import FirewallError

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(file: Path, content: bytes) -> None:
    """Replace `file` by `content`, mode 0600, in one step that survives a crash.

    Raises:
        FirewallError: it cannot be written; the old file is whole.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:  # noqa: PTH123  a descriptor, no path
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        new.replace(file)
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        msg = f"{file}: {error.strerror}"
        raise FirewallError(msg) from error
