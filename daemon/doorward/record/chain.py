"""Chained audit lines: each carries a hash over itself and the line before.

None can be changed, left out or moved without a trace in the lines behind it. There is no key: a chain that was
recomputed from there on, and lines cut off at the end, show only against a hash that was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from doorward.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

GENESIS: Final = "0" * 64
_LINK: Final = re.compile(r"(.*) chain=([0-9a-f]{64})")
_BEGIN: Final = re.compile(r"\S+ audit=begin previous=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain does not hold: the line's number from 1, and why."""

    line: int
    why: str


def link(previous: str, line: str) -> str:
    """The hash of a line that follows the one with the hash `previous`; both in hex."""
    return hashlib.sha256(f"{previous}\n{line}".encode()).hexdigest()


def seal(previous: str, line: str) -> tuple[str, str]:
    """A line with its hash behind it, and that hash."""
    made = link(previous, line)
    return f"{line} chain={made}", made


def begin(previous: str, time: str) -> str:
    """The first line of a file: the hash that it follows, and its time."""
    return f"{time} audit=begin previous={previous}"


def last(line: str) -> str | None:
    """The hash that a sealed line carries, or None where it carries none."""
    match = _LINK.fullmatch(line)
    return match[2] if match else None


def verify(lines: Iterable[str]) -> tuple[int, str, Break | None]:
    """The number of lines that hold, the hash of the last of them, and the first break if there is one.

    The first line names the hash that it follows; a later file is checked behind an earlier one by giving both.
    """
    previous: str | None = None
    count = 0
    for number, line in enumerate(lines, start=1):
        match = _LINK.fullmatch(line)
        if match is None:
            return count, previous or GENESIS, Break(number, "carries no hash")
        begins = _BEGIN.fullmatch(match[1])
        if begins and previous not in {None, begins[1]}:
            return count, previous or GENESIS, Break(number, "begins behind another line than the one before it")
        if previous is None and begins is None:
            return count, GENESIS, Break(number, "is not the beginning of a file")
        if link(begins[1] if begins else previous or GENESIS, match[1]) != match[2]:
            return count, previous or GENESIS, Break(number, "was changed, or a line before it was left out")
        previous, count = match[2], number
    return count, previous or GENESIS, None
