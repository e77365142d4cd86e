"""Why `doorward status` does not say "closed and well": one word a cause, for monitoring, and a sentence."""

from __future__ import annotations

from typing import Final

from doorward.firewall.standing import Word
from doorward.frozen import dataclass

MEANINGS: Final = {
    Word.DOWN: "doorwardd does not run: no knock opens anything",
    Word.ABSENT: "there is no table of doorward's: the host is open",
    Word.OBSERVE: "the table only records grants: the host is open",
    Word.DORMANT: "the table is dormant, and filters nothing: the host is open",
    Word.CHANGED: "the table is not what its file makes: strangers may get in",
    Word.FAILURE: "firewall.nft is lost or does not load: the failure policy is in force",
    Word.UNKNOWN: "nobody can tell whether the table closes the host",
    Word.OPEN: "a service is open to everybody (doorward open)",
    Word.ENDLESS: "a grant has no end, which no knock can make",
    Word.PENDING: "the table is not confirmed, and will be rolled back",
    Word.FOREIGN: "another firewall can drop what a grant lets in",
    Word.OVERDUE: "a command cycle should be closed, and is not",
}
# Strangers get in, or may, while one of these holds.
_EXPOSING: Final = frozenset(
    {Word.ABSENT, Word.OBSERVE, Word.DORMANT, Word.CHANGED, Word.FAILURE, Word.UNKNOWN, Word.OPEN}
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause; `text` says where it shows on this host."""

    word: Word
    text: str

    @property
    def exposes(self) -> bool:
        """Whether strangers get in, so that nothing may say that the host is closed."""
        return self.word in _EXPOSING

    def __str__(self) -> str:
        """The line of `doorward status`."""
        return f"NOT WELL: {self.word.value}: {self.text}"


def legend() -> str:
    """The words and what they mean, for --help."""
    width = max(len(word.value) for word in Word)
    return "\n".join(f"  {word.value:<{width}}  {MEANINGS[word]}" for word in Word)
