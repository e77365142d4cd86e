"""Why there is no connection, as far as this side can know; loaded only when one does not come up."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from typing import TYPE_CHECKING, Final

from doorward.client import clock, refusals
from doorward.client.address import own_address
from doorward.linux.clock import UNSYNCHRONISED, is_synchronised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from doorward.client.address import Endpoint
    from doorward.client.connect import DialAttempts
    from doorward.client.refusals import Refusal
    from doorward.client.sources import Sources
    from doorward.client.surroundings import Outside
    from doorward.values import IPAddress

_WORDS: Final = {
    errno.ECONNREFUSED: "refused: the host answers, but nothing listens on this port",
    errno.EHOSTUNREACH: "no route to the host: it is down, or a router or firewall on the way says no",
    errno.ENETUNREACH: "no route: this machine has no way to that network",
}


class Explanation:
    """What is found out about one connection that does not come up."""

    def __init__(self, host: str, outside: Outside) -> None:
        """Begin for a host as the user calls it."""
        self._host, self._outside = host, outside
        self._question: clock.Question | None = None

    def begin(self, attempts: Sequence[DialAttempts]) -> str:
        """Ask the host for the time, which takes a while; return the state of things, for one who waits."""
        asked = [each.route.dial for each in attempts if each.knocks]
        with contextlib.suppress(OSError):
            self._question = clock.Question(asked[0], self._outside) if asked else None
        return meanwhile(attempts)

    def reason(self, attempts: Sequence[DialAttempts]) -> str:
        """The reason in one line."""
        if all(each.end for each in attempts):
            return "; ".join([*ends(attempts), *_knocked_in_vain(attempts)])
        if not knocks(attempts):
            silence = "closed" if any(each.unsent for each in attempts) else "no answer"
            return f"{silence}, and {unsent(attempts)}"
        told = f"closed after {_times(knocks(attempts))}{asked_for(attempts)}"
        return f"{told}: {'; '.join(self._clauses(attempts))}; try: doorward doctor {shlex.quote(self._host)}"

    def _clauses(self, attempts: Sequence[DialAttempts]) -> Iterator[str]:
        """What this side knows, and then what it cannot know."""
        refused = refusals_of(attempts)
        yield from refused.values()
        if refused and all(refusal.is_final for refusal in refused):
            return
        ahead = None if self._question is None else self._question.answer()
        if ahead is not None and abs(ahead) >= clock.OFF:
            yield difference(ahead, self._host)
        yield " ".join(["key?", *(["clock?"] if ahead is None else []), *doubts(attempts)])
        if ahead is None and is_synchronised() is False:
            yield UNSYNCHRONISED


def difference(ahead: float, host: str) -> str:
    """The sentence about a host's clock that is `ahead` seconds ahead."""
    return f"this machine's clock is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the NTP of {host}"


def meanwhile(attempts: Sequence[DialAttempts]) -> str:
    """The state of things, for one who waits."""
    count = knocks(attempts)
    if not count:
        return f"no answer yet, and {unsent(attempts)}"
    return f"knocked {_often(count)}{asked_for(attempts)}, no answer yet"


def ends(attempts: Sequence[DialAttempts]) -> list[str]:
    """Why each address was given up."""
    return list(dict.fromkeys(_WORDS.get(each.end) or os.strerror(each.end) for each in attempts if each.end))


def refusals_of(attempts: Sequence[DialAttempts]) -> dict[Refusal, str]:
    """The refusals that the network answered with, and a sentence for each."""
    found = {}
    for each in attempts:
        door = each.route.door or each.route.dial
        for refusal in refusals.heard(each.route.senders):
            found[refusal] = refusal.words(door, _own(door))
    return found


def knocks(attempts: Sequence[DialAttempts]) -> int:
    """The number of knocks."""
    return sum(each.knocks for each in attempts)


def asked_for(attempts: Sequence[DialAttempts]) -> str:
    """The sources that were asked for, in words."""
    asked = dict.fromkeys(sources.words() for sources in _asking(attempts))
    return f" as {' and '.join(asked)}" if asked else ""


def doubts(attempts: Sequence[DialAttempts]) -> list[str]:
    """Why none of these sources may be right, as one clause or none."""
    return list(filter(None, ["; ".join(dict.fromkeys(sources.doubts() for sources in _asking(attempts)))]))


def unsent(attempts: Sequence[DialAttempts]) -> str:
    """Why no knock was sent."""
    complaint = next((each.unsent for each in attempts if each.unsent), "")
    return f"no knock could be sent: {complaint}" if complaint else attempts[0].route.keyless


def _knocked_in_vain(attempts: Sequence[DialAttempts]) -> Iterator[str]:
    """What became of the knocks at addresses that were given up."""
    yield from refusals_of(attempts).values()
    if knocks(attempts):
        yield f"knocked {_often(knocks(attempts))}{asked_for(attempts)}"


def _asking(attempts: Sequence[DialAttempts]) -> list[Sources]:
    return [each.route.sources for each in attempts if each.knocks and each.route.sources is not None]


def _own(door: Endpoint) -> IPAddress | None:
    try:
        return own_address(door)
    except OSError:
        return None


def _often(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _times(count: int) -> str:
    return f"{count} knock{'s' * (count > 1)}"
