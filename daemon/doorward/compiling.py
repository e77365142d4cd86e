"""Compiles the archive's code and puts it where compiled.py finds it. See there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import marshal
import os
import zipfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT: Final = 4  # files: of several Pythons, and of an archive and the next one


def make(
    archive: tuple[str, bytes], rooms: frozenset[str] | None, folder: int, name: str, key: bytes
) -> dict[str, tuple[bool, bytes]]:
    """Compile these rooms of an archive, or all, and keep the code in a folder; nothing where none can be made there.

    The archive is its path and its content. Who can read the folder can read the file. It appears whole or not at all,
    so any number of processes may do this at once.
    """
    draft = f".{name}.{os.getpid()}"
    modules: dict[str, tuple[bool, bytes]] = {}
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o600, dir_fd=folder), "wb") as stream:
            modules = dict(_compiled(archive, rooms))
            os.fchmod(stream.fileno(), os.fstat(folder).st_mode & 0o666)
            body = marshal.dumps(modules)
            stream.write(hashlib.sha256(key + body).digest() + body)
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        _prune(folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=folder)
    return modules  # also where the disk is full: they are made


def _compiled(
    archive_read: tuple[str, bytes], rooms: frozenset[str] | None
) -> Iterator[tuple[str, tuple[bool, bytes]]]:
    """The modules of these rooms, or of all, and those above the rooms."""
    path, content = archive_read
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            parts = member.removesuffix(".py").split("/")
            if parts[1:] and (rooms is None or parts[1] in rooms or not parts[2:]):
                code = compile(archive.read(member), f"{path}/{member}", "exec", dont_inherit=True)
                is_package = parts[-1] == "__init__"
                yield ".".join(parts[:-1] if is_package else parts), (is_package, marshal.dumps(code))


def _prune(folder: int) -> None:
    """Remove all but the newest files."""
    with os.scandir(folder) as entries:
        newest = sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in newest[KEPT:]:
        os.unlink(entry.name, dir_fd=folder)
