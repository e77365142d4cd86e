"""Where lines go: how many a less trusted process can cause."""

from __future__ import annotations

import logging

from doorward.record.log import LINES_PER_SECOND, Log, Throttle


class Kept(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_refusals_of_one_second_are_counted_from_a_number_on() -> None:
    kept = Kept()
    log = Log(logging.getLogger(__name__), kept)
    throttle = Throttle(log)
    for number in range(LINES_PER_SECOND + 7):
        throttle.error(100.5, f"refused {number}")
    throttle.error(101.2, "refused again")
    throttle.error(102.2, "and again")
    log.close()
    assert kept.lines[:-3] == [f"refused {number}" for number in range(LINES_PER_SECOND)]
    assert kept.lines[-3:] == ["7 more such lines in a second were not written", "refused again", "and again"]


def test_a_flood_that_ends_is_counted_once_its_second_is_over() -> None:
    kept = Kept()
    log = Log(logging.getLogger(__name__), kept)
    throttle = Throttle(log)
    for number in range(LINES_PER_SECOND + 7):
        throttle.error(100.5, f"refused {number}")
    throttle.tick(100.9)
    throttle.tick(101.0)
    throttle.tick(102.0)
    log.close()
    assert kept.lines[LINES_PER_SECOND:] == ["7 more such lines in a second were not written"]
