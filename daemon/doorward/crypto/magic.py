"""The MAC of the magic packet: HMAC-SHA256 (RFC 2104) in hex, under the password that both sides have."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doorward.values import Secret
    from doorward.wire.magic import Message


def is_of(message: Message, password: Secret) -> bool:
    """Whether the password made a packet. One that shows the password was made by somebody who gives it away."""
    key = password.reveal()
    made = hmac.digest(key, message.signed, hashlib.sha256).hex().encode("ascii")
    return hmac.compare_digest(made, message.mac) and key not in message.mac + message.signed


def seal(password: Secret, made: int, nonce: bytes) -> bytes:
    """A packet of a time in Unix seconds and a nonce of 16 bytes."""
    signed = f"{made:010}{nonce.hex()}".encode("ascii")
    return hmac.digest(password.reveal(), signed, hashlib.sha256).hex().encode("ascii") + signed
