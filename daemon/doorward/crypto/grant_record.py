"""The envelope of a grant that one of two gateways tells the other: under keys of the stanza that granted it.

HKDF-SHA-256 (RFC 5869) over what the stanza's packets are authenticated with, and ChaCha20-Poly1305 (RFC 8439).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from doorward.crypto import curve
from doorward.errors import AuthenticationError
from doorward.values import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.config.stanza import Stanza

ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
_HEAD: Final = ID_BYTES + NONCE_BYTES
_SALT: Final = b"doorward carried grant 1"


class RecordKey:
    """The key of a stanza's grants; `name` finds it, and tells nothing about it."""

    __slots__ = ("_key", "name")

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        """Derive it from all secrets of the stanza."""
        joined = b"".join(len(secret).to_bytes(2, "big") + secret for secret in secrets)
        prk = hmac.digest(_SALT, joined, "sha256")
        self._key = Secret(hmac.digest(prk, b"seal\x01", "sha256"))
        self.name = hmac.digest(prk, b"name\x01", "sha256")[:ID_BYTES]

    def seal(self, content: bytes, nonce: bytes) -> bytes:
        """The record of a grant; `nonce` is 12 random bytes, new for every record."""
        return self.name + nonce + curve.encrypt(self._key.reveal(), nonce, content, self.name)

    def unseal(self, record: bytes) -> bytes:
        """What seal() was given.

        Raises:
            AuthenticationError: this key did not make the record.
        """
        box = curve.box(self._key.reveal())
        content = curve.decrypt(box, record[ID_BYTES:_HEAD], record[_HEAD:], record[:ID_BYTES])
        if content is None:
            msg = "the record was not made with the key that it names"
            raise AuthenticationError(msg)
        return content


def key_of(stanza: Stanza, host_key: Secret | None) -> RecordKey | None:
    """The key of a stanza's grants; None where nothing secret authenticates its packets.

    That is a stanza of GnuPG without an HMAC key, and one of sequences of ports.
    """
    secrets = tuple(secret.reveal() for secret in _secrets(stanza, host_key))
    return RecordKey(secrets) if any(secrets) else None


def _secrets(stanza: Stanza, host_key: Secret | None) -> Iterator[Secret]:
    """Always as many, so that no secret stands in the place of another."""
    none, keys, openpgp = Secret(b""), stanza.keys, stanza.openpgp
    yield none if keys is None else keys.key
    yield (keys and keys.hmac_key) or none
    yield (openpgp and openpgp.hmac_key) or none
    yield none if host_key is None or not stanza.clients else host_key
    yield stanza.psk or none
    yield none if stanza.magic is None else stanza.magic.password
