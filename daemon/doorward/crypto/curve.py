"""X25519 and ChaCha20-Poly1305 by the package cryptography: a host's side, and a client's where libcrypto.py has none.

Whoever imports this has loaded all that the first key needs: a listener can open no file any more when that comes.
Source: RFC 7748, RFC 8439.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING

import cryptography
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from doorward.crypto import ciphers

if TYPE_CHECKING:
    from doorward.values import PublicKey

ciphers.require(cryptography.__version__)  # before the next line fails where it is another one than expected
import_module("cryptography.hazmat.backends.openssl.backend")  # loaded at the first key otherwise


def public(private: bytes) -> bytes:
    """The public half of a private key of 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def exchange(private: bytes, other: PublicKey) -> bytes:
    """The secret that two keys share. PublicKey has refused what makes it zero."""
    return _private_key(private).exchange(X25519PublicKey.from_public_bytes(other.raw))


@functools.lru_cache(maxsize=1)  # the host's, for all its clients: ten times as dear as an exchange in old versions
def _private_key(private: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(private)


def encrypt(key: bytes, nonce: bytes, plaintext: bytes, data: bytes) -> bytes:
    """The ciphertext with its tag; `data` is authenticated too."""
    return ChaCha20Poly1305(key).encrypt(nonce, plaintext, data)


def box(key: bytes) -> ChaCha20Poly1305:
    """What opens packets of one key; to set it up costs as much as to open one, or more."""
    return ChaCha20Poly1305(key)


def decrypt(opening: ChaCha20Poly1305, nonce: bytes, sealed: bytes, data: bytes) -> bytes | None:
    """The plaintext; None where it was not made with this key, this nonce and this data."""
    try:
        return opening.decrypt(nonce, sealed, data)
    except (InvalidTag, ValueError):  # ValueError: too short for a nonce
        return None
