"""A fingerprint of a pair of keys that two people can compare over a phone: eight words.

The words are 40 bits of scrypt over both keys, so that a guess at a weak passphrase costs some 0.1 s and 32 MB, and is
right by chance once in 2**40. They say nothing of random keys. Who hears them can test guesses at passphrases, but more
slowly than who sees one packet; so they are shown only to those who can read the keys.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from doorward.values import PublicKey, Secret

_SALT: Final = b"doorward fingerprint 1"
_COST: Final = {"n": 1 << 15, "r": 8, "p": 1}
_MEMORY_MAX: Final = 1 << 26  # bytes; scrypt takes 128 * n * r of them, 1 << 25
_BYTES: Final = 5  # eight characters of base32
_PUBLIC_LETTERS: Final = 12  # 60 bits
_PUBLIC_BYTES: Final = 8  # 13 characters, of which the last is not used
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # of base32, RFC 4648
_SPELLING: Final = (
    *("alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima"),
    *("mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey"),
    *("xray", "yankee", "zulu", "two", "three", "four", "five", "six", "seven"),
)
_SPELLED: Final = dict(zip(_ALPHABET, _SPELLING, strict=True))


def words(key: Secret | None, hmac_key: Secret | None) -> str:
    """The fingerprint as `K2WA-R7QM (kilo two whiskey alfa, romeo seven quebec mike)`."""
    text = base64.b32encode(_slow_hash(_framed(key) + _framed(hmac_key))).decode("ascii")
    return _spelled(text)


def of_public(key: PublicKey) -> str:
    """The fingerprint of a public key, in the same form: 12 words, since others may make keys to be taken for it."""
    text = base64.b32encode(_slow_hash(key.raw, _PUBLIC_BYTES)).decode("ascii")[:_PUBLIC_LETTERS]
    return _spelled(text)


def of_line(key: PublicKey, comment: str | None) -> str:
    """The fingerprint of a public key, with the comment that its line has."""
    return f"{of_public(key)} {comment or ''}".rstrip()


def _spelled(text: str) -> str:
    parts = [text[place : place + 4] for place in range(0, len(text), 4)]
    return f"{'-'.join(parts)} ({', '.join(' '.join(_SPELLED[letter] for letter in part) for part in parts)})"


def _framed(key: Secret | None) -> bytes:
    """A key behind its length, so that no two pairs are the same bytes; a missing one has none."""
    return b"\xff\xff" if key is None else len(key).to_bytes(2, "big") + key.reveal()


def _slow_hash(content: bytes, length: int = _BYTES) -> bytes:
    """The hash by OpenSSL through hashlib, which a Python may lack, or through cryptography."""
    if hasattr(hashlib, "scrypt"):
        return hashlib.scrypt(content, salt=_SALT, maxmem=_MEMORY_MAX, dklen=length, **_COST)
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415  only where hashlib has none

    return Scrypt(salt=_SALT, length=length, **_COST).derive(content)
