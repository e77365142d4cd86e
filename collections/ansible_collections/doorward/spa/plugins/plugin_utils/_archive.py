# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the controller finds the one archive that is the client, the daemon and the connect helper."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from ansible import constants
from ansible.errors import AnsibleError

SHIPPED = Path(__file__).resolve().parents[2] / "roles" / "daemon" / "files" / "doorward.pyz"


class ArchiveMissingError(AnsibleError):
    """Neither the collection's archive nor an installed package it could be made from is there."""


def find() -> Path:
    """Return the archive of this collection, or the same one made from the installed package `doorward`.

    Raises:
        ArchiveMissingError: there is neither; the text says what to do.
    """
    if SHIPPED.is_file():
        return SHIPPED
    made = scratch() / "doorward.pyz"
    if not made.is_file():
        _build(made)
    return made


def command(name: str) -> list[str]:
    """Return the words that run a command of the archive with this ansible's own Python and cryptography.

    The Python is isolated: it ignores PYTHONPATH and the packages of a user, where cryptography may be.
    """
    specs = filter(None, map(importlib.util.find_spec, ("cryptography", "_cffi_backend")))
    files = [Path(spec.origin) for spec in specs if spec.origin]
    folders = dict.fromkeys(str(file.parents[1] if file.stem == "__init__" else file.parent) for file in files)
    modules = [f"--modules={os.pathsep.join(folders)}"] if folders else []
    return [sys.executable, "-I", str(find()), *modules, name]


def scratch() -> Path:
    """Return this run's own folder on the controller: 0700, removed when ansible ends."""
    folder = Path(constants.DEFAULT_LOCAL_TMP)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Put `text` at `path` with this mode, whole or not at all: forks may write the same file at once."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".doorward-")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(draft).chmod(mode)
    Path(draft).replace(path)


def _build(path: Path) -> None:
    try:
        from doorward import archive  # noqa: PLC0415  only a controller without the shipped archive needs it
    except ImportError as error:
        msg = (
            f"the doorward archive is missing: {SHIPPED} is not there and the Python package doorward is not "
            "installed for this ansible. Install the collection from its tarball, run `make archive` in a source "
            "tree, or `pip install` the package doorward beside ansible-core."
        )
        raise ArchiveMissingError(msg) from error
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".doorward-")
    os.close(handle)
    archive.build(Path(draft))
    Path(draft).replace(path)
