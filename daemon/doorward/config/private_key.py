"""The file of a key pair of the format doorward 1, on hosts and on clients: mode 0600, two lines.

    doorward1-private BASE64
    doorward1 BASE64 COMMENT

The second line is the public half, as it goes to others. The first one never leaves the machine.
"""

from __future__ import annotations

import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.config import convert, reader
from doorward.errors import ConfigError, DoorwardError, Problem
from doorward.values import PUBLIC_KEY_WORD, Secret, exact_base64

if TYPE_CHECKING:
    from doorward.config.reader import Line
    from doorward.values import PublicKey

PRIVATE_KEY_WORD: Final = "doorward1-private"
KEY_BYTES: Final = 32


class KeyPair(NamedTuple):
    """A pair of keys, and the comment behind the public one."""

    private: Secret
    public: PublicKey
    comment: str | None = None

    @property
    def line(self) -> str:
        """The public half as one line, for inventories and access.conf."""
        return str(self.public) + (f" {self.comment}" if self.comment else "")


def text(pair: KeyPair) -> str:
    """The file of a pair."""
    encoded = binascii.b2a_base64(pair.private.reveal(), newline=False).decode("ascii")
    return (
        "# A key pair of the format doorward 1. Whoever reads this file can act as this machine; the last line is for\n"
        f"# everybody.\n{PRIVATE_KEY_WORD} {encoded}\n{pair.line}\n"
    )


def parse(path: str, content: bytes) -> KeyPair:
    """The pair in a file's content; `path` names it in problems, which never repeat what may be a key.

    Raises:
        ConfigError: the file is something else.
    """
    problems: list[Problem] = []
    lines = reader.lines(Path(path), content, problems)
    named = [line.name for line in lines]
    if not problems and named != [PRIVATE_KEY_WORD, PUBLIC_KEY_WORD]:
        problems.append(Problem(path, 0, f"is no key pair: a line {PRIVATE_KEY_WORD}, then a line {PUBLIC_KEY_WORD}"))
    if problems:
        raise ConfigError(problems)
    private, public = lines
    try:
        return KeyPair(_private(private.value), *convert.public_line(f"{public.name} {public.value}"))
    except (ValueError, DoorwardError) as error:
        where: Line = private if str(error).startswith("the private key") else public
        raise ConfigError([where.problem(str(error))]) from None


def _private(value: str) -> Secret:
    raw = exact_base64(value)
    if raw is None or len(raw) != KEY_BYTES:
        msg = f"the private key is not {KEY_BYTES} bytes in base64, or was cut"
        raise ValueError(msg)
    return Secret(raw)
