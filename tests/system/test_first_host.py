"""docs/first-host.md does what it says: its commands are given as they are printed, and print what stands below them.

What is another here than on the page: the addresses are those of the lab, and no systemd runs in the host. Step 1
installs the programs, and is not run; neither are the last steps back. tests/fresh/test_first_host.py runs all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import transcript
from system.first_host import machines
from system.nat_lab import CARRIER, HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.first_host import Machine

PAGE: Final = Path(__file__).parents[2] / "docs/first-host.md"
_MANUALLY: Final = "doorwardd runs until the next boot: no systemd is here to start it then"
_UNIT: Final = "doorwardd.service runs, now and after a reboot"
_PAGES: Final = {"192.0.2.10": HOST, "198.51.100.7": CARRIER, _UNIT: _MANUALLY}


def steps() -> list[str]:
    """The blocks of the page's steps 2 to 4."""
    return transcript.blocks(PAGE, "## 2.", "## What is going on")


def here(text: str) -> str:
    """A text of the page with the lab's words in the place of the page's."""
    for there, ours in _PAGES.items():
        text = text.replace(there, ours)
    return text


@pytest.fixture
def pair(open_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with machines(open_path) as made:
        yield made


def test_the_page_leads_to_a_closed_host_that_its_laptop_enters(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    transcript.follow(steps(), {"web1#": host, "laptop$": laptop}, "doorward init", here)
    assert host.run("stat -c %a /etc/doorward/access.conf") == "600\n"
    assert host.run("ls /etc/doorward") == "access.conf\n"  # no fixed table: doorwardd's follows access.conf
    assert "table inet doorward: guard" in host.run("doorward status")


def test_each_command_of_the_page_is_found() -> None:
    found = [command for block in steps() for command in transcript.commands(block)]
    assert len(found) == sum(block.count("web1# ") + block.count("laptop$ ") for block in steps()) > 8
    assert len(steps()) > 5


def test_a_page_whose_output_is_another_would_be_seen() -> None:
    wanted = transcript.pattern(here("KEY_BASE64:… to 192.0.2.10\n"))
    assert wanted.fullmatch(f"KEY_BASE64:abc= to {HOST}\n")
    assert not wanted.fullmatch(f"KEY_BASE64:abc= for {HOST}\n")
