"""A fixed third of a test's cases for `make test`; the others are for `make test-all`.

Only where each case takes seconds and differs by what it meets, not by what doorward does there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def a_third(cases: Iterable[object]) -> list[object]:
    """Return all cases, two of three marked `whole`; the first is none of them."""
    return [pytest.param(case, marks=pytest.mark.whole) if number % 3 else case for number, case in enumerate(cases)]
