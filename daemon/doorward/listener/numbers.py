"""The listener's part of METRICS_FILE: verdicts by reason and name, told to the helper, which writes the file."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from doorward.helper.messages import ROWS_MAX, Numbers, Row
from doorward.values import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from doorward.helper.messages import Gauges

EVERY: Final = 15.0  # seconds between two reports; node_exporter is scraped as often
_Key = tuple["str | None", Reason]


class Tally:
    """Counts the verdicts that have a name; those of all packets are counted anyway. Times of tick() are monotonic."""

    def __init__(self, report: Callable[[Iterable[Numbers]], None]) -> None:
        """Report at the first tick, then every EVERY seconds."""
        self._report = report
        self._counts: dict[_Key, int] = {}
        self._last: dict[_Key, int] = {}  # Unix seconds, of grants
        self._changed: set[_Key] = set()
        self._next = 0.0

    def count(self, name: str | None, reason: Reason, now: Callable[[], float]) -> None:
        """Count one verdict; `now` gives Unix seconds."""
        if reason is Reason.GRANTED:
            self._last.update(dict.fromkeys(((None, reason), (name, reason)), int(now())))
        if name is not None:
            key = name, reason
            self._counts[key] = self._counts.get(key, 0) + 1
            self._changed.add(key)

    def tick(self, now: float, totals: Mapping[Reason, int], gauges: Callable[[], Gauges]) -> None:
        """Report what changed, if it is time; `totals` are the verdicts of all packets.

        Raises:
            FirewallError, HelperError: the helper does not take it; all of it is reported again.
        """
        if now < self._next:
            return
        self._next = now + EVERY
        for reason, count in totals.items():
            key = None, reason
            if self._counts.get(key) != count:
                self._counts[key] = count
                self._changed.add(key)
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
