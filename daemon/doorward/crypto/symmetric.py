"""fwknop's symmetric envelope: AES-256 under a salted key, then an HMAC over the base64 text.

Source: fwknop lib/cipher_funcs.c, lib/fko_encryption.c, lib/fko_hmac.c. The format fixes MD5 as its key derivation;
what that is worth, and why the HMAC key carries the authenticity, stands in SECURITY.md.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from doorward.errors import AuthenticationError, WireError
from doorward.values import KEY_MAX, EncryptionMode
from doorward.wire import fwknop

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.values import DigestType, Secret, SymmetricKeys

try:  # CFB and OFB live here since cryptography 47, which warns where they are taken from their old place
    from cryptography.hazmat.decrepit.ciphers.modes import CFB, OFB
except ImportError:
    from cryptography.hazmat.primitives.ciphers.modes import CFB, OFB

SALT_BYTES: Final = 8
_MAGIC: Final = b"Salted__"
_BLOCK: Final = 16
_LEGACY_KEY: Final = 16

# the type of a mode differs between the versions of cryptography, so it is Any here
_MODES: Final[dict[EncryptionMode, Callable[[bytes], Any]]] = {
    EncryptionMode.CBC: modes.CBC,
    EncryptionMode.LEGACY: modes.CBC,
    EncryptionMode.ECB: lambda _iv: modes.ECB(),  # noqa: S305  fwknop offers it; the salt makes the key fresh each time
    EncryptionMode.CFB: CFB,
    EncryptionMode.OFB: OFB,
    EncryptionMode.CTR: modes.CTR,
}


class Verifier:
    """The MAC test of one HMAC key, prepared once: what a stranger's packet costs. Of both envelopes.

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
        """Return the sealed text of a payload, prefix put back and tag cut off, or None where the tag does not fit.

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
    """Return the inner state with the prefix behind its key block, and the outer state (RFC 2104 §2)."""
    inner, outer = hashlib.new(hash_name, usedforsecurity=False), hashlib.new(hash_name, usedforsecurity=False)
    if len(key) > inner.block_size:
        key = hashlib.new(hash_name, key, usedforsecurity=False).digest()
    block = key.ljust(inner.block_size, b"\0")
    inner.update(bytes(byte ^ 0x36 for byte in block))
    outer.update(bytes(byte ^ 0x5C for byte in block))
    inner.update(prefix)
    return inner, outer


def verify(payload: bytes, keys: SymmetricKeys) -> bytes | None:
    """Return what the Verifier of `keys` returns: for a single packet."""
    return Verifier(keys.hmac_key, keys.hmac_digest)(payload)


def decode(sealed: bytes) -> bytes:
    """Return the blob of a sealed text: `Salted__`, 8 bytes of salt, ciphertext.

    Its bytes are what names the packet in the replay store: one text has one blob, and one blob one text.

    Raises:
        WireError: too long for a symmetric packet, not canonical base64, or not whole blocks.
    """
    if len(sealed) >= fwknop.SYMMETRIC_MAX:
        msg = f"{len(sealed)} characters are too long for a symmetric packet"
        raise WireError(msg)
    blob = fwknop.decode_blob(sealed)
    if not blob.startswith(_MAGIC) or len(blob) < 3 * _BLOCK or len(blob) % _BLOCK:
        msg = "the ciphertext is not whole blocks"
        raise WireError(msg)
    return blob


def decrypt(blob: bytes, keys: SymmetricKeys) -> bytes:
    """Return the plaintext of a blob.

    Raises:
        AuthenticationError: the key does not fit.
    """
    key, iv = _derive(keys, blob[8:16])
    decryptor = Cipher(AES(key), _MODES[keys.mode](iv)).decryptor()
    plaintext = _unpad(decryptor.update(blob[16:]) + decryptor.finalize())
    if not fwknop.is_plaintext(plaintext):
        msg = "decryption failed"
        raise AuthenticationError(msg)
    return plaintext


def unseal(payload: bytes, keys: SymmetricKeys) -> bytes:
    """Return the plaintext of a payload; the MAC is tested before anything is decrypted.

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


def seal(plaintext: bytes, keys: SymmetricKeys, salt: bytes) -> bytes:
    """Return the payload for a plaintext. `salt` is 8 random bytes, new for every packet.

    Raises:
        WireError: the plaintext is too long for a symmetric packet, or the salt has another length.
    """
    if len(salt) != SALT_BYTES:
        msg = f"a salt has {SALT_BYTES} bytes"
        raise WireError(msg)
    key, iv = _derive(keys, salt)
    encryptor = Cipher(AES(key), _MODES[keys.mode](iv)).encryptor()
    blob = _MAGIC + salt + encryptor.update(_pad(plaintext)) + encryptor.finalize()
    sealed = fwknop.encode_blob(blob)
    if len(sealed) >= fwknop.SYMMETRIC_MAX:
        msg = f"the message is too long: {len(sealed)} characters of {fwknop.SYMMETRIC_MAX - 1}"
        raise WireError(msg)
    return sealed.removeprefix(fwknop.PREFIX) + _tag(sealed, keys)


def _tag(sealed: bytes, keys: SymmetricKeys) -> bytes:
    if keys.hmac_key is None:
        return b""
    return fwknop.encode_blob(hmac.digest(keys.hmac_key.reveal(), sealed, keys.hash_name))


def _derive(keys: SymmetricKeys, salt: bytes) -> tuple[bytes, bytes]:
    """Return AES key and IV: OpenSSL's EVP_BytesToKey with MD5 and one round, as the format fixes it."""
    secret = keys.key.reveal()
    if keys.mode is EncryptionMode.LEGACY:
        secret = secret[:_LEGACY_KEY].ljust(_LEGACY_KEY, b"0")
    material = block = b""
    while len(material) < KEY_MAX + _BLOCK:
        block = hashlib.md5(block + secret + salt, usedforsecurity=False).digest()
        material += block
    return material[:KEY_MAX], material[KEY_MAX : KEY_MAX + _BLOCK]


def _pad(plaintext: bytes) -> bytes:
    """Return PKCS #7 padding (RFC 5652 §6.3) to whole blocks, which fwknop applies in every mode."""
    count = _BLOCK - len(plaintext) % _BLOCK
    return plaintext + bytes([count]) * count


def _unpad(padded: bytes) -> bytes:
    count = padded[-1]
    if not 1 <= count <= _BLOCK or padded[-count:] != bytes([count]) * count:
        msg = "decryption failed: bad padding"
        raise AuthenticationError(msg)
    return padded[:-count]
