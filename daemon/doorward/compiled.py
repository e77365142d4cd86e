"""The client as compiled code: the archive holds source only, which takes 50 ms and more to compile before every ssh.

The code that one Python made of one archive is a file in the user's cache folder (compiling.py writes it). It is
executed only where nobody else can write, and where it is undamaged; otherwise the source is. This module is itself
compiled each time, and therefore short.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
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


def use(archive: zipimporter, environ: Mapping[str, str]) -> None:
    """Take this program's modules from compiled code, which is made where there is none yet."""
    if sys.implementation.cache_tag is None or not hasattr(os, "O_DIRECTORY"):
        return
    try:
        with open(archive.archive, "rb") as stream:  # noqa: PTH123  pathlib loads 6 ms later, or not at all
            key = hashlib.sha256(stream.read()).digest() + MAGIC_NUMBER + bytes([sys.flags.optimize])
        folder = _open_folder(environ)
    except OSError:
        return
    try:
        modules = _read(folder, key) or _made(archive, folder, key)
    except Exception:  # noqa: BLE001  whatever is wrong with the cache, the source is the way in
        return
    finally:
        os.close(folder)
    sys.meta_path.insert(0, Finder(archive, modules))


def _name(key: bytes) -> str:
    """The file for the code of an archive and a Python."""
    return f"{hashlib.sha256(key).hexdigest()[:_DIGEST]}.{sys.implementation.cache_tag}"


def _open_folder(environ: Mapping[str, str]) -> int:
    """The cache folder, opened; made if it is missing.

    Raises:
        OSError: there is none, or others than this user can write in it.
    """
    cache = environ.get("XDG_CACHE_HOME", "")
    cache = cache if cache.startswith("/") else environ["HOME"] + "/.cache" if environ.get("HOME") else ""
    if not cache:
        raise FileNotFoundError
    path = cache + "/doorward"
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        os.makedirs(path, 0o700)  # noqa: PTH103  as above
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not _is_private(os.fstat(folder)):
        os.close(folder)
        raise PermissionError(path)
    return folder


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _read(folder: int, key: bytes) -> Modules | None:
    """The code in the cache; None where there is none, or it is damaged, or others could have written it."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(_name(key), flags, dir_fd=folder), "rb") as stream:  # noqa: PTH123  a descriptor
            status = os.fstat(stream.fileno())
            if not S_ISREG(status.st_mode) or not _is_private(status):
                return None
            digest, body = stream.read(_DIGEST), stream.read()
    except OSError:
        return None
    if hashlib.sha256(key + body).digest() != digest:
        return None
    modules: Modules = marshal.loads(body)  # noqa: S302  ours, and undamaged
    return modules


def _made(archive: zipimporter, folder: int, key: bytes) -> Modules:
    from doorward import compiling  # noqa: PLC0415  once for an archive and a Python

    return compiling.make(archive.archive, folder, _name(key), key)


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
