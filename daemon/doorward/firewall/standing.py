"""Whether our table keeps a host closed, and what speaks against it. Pure."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Final

from doorward.firewall.elements import ANYONE
from doorward.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from doorward.values import LiveGrant, Nat, Service


class Word(enum.Enum):
    """What speaks against a host, in words that scripts may rely on, in the order of `doorward status`."""

    DOWN = "down"
    ABSENT = "absent"
    OBSERVE = "observe"
    DORMANT = "dormant"
    CHANGED = "changed"
    FAILURE = "failure"
    UNKNOWN = "unknown"
    OPEN = "open"
    ENDLESS = "endless"
    PENDING = "pending"
    FOREIGN = "foreign"
    OVERDUE = "overdue"


_TELLING: Final = frozenset({Word.FAILURE, Word.UNKNOWN})  # of a host of which nobody can tell


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether strangers are kept out: None where nobody can tell; `doubts` are words with a sentence each."""

    closed: bool | None = True
    doubts: tuple[tuple[Word, str], ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The doubts as sentences."""
        return tuple(sentence for _, sentence in self.doubts)


def doubtful(doubt: Word, sentence: str) -> Standing:
    """The standing of a host whose table is in doubt."""
    return Standing(None if doubt in _TELLING else False, ((doubt, sentence),))


def with_grants(standing: Standing, grants: Iterable[LiveGrant], served: Collection[Service]) -> Standing:
    """The standing of a host with live grants; `served` are the ports of our own servers."""
    grants = tuple(grants)
    anyone = tuple(_open_to_all(grants, served))
    return Standing(False if anyone else standing.closed, (*standing.doubts, *anyone, *_endless(grants)))


def opening(grant: LiveGrant) -> str:
    """What a grant opens, as text: `tcp/80 to 10.0.0.5 port 22 under the source 10.0.0.1`."""
    words = ["everything" if grant.service is None else str(grant.service)]
    words += [] if grant.destination is None else [f"at {grant.destination}"]
    words += [] if grant.os is None else [f"from {grant.os}"]
    return " ".join(words + ([] if grant.nat is None else _leading(grant.nat)))


def lasting(grant: LiveGrant) -> str:
    """The remaining time of a grant as text."""
    return "without an end" if math.isinf(grant.remaining) else f"for {grant.remaining:.0f} s"


def _leading(nat: Nat) -> list[str]:
    """The NAT of a grant as text."""
    target = "everywhere" if nat.everywhere else "this host," if nat.target is None else nat.target
    words = [f"{'to' if nat.rewrite else 'through to'} {target}{'' if nat.port is None else f' port {nat.port}'}"]
    words += ["masqueraded"] if nat.masquerade else []
    return words + ([] if nat.snat is None else [f"under the source {nat.snat}"])


def _open_to_all(grants: Iterable[LiveGrant], served: Collection[Service]) -> Iterator[tuple[Word, str]]:
    for grant in grants:
        if grant.source == ANYONE and grant.service not in served:
            yield Word.OPEN, f"{opening(grant)} is open to everybody, {lasting(grant)}"


def _endless(grants: Iterable[LiveGrant]) -> Iterator[tuple[Word, str]]:
    for grant in grants:
        if math.isinf(grant.remaining):
            yield Word.ENDLESS, f"a grant without an end, which no knock made: {grant.source} {opening(grant)}"
