"""Compiles the archive's client and puts it where compiled.py finds it. See there."""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import zipfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT: Final = 4  # files: of several Pythons, and of an archive and the next one
_ROOMS: Final = frozenset({"client", "config", "crypto", "wire"})


def make(archive: str, folder: int, name: str, key: bytes) -> dict[str, tuple[bool, bytes]]:
    """Compile the client in an archive and keep its code in a folder; nothing where that cannot be written.

    The file appears whole or not at all, so any number of processes may do this at once.
    """
    draft = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o600, dir_fd=folder), "wb") as stream:
            modules = dict(_compiled(archive))
            body = marshal.dumps(modules)
            stream.write(hashlib.sha256(key + body).digest() + body)
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        _prune(folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=folder)
        return {}
    return modules


def _compiled(path: str) -> Iterator[tuple[str, tuple[bool, bytes]]]:
    """The modules of the client's rooms, and those above the rooms."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            parts = member.removesuffix(".py").split("/")
            if len(parts) == 2 or (parts[1:2] and parts[1] in _ROOMS):  # noqa: PLR2004  package and module
                code = compile(archive.read(member), f"{path}/{member}", "exec", dont_inherit=True)
                is_package = parts[-1] == "__init__"
                yield ".".join(parts[:-1] if is_package else parts), (is_package, marshal.dumps(code))


def _prune(folder: int) -> None:
    """Remove all but the newest files."""
    with os.scandir(folder) as entries:
        newest = sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in newest[KEPT:]:
        os.unlink(entry.name, dir_fd=folder)
