from __future__ import annotations

import subprocess

import pytest

from doorward import console, portable
from doorward.client import usage
from doorward.client.options import COMMANDS, Command


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_help_names_every_option_and_fits_its_lines(command: Command) -> None:
    page = usage.page(command)
    assert page.startswith(f"usage: {command.name} ")
    for row in command.rows:
        assert set(row.names) <= {word.rstrip(",") for word in page.split()}
        assert not row.names or " ".join(row.help.split()) in " ".join(page.split())
    assert max(map(len, page.splitlines())) <= 120


def completed(script: str, *words: str) -> list[str]:
    """Return what bash offers for the last of the words."""
    call = f"COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; _doorward"
    done = subprocess.run(
        ["bash", "-c", f'{script}\n{call}; printf "%s\\n" "${{COMPREPLY[@]}}"'],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(not portable.HOSTS_RUN_HERE, reason="a host is Linux (tests/other_systems.py)")
def test_bash_completes_commands_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "doorward", "con") == ["connect"]
    assert completed(script, "doorward", "doctor", "--no-k") == ["--no-knock"]
    assert completed(script, "doorward", "sta") == ["status"]  # a command of the host's
    assert completed(script, "doorward", "--nat-r") == ["--nat-rand-port"]
    assert completed(script, "doorward", "connect", "--spa-") == ["--spa-server", "--spa-port"]
    assert completed(script, "doorward", "status", "--js") == ["--json"]
    assert completed(script, "doorward", "keys", "g") == ["generate"]


def test_what_is_no_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
