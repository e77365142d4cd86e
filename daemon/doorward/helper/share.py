"""The connection to the share of two gateways, which the helper makes and the listener uses."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from doorward.errors import ShareError

if TYPE_CHECKING:
    from pathlib import Path

EVERY: Final = 0.9  # seconds between two connections: the listener asks once a second at most


class Connector:
    """Connects to one socket after another, and not too often: the listener is not trusted."""

    def __init__(self) -> None:
        """Connect at once when asked first."""
        self._next = 0.0

    def connect(self, path: Path | None, now: float) -> int:
        """The descriptor of a new connection to `path`, at `now` (seconds of time.monotonic()); None is no share.

        It waits for nothing: a server that accepts nobody any more costs no time.

        Raises:
            ShareError: there is no share, it cannot be reached, or it is too early.
        """
        if path is None:
            msg = "no REPLAY_SHARE is configured"
            raise ShareError(msg)
        if now < self._next:
            msg = "it was asked for a connection a moment ago"
            raise ShareError(msg)
        self._next = now + EVERY
        return connected(path)


def connected(path: Path) -> int:
    """The descriptor of a new connection, which does not block.

    Raises:
        ShareError: it cannot be reached.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as made:
        try:
            made.connect(str(path))
        except OSError as error:
            msg = f"it cannot be reached: {error.strerror}{_REMEDIES.get(type(error), '')}"
            raise ShareError(msg) from error
        return made.detach()


_REMEDIES: Final[dict[type[OSError], str]] = {
    PermissionError: " (doorward-helper is root without its power over files: see docs/two-gateways.md)",
    BlockingIOError: " (it accepts nobody)",
}
