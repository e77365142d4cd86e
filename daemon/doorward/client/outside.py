"""What the client takes from outside: time, randomness, environment, terminal. Made in cli.py, passed down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class UnansweredError(ClientError):
    """Nobody answered a question; the text says why, as what stands behind "and"."""


@dataclass(frozen=True, slots=True)
class Outside:
    """One run's surroundings. `clock` in Unix seconds, `monotonic` in seconds of no fixed origin."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    environ: Mapping[str, str]
    home: Path
    ask: Callable[[str], str]  # a secret, typed at the terminal without echo; else UnansweredError
    agree: Callable[[str], bool]  # y to a question; anything else, or nobody there, is no
    out: TextIO
    err: TextIO

    def say(self, text: str) -> None:
        """Write a line to standard output."""
        self.out.write(f"{text}\n")

    def warn(self, text: str) -> None:
        """Write a line to standard error."""
        self.err.write(f"doorward: {text}\n")
        self.err.flush()
