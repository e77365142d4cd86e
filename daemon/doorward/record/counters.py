"""Counters of packets since the daemon started, and the file in which `doorward status` finds them."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import TYPE_CHECKING, Final

from doorward.errors import DoorwardError
from doorward.values import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DROPPED: Final = "dropped"
DUPLICATES: Final = "duplicates"
REFUSED: Final = "refused_in_kernel"
HEARD: Final = "heard"
SHARE: Final = "share"
_HEARD_MAX: Final = 500  # characters
_SHARE_MAX: Final = 350  # characters
_SIZE: Final = 2048  # bytes; always the same, so that one write replaces all
_WORDS: Final = frozenset({*map(str, Reason), DROPPED, REFUSED, DUPLICATES})


class Counters:
    """How many packets got which verdict, the kernel dropped, its gate refused, or it showed another time."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._counts = dict.fromkeys(Reason, 0)
        self.total = 0  # verdicts so far; asked for after each, so it is not summed up
        self.dropped = 0
        self.refused = 0
        self.duplicates = 0

    def count(self, reason: Reason) -> None:
        """Count one verdict."""
        self._counts[reason] += 1
        self.total += 1

    @property
    def by_reason(self) -> Mapping[Reason, int]:
        """The counts of all reasons."""
        return self._counts

    def seen(self) -> dict[str, int]:
        """The counts that are not zero, by the reason's word; behind them packets that have no verdict."""
        counts = {reason.value: count for reason, count in self._counts.items()}
        counts |= {DROPPED: self.dropped, REFUSED: self.refused, DUPLICATES: self.duplicates}
        return {word: count for word, count in counts.items() if count}


class Published:
    """The file of the counters. It stays open: the listener writes it without a system call of its own."""

    def __init__(self, file: Path) -> None:
        """Open the file and empty it.

        Raises:
            DoorwardError: it cannot be opened.
        """
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(file, flags, 0o600)
        except OSError as error:
            msg = f"{file} cannot be opened: {error.strerror}"
            raise DoorwardError(msg) from error
        self._written = b""

    def write(self, counters: Counters, heard: str, share: str = "") -> None:
        """Write the counters, how knocks are heard, and the state of the share, where they have changed.

        On a full disk the old ones stay.
        """
        shared = share[:_SHARE_MAX].encode("ascii", "replace").decode("ascii")
        found = {**counters.seen(), HEARD: heard[:_HEARD_MAX], **({SHARE: shared} if share else {})}
        content = json.dumps(found).encode("ascii").ljust(_SIZE)
        if content != self._written:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, content, 0)
                self._written = content

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


def counters_beside(replay_file: Path) -> Path:
    """The file of the counters, beside the replay store."""
    return replay_file.with_name("counters.json")


def published(file: Path) -> tuple[dict[str, int], str, str] | None:
    """The counters in a file that the listener writes, how knocks are heard, and the state of the share.

    None where it holds anything else.
    """
    with contextlib.suppress(OSError, ValueError, RecursionError):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            found = json.loads(os.read(descriptor, _SIZE))
        finally:
            os.close(descriptor)
        if not isinstance(found, dict):
            return None
        heard, share = found.pop(HEARD, ""), found.pop(SHARE, "")
        if not (_is_sentence(heard) and _is_sentence(share)):
            return None
        if all(word in _WORDS and type(count) is int for word, count in found.items()):
            return found, heard, share
    return None


def _is_sentence(text: object) -> bool:
    return isinstance(text, str) and text.isascii() and text.isprintable()
