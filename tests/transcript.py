"""Transcripts of the documentation: their commands are given as they are printed, and must print what stands below.

Prompts name the machines. In an output, each … stands for one word and TOKEN for the token of a confirmation.
"""

from __future__ import annotations

import re
import subprocess
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND: Final = re.compile(r"^(\w+[#$]) (.*)\n((?:(?!\w+[#$] ).*\n)*)", re.MULTILINE)
_SECONDS: Final = 30


class Shell(Protocol):
    """A machine that takes commands."""

    def words(self, command: str) -> list[str]:
        """The command line that gives a command to root's shell there."""

    def run(self, command: str, told: str = "") -> str:
        """All that a command prints."""


class Window:
    """A program that goes on in its window, and what it has printed."""

    def __init__(self, machine: Shell, command: str) -> None:
        self._process = subprocess.Popen(
            machine.words(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed = ""
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._take, daemon=True)
        self._reader.start()

    def _take(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._grown:
                    self.printed += line
                    self._grown.notify_all()

    def shows_after(self, text: str) -> re.Match[str]:
        """Wait until the window shows a text, whatever is before it."""
        return self.shows(re.compile(f"(?s:.*){re.escape(text)}"))

    def shows(self, wanted: re.Pattern[str]) -> re.Match[str]:
        """Wait until the window shows a text behind what it showed before."""
        with self._grown:
            shown = self._grown.wait_for(lambda: wanted.match(self.printed), _SECONDS)
            assert shown, f"not {wanted} but {self.printed!r}"
            found = wanted.match(self.printed)
            assert found is not None
            self.printed = self.printed[found.end() :]
            return found

    def ends(self) -> int:
        """Its exit code, once it has ended."""
        code = self._process.wait(_SECONDS)
        self._reader.join(_SECONDS)
        return code

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self.ends()


class Command(NamedTuple):
    """A command of a transcript, and what is printed below it."""

    prompt: str
    text: str
    output: str


def commands(block: str) -> list[Command]:
    """The commands of a block; none where a window goes on."""
    return [Command(*found) for found in _COMMAND.findall(block)]


def blocks(page: Path, begin: str, end: str) -> list[str]:
    """The transcripts of a page between two texts."""
    text = page.read_text("utf-8")
    return _BLOCK.findall(text[text.index(begin) :].partition(end)[0])


def pattern(text: str) -> re.Pattern[str]:
    """What an output must be."""
    return re.compile(re.escape(text).replace("…", r"\S+").replace("TOKEN", r"(?P<token>[0-9a-f]{32})"))


def follow(
    page: list[str], machines: Mapping[str, Shell], lasting: str, here: Callable[[str], str] = lambda text: text
) -> None:
    """Give the commands of transcripts.

    Args:
        page: the blocks.
        machines: each under its prompt.
        lasting: the beginning of the one command that goes on in its window, and ends with the last block.
        here: the words of this place for those of the page.
    """
    window, token = None, ""
    try:
        for block in page:
            found = commands(block)
            if not found:
                assert window is not None
                token = window.shows(pattern(here(block))).groupdict().get("token") or token
            for prompt, text, output in found:
                wanted, command = pattern(here(output)), here(text).replace("TOKEN", token)
                if lasting and text.startswith(lasting):
                    window = Window(machines[prompt], command)
                    window.shows(wanted)
                    continue
                said = machines[prompt].run(command)
                assert wanted.fullmatch(said), f"{command}: {said!r}"
        if window is not None:
            assert (window.ends(), window.printed) == (0, "")
    finally:
        if window is not None:
            window.stop()
