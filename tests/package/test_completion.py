"""What bash, zsh and fish complete, asked from the shells themselves."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from doorward import console
from doorward.client import usage
from doorward.client.options import COMMANDS
from doorward.processes import options

if TYPE_CHECKING:
    from pathlib import Path

SCRIPTS: Final = {
    # What the shell's own completion is asked, given the words in front of the cursor.
    "bash": 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "_$1"; printf "%s\\n" "${COMPREPLY[@]}"',
    "fish": 'source $argv[1]; complete -C (string join " " -- $argv[2..]) | string replace -r "\\t.*" ""; true',
    # zsh itself would write the offers to its line editor, which needs a terminal.
    "zsh": (
        'compdef() {}; _files() {}; source "$0"; words=("$@") CURRENT=$# PREFIX=$argv[-1] service=$1;'
        "_describe() { print -lr -- ${${(@P)4}%%:*} }; _doorward"
    ),
}


@pytest.fixture(params=usage.SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    assert console.main(["completion", request.param]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    return Shell(request.param, script)


@dataclass(frozen=True)
class Shell:
    name: str
    script: Path

    def offers(self, *words: str) -> set[str]:
        """What the shell offers for the last of the words."""
        command = [self.name, "-c", SCRIPTS[self.name], str(self.script), *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
        return {line for line in done.stdout.splitlines() if line.startswith(words[-1])}


ASKED: Final = {
    ("doorward", "con"): {"connect"},
    ("doorward", "sta"): {"status"},  # a command of the host's
    ("doorward", "--nat-r"): {"--nat-rand-port"},  # options without a command are knock's
    ("doorward", "-A", "tcp/22", "--nat-r"): {"--nat-rand-port"},
    ("doorward", "connect", "--spa-"): {"--spa-server", "--spa-port"},
    ("doorward", "status", "--js"): {"--json"},
    ("doorward", "keys", "g"): {"generate"},
    ("doorward", "keys", "generate", "--hmac-l"): {"--hmac-length"},
    ("doorward", "firewall", "ro"): {"rollback"},
    ("doorward", "firewall", "apply", "--de"): {"--deadline"},
    ("doorward", "completion", "f"): {"fish"},
    ("doorwardd", "--exit"): {"--exit-parse-config", "--exit-parse-digest-cache"},
    ("doorwardd", "ex"): {"explain"},
    ("doorwardd", "check", "--expl"): {"--explain-config"},
    ("doorwardd", "explain", "--ori"): {"--origin"},
}


def test_a_shell_completes_commands_and_their_options(shell: Shell) -> None:
    assert {words: shell.offers(*words) for words in ASKED} == ASKED


def test_every_option_of_every_command_is_offered(shell: Shell) -> None:
    script = shell.script.read_text()
    for command in COMMANDS.values():
        for name in (name for row in command.rows for name in row.names):
            bare = name.lstrip("-") if shell.name == "fish" else name
            assert re.search(rf"(?<![\w-]){re.escape(bare)}(?![\w-])", script), name
    for action in options.parser()._actions:  # noqa: SLF001  argparse has no other list of them
        hidden = action.help == argparse.SUPPRESS
        for name in (name for name in action.option_strings if name.startswith("--")):
            assert hidden == (name not in shell.offers("doorwardd", name)), name
