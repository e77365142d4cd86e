"""The form of the Markdown files: wrapped at 100 columns, tables and code as they are."""

from __future__ import annotations

import pytest

import markdown

LONG = "word " * 40
TABLE = f"| name | state |\n| -- | -- |\n| `A` | {LONG.strip()} |\n"
CODE = f"```sh\n{LONG}\n```\n"


def test_prose_is_wrapped_at_100_columns() -> None:
    lines = markdown.formatted(f"# Title\n\n{LONG}\n\n- {LONG}\n").splitlines()
    assert max(map(len, lines)) in range(90, 101)


@pytest.mark.parametrize("text", [TABLE, CODE, "# Title\n\nOne line.\n"], ids=["table", "code", "short"])
def test_tables_and_code_stay_as_they_are(text: str) -> None:
    assert markdown.formatted(text) == text


def test_every_document_is_checked() -> None:
    assert {"README.md", "docs/configuration.md", "SECURITY.md"} <= set(markdown.files())
