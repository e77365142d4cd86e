"""docs/first-host.md does what it says: its commands are given as they are printed, and print what stands below them.

What is another here than on the page: the addresses are those of the lab, no systemd runs in the host, and a key, a
check and a token are new each time. Step 1 installs the programs, and is not run; neither are the last steps back.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from system.first_host import Window, machines
from system.nat_lab import CARRIER, HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.first_host import Machine

PAGE: Final = Path(__file__).parents[2] / "docs/first-host.md"
_BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND: Final = re.compile(r"^(web1#|laptop\$) (.*)\n((?:(?!web1#|laptop\$).*\n)*)", re.MULTILINE)
_MANUALLY: Final = "doorwardd runs until the next boot: no systemd is here to start it then"
_UNIT: Final = "/etc/systemd/system/doorwardd.service is written, and doorwardd.service runs, now and after a reboot"
_PAGES: Final = {"192.0.2.10": HOST, "198.51.100.7": CARRIER, _UNIT: _MANUALLY}


def steps() -> list[str]:
    """The blocks of the page's steps 2 to 4."""
    text = PAGE.read_text("utf-8")
    return _BLOCK.findall(text[text.index("## 2.") : text.index("## What is going on")])


def here(text: str) -> str:
    """A text of the page with the lab's words in the place of the page's."""
    for there, ours in _PAGES.items():
        text = text.replace(there, ours)
    return text


def pattern(text: str) -> re.Pattern[str]:
    """What an output must be: each … and TOKEN stands for one word."""
    escaped = re.escape(here(text)).replace("…", r"\S+").replace("TOKEN", r"(?P<token>[0-9a-f]{32})")
    return re.compile(escaped)


@pytest.fixture
def pair(open_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with machines(open_path) as made:
        yield made


def followed(machine: Machine, command: str, output: str) -> None:
    """Give a command as the page prints it and compare what it prints."""
    said = machine.run(command)
    assert pattern(output).fullmatch(said), f"{command}: {said!r}"


def test_the_page_leads_to_a_closed_host_that_its_laptop_enters(pair: tuple[Machine, Machine]) -> None:
    host, laptop = pair
    window, token, given = None, "", 0
    try:
        for block in steps():
            found = _COMMAND.findall(block)
            if not found:  # a window goes on
                assert window is not None
                token = window.shows(pattern(block)).groupdict().get("token") or token
            for prompt, command, output in found:
                given += 1
                machine = host if prompt == "web1#" else laptop
                if command.startswith("doorward init"):
                    window = Window(host, command)
                    window.shows(pattern(output))
                else:
                    followed(machine, command.replace("TOKEN", token), output)
        assert window is not None
        assert window.ends() == 0
        assert given == len([*_COMMAND.findall("".join(steps()))]) > 8
        assert (window.printed, host.run("stat -c %a /etc/doorward/access.conf")) == ("", "600\n")
        assert host.run("ls /etc/doorward") == "access.conf\n"  # no fixed table: doorwardd's follows access.conf
        assert "table inet doorward: guard" in host.run("doorward status")
    finally:
        if window is not None:
            window.stop()


def test_a_page_whose_output_is_another_would_be_seen() -> None:
    assert pattern("KEY_BASE64:… to 192.0.2.10\n").fullmatch(f"KEY_BASE64:abc= to {HOST}\n")
    assert not pattern("KEY_BASE64:… to 192.0.2.10\n").fullmatch(f"KEY_BASE64:abc= for {HOST}\n")
    assert len(steps()) > 5
