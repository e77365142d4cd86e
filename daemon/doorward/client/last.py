"""The command line of the last run: kept for -l and --show-last, without the keys that it carried.

fwknop keeps it as it was typed (client/fwknop.c save_args()), keys included; a file that it wrote is read, and its keys
are not shown.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from typing import TYPE_CHECKING, Final

from doorward.client import spelling
from doorward.client.files import replace_file
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from doorward.client.spelling import Word

NAME: Final = ".fwknop.run"
_PROGRAM: Final = "fwknop"
_FILE_MAX: Final = 64 * 1024


def save(words: Iterable[Word], path: Path) -> None:
    """Write a command line without its keys to a file of mode 0600, as a whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    replace_file(path, f"{_PROGRAM} {text(words)}\n".encode())


def text(words: Iterable[Word]) -> str:
    """Return a command line as a shell, or fwknop, would take it; what carried a key asks for one."""
    parts = []
    for word in spelling.without_keys(words):
        parts.append(word.name)
        if word.value is not None:
            parts.append(shlex.quote(word.value))
    return " ".join(parts)


def load(path: Path) -> list[Word]:
    """Return the options of the last run.

    Raises:
        ClientError: there is no such file, it is somebody else's, or no command line.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(_FILE_MAX) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        nothing = ": no command line was kept there" if error.errno == errno.ENOENT else ""
        msg = f"{path}: {error.strerror or error}{nothing}"
        raise ClientError(msg) from error
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        msg = (
            f"{path}: somebody else could have written this command line (uid {status.st_uid}, "
            f"mode {stat.S_IMODE(status.st_mode):04o}): it is not run; remove the file"
        )
        raise ClientError(msg)
    try:
        (_, *words) = shlex.split(content.decode("utf-8").partition("\n")[0])
        return spelling.read(words)
    except ValueError as error:
        msg = f"{path}: holds no command line of fwknop's: {error}"
        raise ClientError(msg) from error
