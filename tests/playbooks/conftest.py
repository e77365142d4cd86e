"""The pair of hosts of these tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.trial_fixtures import Pair, controller, give_the_first_time, trial, trials, visit

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
FIXTURES: Sequence[object] = (controller, trial, trials, visit)  # pytest finds them here


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test the time that its images take."""
    give_the_first_time(items, HERE)


@pytest.fixture(scope="session")
def pair() -> Pair:
    """The hosts of this folder."""
    return Pair("trial", HERE / "inventory")
