"""Running the system's programs, and saying what is done."""

from __future__ import annotations

import subprocess
import sys

import programs


class LabError(Exception):
    """The lab could not be built or does not answer; the text says which program failed and why."""


def say(text: str) -> None:
    """Write one line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(*command: str, stdin: str | None = None, timeout: float = 900) -> str:
    """What a program printed on its standard output.

    Raises:
        LabError: the program failed; carries the end of what it said.
    """
    result = attempt(*command, stdin=stdin, timeout=timeout)
    if result.returncode != 0:
        said = (result.stderr.strip() or result.stdout.strip())[-2000:]
        text = f"{' '.join(command)}\n  ended with {result.returncode}: {said}"
        raise LabError(text)
    return result.stdout


def attempt(*command: str, stdin: str | None = None, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """The result of a program that may fail.

    Raises:
        MissingProgramError: it is not installed.
    """
    programs.require_all(command)
    return subprocess.run(command, input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False)
