"""Going to the background, with the exit code still telling whether the start worked."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from doorward.errors import DoorwardError

if TYPE_CHECKING:
    from collections.abc import Callable


def detach(serve: Callable[[Callable[[], None]], int]) -> int:
    """Run `serve` in a process of its own session; return 0 when it said it is ready, 1 when it ended before.

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
        os._exit(0)  # the session leader goes, so that no terminal can be taken again
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
    """Let go of the terminal and of the folder that the program was started in."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)
    os.chdir("/")
