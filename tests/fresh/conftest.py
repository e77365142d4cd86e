"""The packages, built once a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import doorward
from fresh.machines import NEXT, built

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions, each in a folder."""
    return {version: built(tmp_path_factory.mktemp("packages"), version) for version in (doorward.__version__, NEXT)}
