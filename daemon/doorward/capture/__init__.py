"""Sources of packets: one interface, one module for each kind of source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from doorward.values import Datagram


PASSED_OVER_MAX: Final = 64  # packets that are not for us before receive() returns to the loop


class Capture(Protocol):
    """A readable source of datagrams for a selectors loop; `ended` means that no more will come."""

    ended: bool = False

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def receive(self) -> Datagram | None:
        """The next datagram without blocking, or None when none is waiting.

        Frames that are no datagram for us are skipped. Raises CaptureError when the source is broken.
        """

    def take_dropped(self) -> int:
        """The packets dropped since the last call because the receive buffer was full; a file or TCP drops none."""
        return 0

    def close(self) -> None:
        """Give the descriptor back."""
