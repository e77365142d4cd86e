"""What passes between the listener and the process that runs gpg: one SEQPACKET message each, decoded exactly. Pure.

The listener announces keyrings and then sends them in pieces, since it may not pass descriptors; and packets, each
with a number of its own. Every packet has one answer.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from doorward.crypto.openpgp import Signature, Status, Unsealed
from doorward.errors import HelperError
from doorward.values import Secret
from doorward.wire.fwknop import PAYLOAD_MAX

RUN_FOLDER: Final = Path("/run/doorward-gnupg")  # short: a socket lies in it, and 107 bytes are all its path may have
START_SECONDS: Final = 10.0  # for a worker to begin
QUEUE_MAX: Final = 8  # packets under way; more are not looked at
STRANGERS_MAX: Final = 4  # of them without an HMAC: strangers can make these
DEADLINE: Final = 2.0  # seconds for one packet; gpg needs some twenty milliseconds
PIECE_MAX: Final = 32 * 1024
KEYRINGS_MAX: Final = 64 * 1024 * 1024  # bytes of all keyrings, encoded
MESSAGE_MAX: Final = PIECE_MAX + 16
_ANNOUNCE: Final = struct.Struct("!cI")  # bytes of all keyrings
_PACKET: Final = struct.Struct("!cIH")  # number, keyring
_ANSWER: Final = struct.Struct("!cI")  # number
_UNSEALED: Final = struct.Struct("!BBB")  # place of the status from 1, 0: not signed; bytes of both fingerprints
_STATUSES: Final = tuple(Status)
_TEXT_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Keyring:
    """The files of one GnuPG home as a tar archive, which gpg works on them, and the passphrase of its keys.

    `signers` are fingerprints or IDs whose signatures are to count, each with the words that say where it is written.
    """

    archive: bytes
    exe: str | None
    password: Secret | None
    decrypt_id: str  # of all the secret keys in it, the one whose packets count
    signers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Announce:
    """Listener: so many bytes of keyrings follow in pieces."""

    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Listener: the next bytes of them."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """Listener: unseal this with that keyring (counted from 0)."""

    number: int
    keyring: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """Unsealer: the keyrings are in use."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Unsealer: they are not, and why; the ones before stay in use."""

    text: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Unsealer: this is for the log."""

    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """gpg does not decrypt a packet, and why."""

    text: str


@dataclass(frozen=True, slots=True)
class Missed:
    """Nobody looked at a packet, and why."""

    text: str


Outcome = Unsealed | Refusal | Missed


@dataclass(frozen=True, slots=True)
class Answer:
    """Unsealer: what became of a packet."""

    number: int
    outcome: Outcome


Request = Announce | Piece | Packet
Reply = Ready | Unusable | Trouble | Answer

_TEXTS: Final[dict[bytes, type[Unusable | Trouble]]] = {b"U": Unusable, b"T": Trouble}
_FAILURES: Final[dict[bytes, type[Refusal | Missed]]] = {b"r": Refusal, b"m": Missed}


def encode_keyrings(keyrings: tuple[Keyring, ...]) -> bytes:
    """Return keyrings as bytes."""
    return json.dumps(
        [
            {
                "archive": base64.b64encode(one.archive).decode("ascii"),
                "exe": one.exe,
                "password": None if one.password is None else base64.b64encode(one.password.reveal()).decode("ascii"),
                "decrypt_id": one.decrypt_id,
                "signers": one.signers,
            }
            for one in keyrings
        ]
    ).encode()


def decode_keyrings(content: bytes) -> tuple[Keyring, ...]:
    """Return what encode_keyrings() made."""
    return tuple(
        Keyring(
            base64.b64decode(one["archive"]),
            one["exe"],
            None if one["password"] is None else Secret(base64.b64decode(one["password"])),
            one["decrypt_id"],
            tuple((name, place) for name, place in one["signers"]),
        )
        for one in json.loads(content)
    )


def encode_request(request: Request) -> bytes:
    """Return the bytes of what the listener says."""
    match request:
        case Announce(size=size):
            return _ANNOUNCE.pack(b"K", size)
        case Piece(content=content):
            return b"k" + content
        case Packet(number=number, keyring=keyring, blob=blob):
            return _PACKET.pack(b"P", number, keyring) + blob


def decode_request(content: bytes) -> Request:
    """Return what the listener says.

    Raises:
        HelperError: it says nothing that is known.
    """
    letter = content[:1]
    if letter == b"K" and len(content) == _ANNOUNCE.size:
        return Announce(_ANNOUNCE.unpack(content)[1])
    if letter == b"k" and len(content) <= PIECE_MAX + 1:
        return Piece(content[1:])
    if letter == b"P" and _PACKET.size < len(content) <= _PACKET.size + PAYLOAD_MAX:
        _, number, keyring = _PACKET.unpack_from(content)
        return Packet(number, keyring, content[_PACKET.size :])
    raise _unknown(content)


def encode_reply(reply: Reply) -> bytes:
    """Return the bytes of what the unsealer says."""
    match reply:
        case Ready():
            return b"R"
        case Unusable(text=text):
            return b"U" + _text(text)
        case Trouble(text=text):
            return b"T" + _text(text)
        case Answer(number=number, outcome=outcome):
            return _ANSWER.pack(b"A", number) + encode_outcome(outcome)


def decode_reply(content: bytes) -> Reply:
    """Return what the unsealer says.

    Raises:
        HelperError: it says nothing that is known.
    """
    if content == b"R":
        return Ready()
    letter = content[:1]
    if letter in _TEXTS:
        return _TEXTS[letter](content[1:].decode("utf-8", "replace")[:_TEXT_MAX])
    if letter == b"A" and len(content) > _ANSWER.size:
        return Answer(_ANSWER.unpack_from(content)[1], decode_outcome(content[_ANSWER.size :]))
    raise _unknown(content)


def encode_outcome(outcome: Outcome) -> bytes:
    """Return the bytes of what became of a packet."""
    match outcome:
        case Refusal(text=text):
            return b"r" + _text(text)
        case Missed(text=text):
            return b"m" + _text(text)
        case Unsealed(plaintext=plaintext, signature=signature):
            return b"u" + _encode_signature(signature) + plaintext


def answer(outcome: Outcome) -> Unsealed | str | None:
    """Return an outcome as Gate.resume() takes it."""
    match outcome:
        case Unsealed():
            return outcome
        case Refusal(text=text):
            return text
        case Missed():
            return None


def _encode_signature(signature: Signature | None) -> bytes:
    if signature is None:
        return _UNSEALED.pack(0, 0, 0)
    names = [name.encode("ascii") for name in (signature.fingerprint, signature.primary)]
    return _UNSEALED.pack(_STATUSES.index(signature.status) + 1, *map(len, names)) + b"".join(names)


def decode_outcome(content: bytes) -> Outcome:
    """Return what encode_outcome() made; who runs gpg may have been taken over by what it reads.

    Raises:
        HelperError: it says nothing that is known.
    """
    letter = content[:1]
    if letter in _FAILURES:
        return _FAILURES[letter](content[1:].decode("utf-8", "replace")[:_TEXT_MAX])
    if letter != b"u" or len(content) < 1 + _UNSEALED.size:
        raise _unknown(content)
    place, one, two = _UNSEALED.unpack_from(content, 1)
    names, plaintext = content[1 + _UNSEALED.size :][: one + two], content[1 + _UNSEALED.size + one + two :]
    if len(plaintext) > PAYLOAD_MAX or len(names) != one + two or place > len(_STATUSES):
        raise _unknown(content)
    if not place and not names:
        return Unsealed(plaintext, None)
    if not place or not (one and two and names.isalnum()):
        raise _unknown(content)
    text = names.decode("ascii")
    return Unsealed(plaintext, Signature(_STATUSES[place - 1], text[:one], text[one:]))


def _text(text: str) -> bytes:
    return text[:_TEXT_MAX].encode("utf-8", "replace")


def _unknown(content: bytes) -> HelperError:
    return HelperError(f"unknown message of {len(content)} bytes: {content[:16].hex()}")
