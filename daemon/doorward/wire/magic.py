"""The magic packet: MAC, time and nonce as text, what ten lines of any language can make. Pure.

106 bytes of ASCII: 64 lower-case hex digits of HMAC-SHA256 over the rest, ten digits of Unix seconds, 32 lower-case hex
digits of a nonce. One packet has one spelling. docs/magic-packet.md is its specification.
"""

from __future__ import annotations

import re
from typing import Final

from doorward.errors import WireError
from doorward.frozen import dataclass

PACKET: Final = 106  # bytes; no packet of another format has so many
MAC: Final = 64  # of them
_FORM: Final = re.compile(rb"([0-9a-f]{64})([0-9]{10})([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Message:
    """The parts of a packet. `made` in Unix seconds; `signed` are the bytes that `mac` is of."""

    mac: bytes
    made: int
    signed: bytes


def parse(payload: bytes) -> Message:
    """Read a packet.

    Raises:
        WireError: it has another form.
    """
    match = _FORM.fullmatch(payload)
    if match is None:
        msg = "no magic packet: 64 hex digits, ten digits and 32 hex digits"
        raise WireError(msg)
    return Message(match[1], int(match[2]), payload[MAC:])
