"""The file that says how `doorward connect` ended, since ssh hides a ProxyCommand's words under ControlPersist.

Every end is in it: the text for an end by a signal is there from the start, and a connection empties the file. Written
for Python 3.6, so that a Python that is too old can say so too.
"""

import contextlib
import os
from typing import Optional, Sequence  # noqa: UP035  Python 3.6 parses this file

KILLED = "the helper was ended by a signal before there was a connection"
_OPTION = "--status"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def named(words: Sequence[str]) -> Optional[str]:  # noqa: UP045  as above
    """The file that a command line names, even where the command line as a whole makes no sense."""
    for place, word in enumerate(words):
        if word == _OPTION and place + 1 < len(words):
            return words[place + 1]
        if word.startswith(_OPTION + "="):
            return word[len(_OPTION) + 1 :]
    return None


def write(path: str, reason: str) -> None:
    """Replace the content by one line, or by nothing.

    Raises:
        OSError: it cannot be written.
    """
    line = " ".join(reason.split())
    with os.fdopen(os.open(path, _FLAGS, 0o600), "w", encoding="utf-8", errors="replace") as stream:
        stream.write(line + "\n" if line else "")


def leave(words: Sequence[str], reason: str) -> None:
    """Write a reason into the file that a command line names, where that is possible."""
    path = named(words)
    if path:
        with contextlib.suppress(OSError, ValueError):
            write(path, reason)
