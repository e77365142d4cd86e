"""The tables of reasons and of causes in docs/operating.md."""

from __future__ import annotations

import re
from pathlib import Path

from doorward.firewall.standing import Word
from doorward.values import Reason

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


def test_every_reason_of_a_verdict_is_in_the_table_and_nothing_else() -> None:
    assert sorted(_named("## Reasons of a verdict")) == sorted(map(str, Reason))


def test_every_cause_of_the_status_is_in_the_table_and_nothing_else() -> None:
    assert _named("## Watching") == [word.value for word in Word]


def _named(heading: str) -> list[str]:
    """The words in the first column of a section's table."""
    section = OPERATING.read_text().split(f"{heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [word for cell in cells for word in re.findall(r"`(\w+)`", cell)]
