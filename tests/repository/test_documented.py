"""docs/configuration.md and the manual pages say what the code does."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import pytest

import documented
import manuals
from doorward.client import fwknoprc
from doorward.client.options import COMMANDS
from doorward.config import access
from doorward.config import settings as config_settings
from doorward.processes import options

if TYPE_CHECKING:
    from collections.abc import Iterable

TEXT = documented.DOCUMENT.read_text("utf-8")
GENERATED = functools.cache(documented.document)


def test_the_tables_of_the_documentation_are_up_to_date() -> None:
    assert GENERATED(TEXT) == TEXT, "run `make docs`"


def test_a_table_that_is_not_up_to_date_would_be_seen() -> None:
    assert documented.document(TEXT.replace("| `SOURCE` |", "| `SAUCE` |")) == GENERATED(TEXT) != TEXT + "x"


@pytest.mark.parametrize("settings", [access.SETTINGS, config_settings.SETTINGS], ids=["access.conf", "doorwardd.conf"])
def test_no_name_is_both_served_and_not(settings: dict[str, object]) -> None:
    assert not set(settings) & {*access.REFUSED, *config_settings.INERT}


@pytest.mark.parametrize("page", manuals.PAGES, ids=lambda page: page.file)
def test_a_manual_page_is_up_to_date(page: manuals.Page) -> None:
    assert (manuals.FOLDER / page.file).read_text("utf-8") == page.text(), "run `make docs`"


def test_there_is_no_other_manual_page() -> None:
    assert {path.name for path in manuals.FOLDER.iterdir()} == {page.file for page in manuals.PAGES}


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("doorward-access.conf.5", access.SETTINGS),
        ("doorwardd.conf.5", config_settings.SETTINGS),
        ("doorward-fwknoprc.5", fwknoprc.SETTINGS),
        ("doorwardd.8", [name for action in options.parser()._actions for name in action.option_strings]),  # noqa: SLF001  argparse has no other list of them
        ("doorward.1", [name for command in COMMANDS.values() for row in command.rows for name in row.names]),
    ],
)
def test_a_manual_page_has_every_name_of_the_tables(file: str, names: Iterable[str]) -> None:
    tags = re.findall(r"^\.TP\n(.*)$", (manuals.FOLDER / file).read_text("utf-8"), re.MULTILINE)
    tagged = {word.strip(",") for tag in tags for word in re.sub(r"\\f[BR]", "", tag).replace("\\-", "-").split()}
    hidden = {"--helper", "--exec", "--listener"}  # for the units alone
    assert len(tagged) > 20
    assert set(names) - hidden <= tagged
    assert not hidden & tagged
