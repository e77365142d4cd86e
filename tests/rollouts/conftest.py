"""The pair of hosts of these tests, and the table of what was injected into roll-outs to them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.trial_fixtures import Pair, controller, give_the_first_time, trial, trials, visit
from rollouts.rows import ROWS, TITLE, table

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
FIXTURES: Sequence[object] = (controller, trial, trials, visit)  # pytest finds them here


def pytest_configure(config: pytest.Config) -> None:
    """Begin with an empty table."""
    config.stash[ROWS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test the time that its images take."""
    give_the_first_time(items, HERE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of failures, and write it into a file."""
    rows = config.stash[ROWS]
    if rows:
        text = table(rows)
        file = Path(os.environ.get("DOORWARD_FAULTS_TABLE") or Path(tempfile.gettempdir()) / "doorward-faults.txt")
        file.write_text(text, encoding="utf-8")
        terminalreporter.section(TITLE)
        terminalreporter.write(f"{text}\n")


@pytest.fixture(scope="session")
def pair() -> Pair:
    """The hosts of this folder."""
    return Pair("change", HERE / "inventory")
