"""The manual pages are free of what mandoc and man complain about."""

from __future__ import annotations

import subprocess

import pytest

import manuals


def complaints(text: str) -> list[str]:
    """What mandoc says about a page at any level, and what groff does under man."""
    lint = subprocess.run(["mandoc", "-Tlint"], input=text, check=False, capture_output=True, text=True)
    man = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", "-"]
    shown = subprocess.run(
        man, input=text, check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    )
    return [*lint.stdout.splitlines(), *shown.stderr.splitlines()]


@pytest.mark.parametrize("page", manuals.PAGES, ids=lambda page: page.file)
def test_neither_mandoc_nor_man_complains_about_a_page(page: manuals.Page) -> None:
    assert complaints(page.text()) == []


def test_a_page_with_a_mistake_would_be_seen() -> None:
    assert len(complaints(manuals.PAGES[0].text() + ".XX unknown\n.SH EMPTY\n")) > 1
