"""The last command line, kept without its keys for -l and --show-last.

fwknop keeps keys too (client/fwknop.c save_args()); a file written by fwknop is read, and its keys are not shown.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from typing import TYPE_CHECKING, Final

from doorward import portable
from doorward.client import getopt
from doorward.errors import ClientError
from doorward.linux.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from doorward.client.getopt import Said

NAME: Final = ".fwknop.run"
_PROGRAM: Final = "fwknop"
_FILE_MAX: Final = 64 * 1024


def save(words: Iterable[Said], path: Path) -> None:
    """Write a command line without its keys to a file of mode 0600, in one step.

    Raises:
        OSError: it cannot be written.
    """
    replace_file(path, f"{_PROGRAM} {text(words)}\n".encode())


def text(words: Iterable[Said]) -> str:
    """A command line in a shell's form; options that carry a key become options that ask for it."""
    parts = []
    for said in getopt.without_keys(words):
        parts.append(said.name)
        if said.text is not None:
            parts.append(shlex.quote(said.text))
    return " ".join(parts)


def load(path: Path) -> list[Said]:
    """The options of the last run.

    Raises:
        ClientError: the file is missing, another user could have written it, or it holds no command line.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | portable.flags("O_CLOEXEC", "O_NONBLOCK"))
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(_FILE_MAX) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        nothing = ": no command line was kept there" if error.errno == errno.ENOENT else ""
        msg = f"{path}: {error.strerror or error}{nothing}"
        raise ClientError(msg) from error
    if portable.others_write(status):
        msg = (
            f"{path}: another user could have written this command line (uid {status.st_uid}, "
            f"mode {stat.S_IMODE(status.st_mode):04o}): it is not run; remove the file"
        )
        raise ClientError(msg)
    try:
        (_, *words) = shlex.split(content.decode("utf-8").partition("\n")[0])
        return getopt.read(words)
    except ValueError as error:
        msg = f"{path}: holds no command line of fwknop's: {error}"
        raise ClientError(msg) from error
