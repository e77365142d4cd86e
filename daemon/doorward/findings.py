"""One line about something that holds or does not, with the command that mends or proves it."""

from __future__ import annotations

from typing import Final, NamedTuple

OK: Final = "ok"
NO: Final = "no"
UNKNOWN: Final = "?"


class Finding(NamedTuple):
    """One line: whether something holds, what it is about, and the command that mends or proves it."""

    state: str
    topic: str
    text: str
    command: str = ""

    def __str__(self) -> str:
        """The line."""
        return f"{self.state:<3} {self.topic:<7} {self.text}" + (f"  [{self.command}]" if self.command else "")


def hold(findings: list[Finding]) -> bool:
    """Whether none of them says no."""
    return all(each.state != NO for each in findings)
