"""The table of failures: a row for each, and the number of lock-outs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollouts.faults import Fault
    from rollouts.striking import Ending

TITLE: Final = "failures injected into roll-outs to two hidden hosts"
HEAD: Final = """\
away: seconds until a fresh knock with the old keys and a new SSH connection got in again; * without what was injected
kept: what differs on the host before the second run; `proven` where the run ended well in spite of the failure
then: how a second run without the failure ended, and whether the host is hidden and opens to a knock"""
_LONGEST: Final = 200  # characters of what a run said


@dataclass(frozen=True, slots=True)
class Row:
    """One failure. ``second`` is empty where the second run left the host as it was, hidden and openable."""

    fault: Fault
    system: str
    ending: Ending
    second: str

    @property
    def is_lock_out(self) -> bool:
        """Whether the owner did not get in any more."""
        return self.ending.away is None

    @property
    def wrong(self) -> list[str]:
        """What is not as it has to be."""
        healed = [f"the second run: {self.second}"] if self.second else []
        return [f"{self.system}, {self.fault.name}: {cause}" for cause in (*self.ending.wrong(self.fault), *healed)]

    def lines(self, number: int) -> list[str]:
        """Both lines of the row."""
        place = f"{number:3}  {self.system:9}  {self.fault.stage:10}  {self.fault.name:66}"
        return [f"{place}  {self._away:>10}  {self._kept:8}  {self.second or 'ok'}", f"{'':28}{self._said}"]

    @property
    def _away(self) -> str:
        if self.ending.away is None:
            return "LOCKED OUT"
        return f"{self.ending.away:.0f} s{'*' if self.ending.undone else ' '}"

    @property
    def _kept(self) -> str:
        return "proven" if self.ending.ended_well else ", ".join(self.ending.differs) or "nothing"

    @property
    def _said(self) -> str:
        said = self.ending.said
        return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"


ROWS: Final[pytest.StashKey[list[Row]]] = pytest.StashKey()


def table(rows: Sequence[Row]) -> str:
    """The rows, and below them their number and that of the lock-outs."""
    width = f"{'no.':5}{'system':11}{'stage':12}{'failure':66}  {'away':>10}  {'kept':8}  then"
    lines = [line for number, row in enumerate(rows, 1) for line in row.lines(number)]
    count = f"{len(rows)} failures, lock-outs: {sum(row.is_lock_out for row in rows)}"
    return "\n".join((HEAD, "", width, *lines, "", count)) + "\n"
