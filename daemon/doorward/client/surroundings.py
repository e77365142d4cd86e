"""The client's inputs: time, randomness, environment, terminal. Made in cli.py, passed down."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TextIO

from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class UnansweredError(ClientError):
    """A question without an answer; the text is the reason, as a clause behind "and"."""


class Outside(NamedTuple):
    """One run's surroundings. `clock` in Unix seconds, `monotonic` in seconds of no fixed origin."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    environ: Mapping[str, str]
    home: Path
    ask: Callable[[str], str]  # a secret, typed at the terminal without echo; else UnansweredError
    agree: Callable[[str], bool]  # y to a question; anything else, or no terminal, is no
    out: TextIO
    err: TextIO

    def say(self, text: str) -> None:
        """Write a line to standard output."""
        self.out.write(f"{text}\n")

    def warn(self, text: str) -> None:
        """Write a line to standard error."""
        self.err.write(f"doorward: {text}\n")
        self.err.flush()
