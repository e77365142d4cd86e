"""The program as compiled code: the archive holds source only, and to compile it takes longer than to run it.

The code that one Python made of one archive is a file (compiling.py writes it): of what a person's ssh waits for in
that user's cache folder, of everything in root's, on a host where the role or the package has made one. It is executed
only where nobody but its owner can write, and where it is undamaged; otherwise the source is. This module is itself
compiled each time, and therefore short.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
from contextlib import suppress
from importlib.util import MAGIC_NUMBER, spec_from_loader
from stat import S_ISREG
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from zipimport import zipimporter

    Modules = dict[str, tuple[bool, bytes]]  # whether it is a package, and its code as marshal has it

_DIGEST = 32  # bytes, SHA-256
ROOTS = "/var/cache/doorward"


class Place:
    """A folder for compiled code, and who may have written what is in it."""

    def __init__(self, path: str, owner: int, mode: int, rooms: frozenset[str] | None) -> None:
        """Take what `owner` alone may write and whom `mode` lets read; the code of these rooms, or of all."""
        self.path, self.owner, self.mode, self.rooms = path, owner, mode, rooms

    def trusts(self, status: os.stat_result) -> bool:
        """Whether a file or a folder is the owner's, and no one more may read or write it than `mode` says."""
        return status.st_uid == self.owner and not status.st_mode & 0o777 & ~self.mode


def of_the_user(environ: Mapping[str, str]) -> Place | None:
    """The place for what a person or a program waits for; None where there is no home."""
    cache = environ.get("XDG_CACHE_HOME", "")
    cache = cache if cache.startswith("/") else environ["HOME"] + "/.cache" if environ.get("HOME") else ""
    rooms = frozenset(("client", "config", "crypto", "wire"))
    return Place(cache + "/doorward", os.geteuid(), 0o700, rooms) if cache else None


def of_the_host() -> Place | None:
    """The place for all of the program; None where nobody has installed it so. Root writes, everybody may read."""
    return Place(ROOTS, 0, 0o755, None) if os.path.isdir(ROOTS) else None  # noqa: PTH112  pathlib loads 6 ms later


def use(archive: zipimporter, place: Place | None) -> None:
    """Take this program's modules from compiled code, which is made where there is none yet."""
    if place is None or sys.implementation.cache_tag is None or not hasattr(os, "O_DIRECTORY"):
        return
    try:
        with open(archive.archive, "rb") as stream:  # noqa: PTH123  as above
            content = stream.read()
        key = hashlib.sha256(content).digest() + MAGIC_NUMBER + bytes([sys.flags.optimize])
        folder = _open_folder(place)
    except OSError:
        return
    try:
        modules = _read(place, folder, key) or _made((archive.archive, content), place, folder, key)
    except Exception:  # noqa: BLE001  whatever is wrong with the cache, the source is the way in
        return
    finally:
        os.close(folder)
    sys.meta_path.insert(0, Finder(archive, modules))


def _name(key: bytes) -> str:
    """The file for the code of an archive and a Python."""
    return f"{hashlib.sha256(key).hexdigest()[:_DIGEST]}.{sys.implementation.cache_tag}"


def _open_folder(place: Place) -> int:
    """The folder of a place, opened; made, with the one above it, if it is missing. A home is nobody's to make.

    Raises:
        OSError: there is none, or others than its owner can write in it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(place.path, flags)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(os.path.dirname(place.path), place.mode)  # noqa: PTH102, PTH120  as above
        with suppress(FileExistsError):  # another process was faster
            os.mkdir(place.path, place.mode)  # noqa: PTH102  as above
        folder = os.open(place.path, flags)
    if not place.trusts(os.fstat(folder)):
        os.close(folder)
        raise PermissionError(place.path)
    return folder


def _read(place: Place, folder: int, key: bytes) -> Modules | None:
    """The code in the cache; None where there is none, or it is damaged, or others could have written it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(_name(key), flags, dir_fd=folder), "rb") as stream:  # noqa: PTH123  a descriptor
            status = os.fstat(stream.fileno())
            if not S_ISREG(status.st_mode) or not place.trusts(status):
                return None
            digest, body = stream.read(_DIGEST), stream.read()
    except OSError:
        return None
    if hashlib.sha256(key + body).digest() != digest:
        return None
    modules: Modules = marshal.loads(body)  # noqa: S302  ours, and undamaged
    return modules


def _made(archive: tuple[str, bytes], place: Place, folder: int, key: bytes) -> Modules:
    """The code, made and kept by who may write here; nothing for everybody else.

    The archive is given as its path and the content that was read: by now another one may lie there.
    """
    if os.geteuid() != place.owner:
        return {}
    from doorward import compiling  # noqa: PLC0415  once for an archive and a Python

    return compiling.make(archive, place.rooms, folder, _name(key), key)


class Finder:
    """Finds modules in compiled code, and leaves the others to the archive."""

    def __init__(self, archive: zipimporter, modules: Modules) -> None:
        """Take the archive and the code of its modules."""
        self._archive, self._modules = archive, modules

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """The spec of a module, or None where the archive has it."""
        if name not in self._modules:
            return None
        is_package, place = self._modules[name][0], self._place(name)
        spec = spec_from_loader(name, self, origin=place, is_package=is_package)  # type: ignore[arg-type]
        if spec is not None:
            spec.has_location = True
            spec.submodule_search_locations = [place.removesuffix("/__init__.py")] if is_package else None
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave the making to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        exec(marshal.loads(self._modules[module.__name__][1]), vars(module))  # noqa: S102, S302  as above

    def get_source(self, name: str) -> str:
        """The text for a traceback."""
        return self._archive.get_data(self._place(name)).decode()

    def _place(self, name: str) -> str:
        ending = "/__init__.py" if self._modules[name][0] else ".py"
        return f"{self._archive.archive}/{name.replace('.', '/')}{ending}"
