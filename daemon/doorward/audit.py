"""A verdict as one line: `key=value`, the keys stable, values with blanks quoted as in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from doorward.values import address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.gate import Verdict


def line(verdict: Verdict) -> str:
    """Return the audit line of a verdict."""
    return " ".join(f"{key}={_quote(value)}" for key, value in _pairs(verdict))


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
    if verdict.grant is not None:
        yield "source", str(verdict.grant.source)
        yield "services", ",".join(map(str, verdict.grant.services))
        yield "seconds", str(verdict.grant.seconds)
    if verdict.detail:
        yield "detail", verdict.detail


def _quote(value: str) -> str:
    """Return a value that no blank, quote or control character can break out of."""
    plain = value and not any(char in ' "\\=' or not char.isprintable() for char in value)
    return value if plain and value.isascii() else json.dumps(value)
