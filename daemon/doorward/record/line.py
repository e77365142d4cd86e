"""A verdict as one line: `key=value`, the keys stable, values with blanks quoted as in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.record.log import LINES_PER_SECOND
from doorward.record.words import words
from doorward.values import Grant, Reason, address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.config.stanza import Stanza
    from doorward.gate import Verdict
    from doorward.values import Execution

# Reasons that a packet gets before an HMAC is verified, or again and again with one that was.
CHEAP: Final = (
    Reason.MALFORMED,
    Reason.NO_STANZA,
    Reason.EXPIRED,
    Reason.TAG,
    Reason.HMAC,
    Reason.REPLAY,
    Reason.DECRYPTION,
    Reason.BUSY,
    Reason.SIGNATURE,
)


class Suppressed(NamedTuple):
    """So many verdicts of one reason that have no line of their own."""

    reason: Reason
    packets: int


class Carried(NamedTuple):
    """What came of a grant that the other one of two gateways told of; None where it is no grant of theirs."""

    grant: Grant | None
    detail: str
    opened: bool = False


def line(verdict: Verdict | Suppressed | Carried, *, test: bool = False) -> str:
    """The line of a verdict, or of those that have none of their own; `test` marks a daemon that opens nothing."""
    words = " ".join(f"{key}={quote(value)}" for key, value in pairs(verdict))
    return f"test=yes {words}" if test and not isinstance(verdict, Suppressed) else words


def pairs(verdict: Verdict | Suppressed | Carried) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of a verdict. docs/operating.md lists them: other programs rely on these keys."""
    if isinstance(verdict, Suppressed):
        yield from (("verdict", "denied"), ("reason", verdict.reason.value), ("suppressed", str(verdict.packets)))
        return
    if isinstance(verdict, Carried):
        yield from _carried(verdict)
        return
    datagram = verdict.datagram
    yield "verdict", "granted" if verdict.granted else "denied"
    yield "reason", verdict.reason.value
    yield "origin", str(address(datagram.origin))
    yield "origin_port", str(datagram.origin_port)
    if verdict.stanza is not None:
        yield "stanza", str(verdict.stanza)
    if verdict.name is not None:
        yield "name", verdict.name
    if verdict.user is not None:
        yield "user", verdict.user
    if verdict.signer is not None:
        yield "signer", verdict.signer
    yield from _decided(verdict)
    detail = "" if verdict.denial is None else words(verdict.denial)
    if verdict.other is not None and not detail:
        detail = f"the other source is not let in: {words(verdict.other)}"
    if detail:
        yield "detail", detail


def _decided(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """The grant or the command of a verdict."""
    decision = verdict.grant or verdict.execution
    if decision is not None:
        yield "source", _whence(decision)
    if verdict.second is not None:
        yield "second_source", _whence(verdict.second)
    if verdict.grant is not None:
        yield from _opening(verdict.grant)
    if verdict.execution is not None:
        yield "command", "cycle" if verdict.execution.command is None else verdict.execution.command


def _carried(carried: Carried) -> Iterator[tuple[str, str]]:
    yield "verdict", "carried"
    yield "reason", Reason.GRANTED.value if carried.opened else "refused"
    if carried.grant is not None:
        if carried.grant.name is not None:
            yield "name", carried.grant.name
        yield "source", carried.grant.whence
        yield from _opening(carried.grant)
    if carried.detail:
        yield "detail", carried.detail


def _opening(grant: Grant) -> Iterator[tuple[str, str]]:
    yield "services", ",".join(map(str, grant.services))
    yield "seconds", str(grant.seconds)
    yield from _conditions(grant)


def _whence(decision: Grant | Execution) -> str:
    return decision.whence if isinstance(decision, Grant) else str(decision.source)


def _conditions(grant: Grant) -> Iterator[tuple[str, str]]:
    """The NAT of a grant, and its conditions on connections."""
    if grant.nat is not None:
        host = "this-host" if grant.nat.target is None else "everywhere" if grant.nat.everywhere else grant.nat.target
        yield "nat", f"{host},{'*' if grant.nat.port is None else grant.nat.port}"
    if grant.os is not None:
        yield "os", grant.os
    if grant.destination is not None:
        yield "destination", str(grant.destination)


def quote(value: str) -> str:
    """A value that no blank, quote or control character can break out of."""
    plain = value and not any(char in ' "\\=' or not char.isprintable() for char in value)
    return value if plain and value.isascii() else json.dumps(value)


def is_cheap(reason: Reason, stanza: Stanza | None) -> bool:
    """Whether strangers can cause a verdict of `stanza`, and as many as they like."""
    return reason is not Reason.GRANTED and (reason in CHEAP or stanza is None or not stanza.has_hmac_key)


class Limiter:
    """How many lines of a kind are written in a second; the others are counted and named once a second.

    Only the verdicts that strangers can cause are limited: a grant, and a new packet that an HMAC key made, always has
    its line.
    """

    def __init__(self, lines_per_second: int = LINES_PER_SECOND) -> None:
        """Admit so many lines of each kind between two summaries."""
        self._most = lines_per_second
        self._seen = dict.fromkeys(Reason, 0)

    def admits(self, reason: Reason, *, cheap: bool) -> bool:
        """Count one verdict and say whether its line is written; those that are not `cheap` all are."""
        if not cheap:
            return True
        self._seen[reason] += 1
        return self._seen[reason] <= self._most

    def summary(self) -> list[Suppressed]:
        """The verdicts that were not written since the last call, by reason."""
        suppressed = [Suppressed(reason, seen - self._most) for reason, seen in self._seen.items() if seen > self._most]
        self._seen = dict.fromkeys(Reason, 0)
        return suppressed
