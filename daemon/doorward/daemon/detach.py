"""Leaving the terminal: for a daemon in the background, and for the listener of a daemon in the foreground."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.errors import DoorwardError

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST: Final = 4096  # characters that are shown at once


def detach(serve: Callable[[Callable[[], None]], int]) -> int:
    """Run `serve` in a background process; return 0 when it is ready, 1 when it ends before.

    `serve` gets a function to call once it is ready. Its standard error stays the terminal until then, so that
    problems of the start are seen by whoever started it.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as channel:
            return 0 if channel.read(1) else 1
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)  # the session leader ends, so that no terminal can be acquired
    os._exit(_serve(serve, writer))


def _serve(serve: Callable[[Callable[[], None]], int], writer: int) -> int:
    def ready() -> None:
        os.write(writer, b"1")
        os.close(writer)
        leave_terminal()

    try:
        return serve(ready)
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  the reason, while there is still a terminal
        return 1


def leave_terminal() -> None:
    """Release the terminal and the working folder."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)
    os.chdir("/")


class Screen:
    """The output of a child without a terminal: a pipe, which a thread of the parent copies to its own terminal.

    Where standard error is no terminal, the child writes to it directly.
    """

    def __init__(self, *, foreground: bool) -> None:
        """Make the pipe, where standard error is a terminal and stays it."""
        self._pipe = os.pipe() if foreground and os.isatty(sys.stderr.fileno()) else None
        self._foreground = foreground
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        """In the child: begin a session without a terminal, with empty input and the pipe as output.

        A background daemon has such a session already, and leave_terminal() releases the rest.
        """
        if not self._foreground:
            return
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = sys.stderr.fileno()
        if self._pipe is not None:
            reader, output = self._pipe
            os.close(reader)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)

    def show(self) -> None:
        """In the parent: begin to show the child's output."""
        if self._pipe is not None:
            reader, writer = self._pipe
            os.close(writer)
            self._thread = threading.Thread(target=_copy, args=(reader, sys.stderr.fileno()), daemon=True)
            self._thread.start()

    def close(self, seconds: float) -> None:
        """Wait until all output is shown, after the child's end."""
        if self._thread is not None:
            self._thread.join(seconds)


def _copy(source: int, terminal: int) -> None:
    """Copy lines without control characters: a terminal answers some of them with typed input."""
    with open(source, encoding="utf-8", errors="replace", newline="\n") as lines, contextlib.suppress(OSError):
        for line in iter(partial(lines.readline, _LONGEST), ""):
            os.write(terminal, "".join(one if one.isprintable() or one in "\t\n" else "?" for one in line).encode())
