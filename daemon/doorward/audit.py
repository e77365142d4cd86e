"""A verdict as one line: `key=value`, the keys stable, values with blanks quoted as in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from doorward.values import Reason, address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.gate import Verdict
    from doorward.values import Grant

LINES_PER_SECOND: Final = 50  # of each kind; a person with a wrong key makes one or two
# What strangers can cause; the last three where a stanza has no HMAC key, or as fast as whoever has one wants to.
CHEAP: Final = (
    Reason.MALFORMED,
    Reason.NO_STANZA,
    Reason.EXPIRED,
    Reason.HMAC,
    Reason.REPLAY,
    Reason.DECRYPTION,
    Reason.BUSY,
    Reason.SIGNATURE,
)


def line(verdict: Verdict) -> str:
    """Return the audit line of a verdict."""
    return " ".join(f"{key}={quote(value)}" for key, value in _pairs(verdict))


def _pairs(verdict: Verdict) -> Iterator[tuple[str, str]]:
    datagram = verdict.datagram
    yield "verdict", "granted" if verdict.granted else "denied"
    yield "reason", verdict.reason.value
    yield "origin", str(address(datagram.origin))
    yield "origin_port", str(datagram.origin_port)
    if verdict.stanza is not None:
        yield "stanza", str(verdict.stanza)
    if verdict.user is not None:
        yield "user", verdict.user
    if verdict.signer is not None:
        yield "signer", verdict.signer
    if verdict.grant is not None:
        yield "source", str(verdict.grant.source)
        yield "services", ",".join(map(str, verdict.grant.services))
        yield "seconds", str(verdict.grant.seconds)
        yield from _conditions(verdict.grant)
    if verdict.execution is not None:
        yield "source", str(verdict.execution.source)
        yield "command", "cycle" if verdict.execution.command is None else verdict.execution.command
    if verdict.detail:
        yield "detail", verdict.detail


def _conditions(grant: Grant) -> Iterator[tuple[str, str]]:
    """Yield where a grant leads, and what it asks of a connection."""
    if grant.nat is not None:
        host = "this-host" if grant.nat.target is None else str(grant.nat.target)
        yield "nat", f"{host},{'*' if grant.nat.port is None else grant.nat.port}"
    if grant.os is not None:
        yield "os", grant.os
    if grant.destination is not None:
        yield "destination", str(grant.destination)


def quote(value: str) -> str:
    """Return a value that no blank, quote or control character can break out of."""
    plain = value and not any(char in ' "\\=' or not char.isprintable() for char in value)
    return value if plain and value.isascii() else json.dumps(value)


class Limiter:
    """How many lines of a kind are written in a second; the others are counted and named once a second.

    Only what strangers cause at no cost is limited. Whatever an authentic and new packet led to always has its line.
    """

    def __init__(self, lines_per_second: int = LINES_PER_SECOND) -> None:
        """Admit so many lines of each kind between two summaries."""
        self._most = lines_per_second
        self._seen = dict.fromkeys(CHEAP, 0)

    def admits(self, reason: Reason) -> bool:
        """Count one verdict and say whether its line is written."""
        if reason not in self._seen:
            return True
        self._seen[reason] += 1
        return self._seen[reason] <= self._most

    def summary(self) -> list[str]:
        """Return a line for each kind of which some were not written since the last call, and begin anew."""
        lines = [
            f"verdict=denied reason={reason.value} suppressed={seen - self._most}"
            for reason, seen in self._seen.items()
            if seen > self._most
        ]
        self._seen = dict.fromkeys(CHEAP, 0)
        return lines
