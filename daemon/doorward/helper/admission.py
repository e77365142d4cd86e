"""The tags that the listener wants the kernel to let pass, within bounds of the helper's own. Pure.

A listener that was taken over can let anybody's packets through to itself, and nothing more: a tag opens no door.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.helper.messages import TAG_BYTES

if TYPE_CHECKING:
    from doorward.helper.messages import Tags

EPOCH: Final = 64  # seconds: a tag's time in the format doorward 1
EPOCHS: Final = 3  # the last, the present and the next: for so many a client has a tag
PAUSE: Final = 1.0  # seconds between two refreshes


class Admission:
    """The tags of one refresh after the other, as they arrive."""

    def __init__(self) -> None:
        """Take no tags before adopt()."""
        self._most = 0
        self._next = 0.0
        self._arriving: dict[bytes, float] = {}
        self._count = 0

    def adopt(self, clients: int) -> None:
        """Bound the tags by the lines of CLIENT of a new configuration, which has its first refresh at any time."""
        self._most, self._next = EPOCHS * clients, 0.0
        self._begin()

    def take(self, tags: Tags, now: float, steady: float) -> dict[bytes, float] | None:
        """The end of every tag of a refresh that is complete, else None.

        `now` in Unix seconds, `steady` and the ends in seconds of time.monotonic().

        Raises:
            FirewallError: too many tags, too often, or of an epoch that is far off: the refresh is dropped.
        """
        refusal = self._refusal(tags, now, steady)
        if refusal is not None:
            self._begin()
            raise FirewallError(refusal)
        end = steady + _seconds_left(tags.epoch, now)
        for tag in tags.each:
            self._arriving[tag] = max(self._arriving.get(tag, end), end)
        if not tags.last:
            return None
        found, self._next = self._arriving, steady + PAUSE
        self._begin()
        return found

    def _refusal(self, tags: Tags, now: float, steady: float) -> str | None:
        """Why a message is refused, or None."""
        self._count += len(tags.tags) // TAG_BYTES
        if self._count > self._most:
            return f"{self._count} tags, where {self._most} can be live"
        if tags.tags and not 0 < _seconds_left(tags.epoch, now) + EPOCH <= (EPOCHS + 1) * EPOCH:
            return f"tags of an epoch that is {tags.epoch - int(now // EPOCH):+} from now"
        return f"tags a second time within {PAUSE:g} s" if steady < self._next else None

    def _begin(self) -> None:
        """Wait for the first message of a refresh."""
        self._arriving, self._count = {}, 0


def _seconds_left(epoch: int, now: float) -> float:
    """The seconds until the tags of an epoch name nobody any more: the end of the one behind it."""
    return (epoch + 2) * EPOCH - now
