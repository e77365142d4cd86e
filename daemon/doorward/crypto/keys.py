"""New symmetric keys, in fwknop's spelling."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

from doorward.errors import WireError
from doorward.values import HMAC_KEY_MAX, KEY_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_BYTES: Final = 32
HMAC_KEY_BYTES: Final = 64
SHORT_KEY: Final = 16  # bytes; a shorter random key can be guessed


def generate(random_bytes: Callable[[int], bytes], key_bytes: int = KEY_BYTES, hmac_bytes: int = HMAC_KEY_BYTES) -> str:
    """The two lines that `fwknop --key-gen` prints; `random_bytes` is the operating system's generator.

    Raises:
        WireError: a length that fwknop cannot use.
    """
    if not 1 <= key_bytes <= KEY_MAX or not 1 <= hmac_bytes <= HMAC_KEY_MAX:
        msg = f"key lengths are 1 to {KEY_MAX} and 1 to {HMAC_KEY_MAX} bytes"
        raise WireError(msg)
    key = base64.b64encode(random_bytes(key_bytes)).decode("ascii")
    hmac_key = base64.b64encode(random_bytes(hmac_bytes)).decode("ascii")
    return f"KEY_BASE64: {key}\nHMAC_KEY_BASE64: {hmac_key}\n"


def weakness(key_bytes: int | None, hmac_bytes: int | None) -> str | None:
    """The warning about the length of new keys, None where there is none."""
    short = [f"a key of {length} bytes" for length in (key_bytes, hmac_bytes) if length and length < SHORT_KEY]
    return f"{' and '.join(short)} can be guessed: take {SHORT_KEY} bytes or more" if short else None


def fingerprint(key_text: str) -> str:
    """A short name for a key text that tells nothing about the keys: `SHA256:…`, as ssh-keygen writes it."""
    words = " ".join(key_text.split())
    digest = hashlib.sha256(b"doorward key fingerprint\0" + words.encode()).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")
