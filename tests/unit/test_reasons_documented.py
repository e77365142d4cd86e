"""The table of reasons in docs/operating.md."""

from __future__ import annotations

import re
from pathlib import Path

from doorward.values import Reason

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


def test_every_reason_of_a_verdict_is_in_the_table_and_nothing_else() -> None:
    section = OPERATING.read_text().split("## What a verdict's reason means")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [word for cell in cells for word in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(map(str, Reason))
