"""docs/configuration.md says what the code does."""

from __future__ import annotations

import pytest

import documented
from doorward.config import access, daemon

TEXT = documented.DOCUMENT.read_text("utf-8")


def test_the_tables_of_the_documentation_are_up_to_date() -> None:
    assert documented.document(TEXT) == TEXT, "run `make docs`"


def test_a_table_that_is_not_up_to_date_would_be_seen() -> None:
    assert documented.document(TEXT.replace("| `SOURCE` |", "| `SAUCE` |")) == documented.document(TEXT) != TEXT + "x"


@pytest.mark.parametrize("settings", [access.SETTINGS, daemon.SETTINGS], ids=["access.conf", "doorwardd.conf"])
def test_no_name_is_both_served_and_not(settings: dict[str, object]) -> None:
    assert not set(settings) & {*access.REFUSED, *daemon.INERT}
