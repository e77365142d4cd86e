"""Counters of verdicts by reason, since the daemon started."""

from __future__ import annotations

from doorward.values import Reason


class Counters:
    """How many packets got which verdict."""

    def __init__(self) -> None:
        """Start every counter at zero, so that a reader sees each reason from the first moment."""
        self._counts = dict.fromkeys(Reason, 0)

    def count(self, reason: Reason) -> None:
        """Count one verdict."""
        self._counts[reason] += 1

    @property
    def total(self) -> int:
        """The number of verdicts so far."""
        return sum(self._counts.values())

    def snapshot(self) -> dict[str, int]:
        """Return the counts by the reason's word."""
        return {reason.value: count for reason, count in self._counts.items()}
