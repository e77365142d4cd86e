"""This machine's key pair of the format doorward 1: one file of mode 0600 for all hosts."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from doorward import portable
from doorward.client import keys
from doorward.config import convert, private_key
from doorward.config.private_key import KeyPair
from doorward.config.reader import refusal
from doorward.crypto import doorward, fingerprint
from doorward.errors import ClientError, WireError
from doorward.values import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_LONGEST: Final = 4096  # bytes
_MAKE: Final = "doorward keys generate --public"


def load(file: Path) -> KeyPair:
    """The pair of a file that nobody else can read.

    Raises:
        ConfigError: the file cannot or must not be read, or is no pair.
    """
    try:
        with file.open("rb") as stream:
            status, content = os.fstat(stream.fileno()), stream.read(_LONGEST)
    except FileNotFoundError as error:
        raise refusal(file, f"is not there: `{_MAKE}` makes it") from error
    except (OSError, ValueError) as error:
        raise refusal(file, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    mode = portable.mode(status)
    if mode & 0o077:
        raise refusal(file, f"holds a private key and has mode {mode:04o}: chmod 600 it")
    return doorward.whole(file, private_key.parse(str(file), content))


def generate(
    file: Path, comment: str | None, random_bytes: Callable[[int], bytes], *, force: bool, environ: Mapping[str, str]
) -> KeyPair:
    """Make a pair and write its file; the folder is made where it is missing.

    Raises:
        ClientError: the file exists and `force` is not set, or cannot be written; the comment is no word.
    """
    private = doorward.generate(random_bytes)
    try:
        made = KeyPair(private, doorward.public_key(private), check_name(comment or usual_comment(environ)))
    except WireError as error:
        msg = f"--comment: {error}"
        raise ClientError(msg) from error
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{file.parent}: cannot be made: {error.strerror}"
        raise ClientError(msg) from error
    keys.write(private_key.text(made), file, force=force)
    return made


def usual_comment(environ: Mapping[str, str]) -> str:
    """`alice@laptop`, without the characters that a name cannot have."""
    user = environ.get("LOGNAME") or portable.login() or environ.get("USERNAME") or "someone"
    text = f"{user}@{socket.gethostname().partition('.')[0]}"
    return "".join(char if char.isascii() and (char.isalnum() or char in "_.@-") else "-" for char in text)[:100]


def words_of(text: str) -> str:
    """The fingerprint of a public key as its line has it.

    Raises:
        ClientError: it is none.
    """
    try:
        return fingerprint.of_line(*convert.public_line(text))
    except (ValueError, WireError) as error:
        msg = f"{text[:60]!r}: {error}"
        raise ClientError(msg) from None
