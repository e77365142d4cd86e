"""Where packets come from: one interface, one module a kind of source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from doorward.values import Datagram


class Capture(Protocol):
    """A readable source of datagrams for a selectors loop; `ended` says that nothing more will come."""

    ended: bool

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def receive(self) -> Datagram | None:
        """Return the next datagram without blocking, or None when none is waiting.

        Frames that are no datagram for us are passed over. Raises CaptureError when the source is broken.
        """

    def close(self) -> None:
        """Give the descriptor back."""
