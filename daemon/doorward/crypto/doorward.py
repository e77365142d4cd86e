"""The envelope of the format `doorward 1`: X25519, HKDF-SHA-256, ChaCha20-Poly1305, and the tags that name a sender.

A client, which loads before every ssh, makes its packets by libcrypto; a host has loaded curve.py.
Source: docs/packet-formats.md; RFC 7748, RFC 5869, RFC 8439.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from doorward.config.reader import refusal
from doorward.crypto import libcrypto
from doorward.errors import AuthenticationError, WireError
from doorward.frozen import dataclass
from doorward.values import PublicKey, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    from doorward.config.private_key import KeyPair

T = TypeVar("T")
KEY_BYTES: Final = 32  # of private and pre-shared keys
TAG_BYTES: Final = 8
NONCE_BYTES: Final = 12
_HEAD: Final = TAG_BYTES + NONCE_BYTES
_SALT: Final = b"doorward 1"
_NO_PSK: Final = bytes(KEY_BYTES)


def generate(random_bytes: Callable[[int], bytes]) -> Secret:
    """A new private key; `random_bytes` is the operating system's generator."""
    return Secret(random_bytes(KEY_BYTES))


def public_key(private: Secret) -> PublicKey:
    """The public half of a private key.

    Raises:
        WireError: the key has another length.
    """
    raw = _private(private)
    public = libcrypto.x25519_public(raw)
    if public is None:
        from doorward.crypto import curve  # noqa: PLC0415  cryptography takes 20 to 70 ms to load, before every ssh

        public = curve.public(raw)
    return PublicKey(public)


def whole(file: Path, pair: KeyPair) -> KeyPair:
    """The pair that a file has.

    Raises:
        ConfigError: one of its keys is not the other's half.
    """
    if public_key(pair.private) != pair.public:
        raise refusal(file, "its two keys are no pair: a line was changed")
    return pair


class Pair:
    """What one client and one host share: the same value on both sides."""

    __slots__ = ("_box", "_prk", "_seal_info", "_tag_key")

    def __init__(self, prk: bytes, client: PublicKey, host: PublicKey) -> None:
        """Derive the keys. The order of client and host separates the two directions of two machines that are both."""
        ends = client.raw + host.raw
        self._prk = Secret(prk)
        self._tag_key = Secret(_expand(prk, b"tag" + ends))
        self._seal_info = b"seal" + ends
        self._box: tuple[int, ChaCha20Poly1305] | None = None  # of the epoch that was unsealed last

    @classmethod
    def of_client(cls, private: Secret, host: PublicKey, psk: Secret | None = None) -> Pair:
        """The client's side."""
        raw = _private(private)
        shared = libcrypto.x25519(raw, host.raw)
        if shared is None:
            from doorward.crypto import curve  # noqa: PLC0415  as above

            shared = curve.exchange(raw, host)
        return cls(_extract(shared, psk), public_key(private), host)

    @classmethod
    def of_host(cls, private: Secret, host: PublicKey, client: PublicKey, psk: Secret | None = None) -> Pair:
        """The host's side; `host` is the public half of `private`, which is not computed again for each client."""
        from doorward.crypto import curve  # noqa: PLC0415  as above; a host has loaded it

        return cls(_extract(curve.exchange(_private(private), client), psk), client, host)

    def tag(self, epoch: int) -> bytes:
        """The name of this pair during one epoch."""
        return hmac.digest(self._tag_key.reveal(), epoch.to_bytes(8, "big"), "sha256")[:TAG_BYTES]

    def seal(self, plaintext: bytes, epoch: int, nonce: bytes) -> bytes:
        """The packet of a plaintext. `nonce` is 12 random bytes, new for every packet.

        Raises:
            WireError: the nonce has another length.
        """
        if len(nonce) != NONCE_BYTES:
            msg = f"a nonce has {NONCE_BYTES} bytes"
            raise WireError(msg)
        tag = self.tag(epoch)
        sealed = libcrypto.encrypt_chacha20_poly1305(self._key(epoch), nonce, plaintext, tag)
        if sealed is None:
            from doorward.crypto import curve  # noqa: PLC0415  as above

            sealed = curve.encrypt(self._key(epoch), nonce, plaintext, tag)
        return tag + nonce + sealed

    def unseal(self, packet: bytes, epoch: int) -> bytes:
        """The plaintext of a packet.

        Raises:
            AuthenticationError: this pair did not make it in this epoch.
        """
        from doorward.crypto import curve  # noqa: PLC0415  as above; a host has loaded it

        if self._box is None or self._box[0] != epoch:  # a flood with one live tag sets it up once
            self._box = epoch, curve.box(self._key(epoch))
        plaintext = curve.decrypt(self._box[1], packet[TAG_BYTES:_HEAD], packet[_HEAD:], packet[:TAG_BYTES])
        if plaintext is None:
            msg = "the packet was not made with the key that its tag names"
            raise AuthenticationError(msg)
        return plaintext

    def _key(self, epoch: int) -> bytes:
        """The key of one epoch: a nonce that a cloned machine repeats harms this epoch alone."""
        return _expand(self._prk.reveal(), self._seal_info + epoch.to_bytes(8, "big"))


def nonce_of(packet: bytes) -> bytes:
    """The nonce of a packet."""
    return packet[TAG_BYTES:_HEAD]


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A sender that a tag may name, and the epoch in which it does."""

    sender: T
    pair: Pair
    epoch: int


class Directory(Generic[T]):
    """The tags of all senders in the last, this and the next epoch: one look-up names the sender of a packet."""

    def __init__(self, senders: Iterable[tuple[T, Pair]]) -> None:
        """Know these senders; they have no tags until follow()."""
        self._senders = tuple(senders)
        self._by_epoch: dict[int, dict[bytes, tuple[Found[T], ...]]] = {}
        self.tags: dict[int, tuple[bytes, ...]] = {}  # of each epoch

    def follow(self, epoch: int) -> None:
        """Make the tags that `epoch` needs and forget the others; nothing is done where it is the current one."""
        wanted = range(max(0, epoch - 1), epoch + 2)
        if self._by_epoch.keys() != set(wanted):
            self._by_epoch = {one: self._by_epoch.get(one) or self._tags(one) for one in wanted}
            self.tags = {one: tuple(known) for one, known in self._by_epoch.items()}

    def find(self, packet: bytes) -> tuple[Found[T], ...]:
        """The senders that a packet's tag may name: none for a stranger's, rarely more than one."""
        tag = packet[:TAG_BYTES]
        return tuple(one for known in self._by_epoch.values() for one in known.get(tag, ()))

    def _tags(self, epoch: int) -> dict[bytes, tuple[Found[T], ...]]:
        known: dict[bytes, tuple[Found[T], ...]] = {}
        for sender, pair in self._senders:
            tag = pair.tag(epoch)
            known[tag] = (*known.get(tag, ()), Found(sender, pair, epoch))
        return known


def _private(private: Secret) -> bytes:
    if len(private) != KEY_BYTES:
        msg = f"a private key has {KEY_BYTES} bytes"
        raise WireError(msg)
    return private.reveal()


def _extract(shared: bytes, psk: Secret | None) -> bytes:
    """The pseudorandom key of a pair (RFC 5869 §2.2)."""
    if psk is not None and (len(psk) != KEY_BYTES or psk.reveal() == _NO_PSK):
        msg = f"a pre-shared key has {KEY_BYTES} bytes, not all of them zero"
        raise WireError(msg)
    return hmac.digest(_SALT, shared + (_NO_PSK if psk is None else psk.reveal()), "sha256")


def _expand(prk: bytes, info: bytes) -> bytes:
    """One block of HKDF-Expand (RFC 5869 §2.3): 32 bytes."""
    return hmac.digest(prk, info + b"\x01", "sha256")
