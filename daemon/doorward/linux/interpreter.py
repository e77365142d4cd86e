"""Processes of this package in a new interpreter: they share no memory with their parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import doorward

_PLACE: Final = Path(doorward.__file__).parents[1]  # the package's folder, or the archive that holds it
_CODE: Final = "import sys; sys.path.insert(0, sys.argv[1]); from {} import main; main(*map(int, sys.argv[2:]))"


def start(module: str, *descriptors: int, stderr: int | None = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Call a module's `main(PARENT, DESCRIPTOR…)` in a session of its own, without environment and terminal.

    Raises:
        OSError: it cannot be started.
    """
    words = map(str, (_PLACE, os.getpid(), *descriptors))
    return subprocess.Popen(  # noqa: S603  this interpreter and this package
        [sys.executable, "-I", "-c", _CODE.format(module), *words],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={},
        cwd="/",
        start_new_session=True,
    )
