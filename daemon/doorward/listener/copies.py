"""Copies of one packet that the kernel or the network shows more than once. Pure.

A mirror port, a second interface on the same wire, or a change between sockets shows a packet again, the same in every
header, within moments. It opens nothing, like every packet that was seen; but it is no attack either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from doorward.values import Datagram

MOMENT: Final = 1.0  # seconds
COPIES_MAX: Final = 3  # of one packet; more of them are replays
PACKETS_MAX: Final = 1024


class Copies:
    """The authentic packets of the last moment. Times are seconds of time.monotonic()."""

    def __init__(self) -> None:
        """Know no packet."""
        self._seen: dict[Datagram, tuple[float, int]] = {}  # when it came, and its copies so far

    def note(self, datagram: Datagram, now: float) -> None:
        """Expect copies of a packet; of too many packets the newest are known."""
        while self._seen and (len(self._seen) >= PACKETS_MAX or self._oldest < now - MOMENT):
            del self._seen[next(iter(self._seen))]
        self._seen[datagram] = now, 0

    def is_one(self, datagram: Datagram, now: float) -> bool:
        """Whether a packet that was seen is a copy: of the same origin, ports and destination, and at once."""
        came, count = self._seen.get(datagram, (0.0, COPIES_MAX))
        if count >= COPIES_MAX or now - came > MOMENT:
            return False
        self._seen[datagram] = came, count + 1
        return True

    @property
    def _oldest(self) -> float:
        return self._seen[next(iter(self._seen))][0]
