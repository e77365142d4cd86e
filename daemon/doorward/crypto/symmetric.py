"""fwknop's symmetric envelope: AES-256 under a salted key, then an HMAC over the base64 text.

Source: fwknop lib/cipher_funcs.c, lib/fko_encryption.c, lib/fko_hmac.c. The format fixes MD5 as its key derivation;
SECURITY.md says how strong that is, and why the HMAC key carries the authenticity.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from doorward.crypto import ciphers
from doorward.crypto.sealing import BLOCK, MAGIC, SALT_BYTES, derive, seal
from doorward.errors import AuthenticationError, WireError
from doorward.wire import fwknop

if TYPE_CHECKING:
    from doorward.values import DigestType, Secret, SymmetricKeys

__all__ = ["SALT_BYTES", "Verifier", "decode", "decrypt", "seal", "unseal", "verify"]


class Verifier:
    """The MAC test of one HMAC key, prepared once: the cost of a stranger's packet. For both envelopes.

    The hash states after RFC 2104's two key blocks (and the prefix that every packet lost) are made here; a packet only
    copies them. They are key material and never show themselves.
    """

    __slots__ = ("_inner", "_outer", "_prefix", "_tag_length")

    def __init__(self, hmac_key: Secret | None, digest: DigestType, prefix: bytes = fwknop.PREFIX) -> None:
        """Prepare for a key and the prefix that its packets lost; without a key every payload passes."""
        self._prefix = prefix
        self._tag_length = digest.text_length
        self._inner: hashlib._Hash | None = None
        self._outer: hashlib._Hash | None = None
        if hmac_key is not None:
            self._inner, self._outer = _states(hmac_key.reveal(), digest.label, prefix)

    def __call__(self, payload: bytes) -> bytes | None:
        """The sealed text of a payload, prefix put back and tag cut off, or None where the tag does not fit.

        None rather than an exception: most calls end so in a flood.
        """
        if self._inner is None or self._outer is None:
            return self._prefix + payload
        text = payload[: -self._tag_length]
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        fits = hmac.compare_digest(fwknop.encode_blob(outer.digest()), payload[-self._tag_length :])
        return self._prefix + text if fits else None


def _states(key: bytes, hash_name: str, prefix: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The inner state with the prefix behind its key block, and the outer state (RFC 2104 §2)."""
    inner, outer = hashlib.new(hash_name, usedforsecurity=False), hashlib.new(hash_name, usedforsecurity=False)
    if len(key) > inner.block_size:
        key = hashlib.new(hash_name, key, usedforsecurity=False).digest()
    block = key.ljust(inner.block_size, b"\0")
    inner.update(bytes(byte ^ 0x36 for byte in block))
    outer.update(bytes(byte ^ 0x5C for byte in block))
    inner.update(prefix)
    return inner, outer


def verify(payload: bytes, keys: SymmetricKeys) -> bytes | None:
    """The answer of the Verifier of `keys`, for a single packet."""
    return Verifier(keys.hmac_key, keys.hmac_digest)(payload)


def decode(sealed: bytes) -> bytes:
    """The blob of a sealed text: `Salted__`, 8 bytes of salt, ciphertext.

    Its bytes name the packet in the replay store: one text has one blob, and one blob one text.

    Raises:
        WireError: too long for a symmetric packet, not canonical base64, or no multiple of the block size.
    """
    if len(sealed) >= fwknop.SYMMETRIC_MAX:
        msg = f"{len(sealed)} characters are too long for a symmetric packet"
        raise WireError(msg)
    blob = fwknop.decode_blob(sealed)
    if not blob.startswith(MAGIC) or len(blob) < 3 * BLOCK or len(blob) % BLOCK:
        msg = "the ciphertext does not end with a block"
        raise WireError(msg)
    return blob


def decrypt(blob: bytes, keys: SymmetricKeys) -> bytes:
    """The plaintext of a blob.

    Raises:
        AuthenticationError: the key does not fit.
    """
    key, iv = derive(keys, blob[8:16])
    plaintext = _unpad(ciphers.decrypt(keys.mode, key, iv, blob[16:]))
    if not fwknop.is_plaintext(plaintext):
        msg = "decryption failed"
        raise AuthenticationError(msg)
    return plaintext


def unseal(payload: bytes, keys: SymmetricKeys) -> bytes:
    """The plaintext of a payload; the MAC is tested before anything is decrypted.

    Raises:
        WireError: the payload is not of the format.
        AuthenticationError: the keys did not make it.
    """
    fwknop.check(payload)
    sealed = verify(payload, keys)
    if sealed is None:
        msg = "the HMAC does not fit"
        raise AuthenticationError(msg)
    return decrypt(decode(sealed), keys)


def _unpad(decrypted: bytes) -> bytes:
    """The bytes without a valid padding, or all of them, as libfko has it (lib/cipher_funcs.c, rij_decrypt).

    Clients without libfko omit the padding where the plaintext fills its last block. The digest within decides; other
    paddings (zeros, ANSI X9.23) leave bytes that no plaintext has.
    """
    count = decrypted[-1]
    valid = 1 <= count <= BLOCK and decrypted.endswith(bytes([count]) * count)
    return decrypted[:-count] if valid else decrypted
