"""The listener's part of METRICS_FILE: verdicts by reason and name, told to the helper, which writes the file."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from doorward.helper.messages import ROWS_MAX, Numbers, Row
from doorward.values import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doorward.helper.messages import Gauges

EVERY: Final = 15.0  # seconds between two reports; node_exporter is scraped as often
_Key = tuple["str | None", Reason]


class Tally:
    """Counts the verdicts since it was made, of all packets and by name. Times are seconds of a monotonic clock."""

    def __init__(self, report: Callable[[Iterable[Numbers]], None]) -> None:
        """Report at the first tick, then every EVERY seconds."""
        self._report = report
        self._counts: dict[_Key, int] = {(None, reason): 0 for reason in Reason}
        self._last: dict[_Key, int] = {}  # Unix seconds, of grants
        self._changed = set(self._counts)
        self._next = 0.0

    def count(self, name: str | None, reason: Reason, now: Callable[[], float]) -> None:
        """Count one verdict; `now` gives Unix seconds."""
        keys = ((None, reason),) if name is None else ((None, reason), (name, reason))
        for key in keys:
            self._counts[key] = self._counts.get(key, 0) + 1
        self._changed.update(keys)
        if reason is Reason.GRANTED:
            self._last.update(dict.fromkeys(keys, int(now())))

    def tick(self, now: float, gauges: Callable[[], Gauges]) -> None:
        """Report what changed, if it is time.

        Raises:
            FirewallError, HelperError: the helper does not take it; all of it is reported again.
        """
        if now < self._next:
            return
        self._next = now + EVERY
        changed = sorted(self._changed, key=lambda key: (key[0] or "", key[1]))
        self._report(self._parts(changed, gauges()))
        self._changed.difference_update(changed)

    def tell_all_again(self) -> None:
        """Report everything at the next tick: the helper may have forgotten it."""
        self._changed.update(self._counts)
        self._next = 0.0

    def _parts(self, changed: Iterable[_Key], gauges: Gauges) -> Iterator[Numbers]:
        waiting = iter(changed)
        rows = tuple(islice(map(self._row, waiting), ROWS_MAX))
        while True:
            following = tuple(islice(map(self._row, waiting), ROWS_MAX))
            yield Numbers(rows, gauges, last=not following)
            if not following:
                return
            rows = following

    def _row(self, key: _Key) -> Row:
        name, reason = key
        return Row(name, reason, self._counts[key], self._last.get(key, 0))
