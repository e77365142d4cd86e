"""The commands of the old tutorials work as they are written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tutorial import run

SCRIPT = Path(run.__file__).with_name("tutorial.sh")
IP, OTHER = "10.77.0.2", run.OTHER
SSH, MAIL, GHOST = "SSH-2.0-OpenSSH", "+OK mail", "ghost"


@pytest.fixture(scope="module")
def printed() -> dict[str, list[str]]:
    """What each step has printed, by its title."""
    with run.scene() as (host, client, folder, daemon):
        variables = run.environment(host, client, folder)
        done = subprocess.run(
            client.command(str(SCRIPT)), env=variables, check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr + "\n".join(daemon.lines)
    steps = (step.splitlines() for step in done.stdout.split("\n# ")[1:])
    return {title: lines for title, *lines in steps}


def sees(*pairs: tuple[str, int, str]) -> list[str]:
    return [f"  {source} sees at port {port}: {who}" for source, port, who in pairs]


def of(printed: dict[str, list[str]], word: str) -> tuple[list[str], list[str]]:
    """Return the commands of the step that has a word in its title, and what was seen."""
    (lines,) = (lines for title, lines in printed.items() if word in title)
    return [line for line in lines if line.startswith("$ ")], [line for line in lines if line.startswith("  ")]


def test_before_a_knock_the_ssh_server_is_hidden(printed: dict[str, list[str]]) -> None:
    assert of(printed, "Before") == ([], sees((IP, 22, "nobody"), (OTHER, 22, "nobody")))


def test_a_symmetric_key_opens_for_the_packets_origin(printed: dict[str, list[str]]) -> None:
    commands, seen = of(printed, "symmetric")
    assert commands == ["$ doorward -A tcp/22 -s -k 10.77.0.1"]
    assert seen == sees((IP, 22, SSH), (OTHER, 22, "nobody"))


def test_the_door_closes_again(printed: dict[str, list[str]]) -> None:
    commands, seen = of(printed, "-f says")
    assert commands == ["$ doorward -A tcp/22 -s -f 1 -k 10.77.0.1"]
    assert seen == sees((IP, 22, "nobody"))


def test_a_web_site_says_which_address_to_open_for(printed: dict[str, list[str]]) -> None:
    commands, seen = of(printed, "web site")
    assert commands == ["$ doorward -A tcp/22 -w -k 10.77.0.1"]
    assert seen == sees((IP, 22, SSH))


def test_an_address_can_be_named(printed: dict[str, list[str]]) -> None:
    commands, seen = of(printed, "-a names")
    assert commands == [f"$ doorward -A tcp/22 -a {OTHER} -k 10.77.0.1"]
    assert seen == sees((IP, 22, "nobody"), (OTHER, 22, SSH))


def test_gnupg_opens(printed: dict[str, list[str]]) -> None:
    commands, seen = of(printed, "GnuPG")
    assert commands[0].startswith("$ doorward -A tcp/22 --gpg-recip ")
    assert " --gpg-sign " in commands[0]
    assert seen == sees((IP, 22, SSH), (OTHER, 22, "nobody"))


def test_a_ghost_service_is_reached_under_another_services_number(printed: dict[str, list[str]]) -> None:
    commands, seen = of(printed, "ghost")
    assert commands == ["$ doorward -A tcp/6543 --NAT-access 10.77.0.1:110 --NAT-local -a 10.77.0.2 -D 10.77.0.1"]
    assert seen == sees((IP, 110, MAIL), (IP, 6543, "nobody"), (IP, 110, GHOST), (OTHER, 110, MAIL), (IP, 110, MAIL))
