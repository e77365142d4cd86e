"""What the listener counts for METRICS_FILE, and when the helper is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.errors import HelperError
from doorward.helper.messages import REQUESTS, ROWS_MAX, Gauges, Numbers, Row
from doorward.listener.numbers import EVERY, Tally
from doorward.values import NAME_MAX, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = 1_800_000_000
NONE = dict.fromkeys(Reason, 0)
GAUGES = Gauges(1, 2, 3, 4, 5)


class Helper:
    """Keeps what it is told, after the way through the codec."""

    def __init__(self) -> None:
        self.told: list[Numbers] = []
        self.is_gone = False

    def report(self, numbers: Iterable[Numbers]) -> None:
        for one in numbers:
            if self.is_gone:
                msg = "gone"
                raise HelperError(msg)
            told = REQUESTS.decode(REQUESTS.encode(one))
            assert isinstance(told, Numbers)
            self.told.append(told)

    def taken(self) -> list[Row]:
        rows = [row for one in self.told for row in one.rows]
        self.told = []
        return rows


def test_the_first_report_has_every_reason_and_later_ones_what_changed() -> None:
    helper = Helper()
    tally = Tally(helper.report)
    tally.tick(0, NONE, lambda: GAUGES)
    assert helper.told[0].gauges == GAUGES
    assert sorted(helper.taken(), key=lambda row: row.reason) == sorted(
        (Row(None, reason, 0, 0) for reason in Reason), key=lambda row: row.reason
    )
    totals = NONE | {Reason.GRANTED: 1, Reason.HMAC: 2}
    tally.count("laptop", Reason.GRANTED, lambda: NOW + 0.9)
    tally.count(None, Reason.HMAC, lambda: pytest.fail("a stranger's packet needs no clock"))
    tally.count(None, Reason.HMAC, lambda: NOW)
    tally.tick(EVERY - 0.1, totals, lambda: GAUGES)
    assert not helper.told
    tally.tick(EVERY, totals, lambda: GAUGES)
    granted = Row(None, Reason.GRANTED, 1, NOW), Row("laptop", Reason.GRANTED, 1, NOW)
    assert helper.taken() == [granted[0], Row(None, Reason.HMAC, 2, 0), granted[1]]
    tally.tick(2 * EVERY, totals, Gauges)
    assert helper.told == [Numbers((), Gauges(), last=True)], "the file is written although nothing changed"
    tally.count(None, Reason.GRANTED, lambda: NOW + 9)
    tally.tick(3 * EVERY, totals | {Reason.GRANTED: 2}, Gauges)
    assert helper.taken() == [Row(None, Reason.GRANTED, 2, NOW + 9)], "of a stanza without a name"


def test_as_many_names_as_there_are_go_in_parts() -> None:
    helper = Helper()
    tally = Tally(helper.report)
    names = [f"{number:0{NAME_MAX}}" for number in range(3 * ROWS_MAX)]
    for name in names:
        tally.count(name, Reason.GRANTED, lambda: NOW)
    tally.tick(0, NONE, lambda: GAUGES)
    assert [one.last for one in helper.told] == [*[False] * (len(helper.told) - 1), True]
    assert len(helper.told) > 3
    assert sorted(row.name for row in helper.taken() if row.name) == names


@pytest.mark.parametrize("count", [0, ROWS_MAX - len(Reason), ROWS_MAX])
def test_the_last_part_is_never_missing(count: int) -> None:
    helper = Helper()
    tally = Tally(helper.report)
    for number in range(count):
        tally.count(f"n{number}", Reason.GRANTED, lambda: NOW)
    tally.tick(0, NONE, lambda: GAUGES)
    assert [one.last for one in helper.told].count(True) == 1
    assert helper.told[-1].last


def test_after_a_reload_everything_is_told_again_and_nothing_is_forgotten() -> None:
    helper = Helper()
    tally = Tally(helper.report)
    tally.count("laptop", Reason.GRANTED, lambda: NOW)
    tally.tick(0, NONE, lambda: GAUGES)
    helper.taken()
    tally.tell_all_again()
    tally.tick(1, NONE, lambda: GAUGES)
    told = helper.taken()
    assert len(told) == len(Reason) + 1
    assert Row("laptop", Reason.GRANTED, 1, NOW) in told


def test_what_the_helper_did_not_take_is_told_again() -> None:
    helper = Helper()
    tally = Tally(helper.report)
    tally.tick(0, NONE, lambda: GAUGES)
    helper.taken()
    tally.count("laptop", Reason.STALE, lambda: NOW)
    helper.is_gone = True
    with pytest.raises(HelperError):
        tally.tick(EVERY, NONE, lambda: GAUGES)
    helper.is_gone = False
    tally.tick(2 * EVERY, NONE, lambda: GAUGES)
    assert helper.taken() == [Row("laptop", Reason.STALE, 1, 0)]
