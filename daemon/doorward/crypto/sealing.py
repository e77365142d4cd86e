"""Sealing by fwknop's symmetric envelope, for a client that must load fast; symmetric.py is the other direction.

Source: fwknop lib/cipher_funcs.c, lib/fko_encryption.c, lib/fko_hmac.c.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from doorward.crypto import libcrypto
from doorward.errors import WireError
from doorward.values import KEY_MAX, EncryptionMode
from doorward.wire import fwknop

if TYPE_CHECKING:
    from doorward.values import SymmetricKeys

SALT_BYTES: Final = 8
MAGIC: Final = b"Salted__"
BLOCK: Final = 16
_LEGACY_KEY: Final = 16
_CBC: Final = frozenset({EncryptionMode.CBC, EncryptionMode.LEGACY})


def seal(plaintext: bytes, keys: SymmetricKeys, salt: bytes) -> bytes:
    """The payload for a plaintext. `salt` is 8 random bytes, new for every packet.

    Raises:
        WireError: the plaintext is too long for a symmetric packet, or the salt has another length.
    """
    if len(salt) != SALT_BYTES:
        msg = f"a salt has {SALT_BYTES} bytes"
        raise WireError(msg)
    key, iv = derive(keys, salt)
    blob = MAGIC + salt + _encrypt(keys.mode, key, iv, _pad(plaintext))
    sealed = fwknop.encode_blob(blob)
    if len(sealed) >= fwknop.SYMMETRIC_MAX:
        msg = f"the message is too long: {len(sealed)} characters of {fwknop.SYMMETRIC_MAX - 1}"
        raise WireError(msg)
    return sealed.removeprefix(fwknop.PREFIX) + _tag(sealed, keys)


def _encrypt(mode: EncryptionMode, key: bytes, iv: bytes, padded: bytes) -> bytes:
    """The ciphertext: of CBC by libcrypto where that can be had, else by cryptography, which takes longer to load."""
    ciphertext = libcrypto.encrypt_cbc(key, iv, padded) if mode in _CBC else None
    if ciphertext is not None:
        return ciphertext
    from doorward.crypto import ciphers  # noqa: PLC0415  30 to 70 ms before every ssh

    return ciphers.encrypt(mode, key, iv, padded)


def _tag(sealed: bytes, keys: SymmetricKeys) -> bytes:
    if keys.hmac_key is None:
        return b""
    return fwknop.encode_blob(hmac.digest(keys.hmac_key.reveal(), sealed, keys.hmac_digest.label))


def derive(keys: SymmetricKeys, salt: bytes) -> tuple[bytes, bytes]:
    """AES key and IV: OpenSSL's EVP_BytesToKey with MD5 and one round, as the format fixes it."""
    secret = keys.key.reveal()
    if keys.mode is EncryptionMode.LEGACY:
        secret = secret[:_LEGACY_KEY].ljust(_LEGACY_KEY, b"0")
    material = block = b""
    while len(material) < KEY_MAX + BLOCK:
        block = hashlib.md5(block + secret + salt, usedforsecurity=False).digest()
        material += block
    return material[:KEY_MAX], material[KEY_MAX : KEY_MAX + BLOCK]


def _pad(plaintext: bytes) -> bytes:
    """PKCS #7 padding (RFC 5652 §6.3) to a multiple of the block size, which fwknop applies in every mode."""
    count = BLOCK - len(plaintext) % BLOCK
    return plaintext + bytes([count]) * count
