"""The messages between the listener, the supervisor of gpg, and its worker, each a SEQPACKET message.

The listener sends keyrings in pieces, since it may not pass descriptors, and numbered packets. Every packet has one
answer. The worker receives the same packets and sends the same answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from doorward.crypto.openpgp import Unsealed
from doorward.denials import Fit, NotDecrypted, NotExamined
from doorward.errors import WireError
from doorward.frozen import dataclass
from doorward.linux.codec import Codec, Cut
from doorward.values import Secret  # noqa: TC001  the codec reads the hints
from doorward.wire.fwknop import PAYLOAD_MAX

RUN_FOLDER: Final = Path("/run/doorward-gnupg")  # short: the path of a socket in it has at most 107 bytes
START_SECONDS: Final = 10.0  # for a worker to begin
QUEUE_MAX: Final = 8  # packets in progress; further ones are not examined
STRANGERS_MAX: Final = 4  # of them without an HMAC: strangers can make these
DEADLINE: Final = 2.0  # seconds for a packet that anybody can make; gpg needs some twenty milliseconds
DEADLINE_AUTHENTIC: Final = 10.0  # for a packet of an HMAC key: a busy host must not lock its owner out
PIECE_MAX: Final = 32 * 1024
KEYRINGS_MAX: Final = 48 * 1024 * 1024  # bytes of all keyrings, encoded
MESSAGE_MAX: Final = PIECE_MAX + 16
_Text = Annotated[str, Cut(1000)]


@dataclass(frozen=True, slots=True)
class Keyring:
    """The files of one GnuPG home as a tar archive, its gpg, and the passphrase of its keys.

    `signers` are the accepted fingerprints or IDs, each with its place in the configuration.
    """

    archive: bytes
    exe: str | None
    password: Secret | None
    decrypt_id: str  # the secret key whose packets are accepted
    signers: tuple[tuple[str, _Text], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Listener: the next bytes of the keyrings, and whether they are the last ones."""

    content: bytes
    last: bool

    def __post_init__(self) -> None:
        """Refuse an empty piece, and one that is too long."""
        _refuse(not 1 <= len(self.content) <= PIECE_MAX, "a piece that is too large")


@dataclass(frozen=True, slots=True)
class Packet:
    """Listener: unseal this with that keyring (counted from 0). An HMAC vouches for an `authentic` one."""

    number: int
    keyring: int
    blob: bytes
    authentic: bool = False

    @property
    def seconds(self) -> float:
        """The time that gpg has for it."""
        return DEADLINE_AUTHENTIC if self.authentic else DEADLINE

    def __post_init__(self) -> None:
        """Refuse an impossible keyring, and more than a packet can carry."""
        _refuse(self.keyring < 0 or not 1 <= len(self.blob) <= PAYLOAD_MAX, "a packet that cannot be")


@dataclass(frozen=True, slots=True)
class Ready:
    """The keyrings are in use; `doubts` name the signers whose signatures will be refused."""

    doubts: tuple[Annotated[str, Cut(500)], ...] = ()


@dataclass(frozen=True, slots=True)
class _Note:
    """A text for people."""

    text: _Text


class Unusable(_Note):
    """The keyrings cannot be used, and the reason; the previous ones stay in use."""


class Trouble(_Note):
    """A line for the log."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """gpg refuses a packet, the reason, and how much of the packet fits."""

    text: _Text
    fit: Fit = Fit.KIND


class Missed(_Note):
    """A packet was not examined, and the reason."""


Outcome = Unsealed | Refusal | Missed


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a packet."""

    number: int
    outcome: Outcome

    def __post_init__(self) -> None:
        """Refuse impossible outcomes: a packet may have taken over the worker."""
        if isinstance(self.outcome, Unsealed):
            signature = self.outcome.signature
            names = [] if signature is None else [signature.fingerprint, signature.primary]
            _refuse(not all(name.isascii() and name.isalnum() for name in names), "a signer that cannot be")
            _refuse(len(self.outcome.plaintext) > PAYLOAD_MAX, "a plaintext that is too long")


Request = Piece | Packet
Reply = Ready | Unusable | Trouble | Answer
REQUESTS: Final = Codec[Request](b"P", Request, MESSAGE_MAX)
REPLIES: Final = Codec[Reply](b"A", Reply, MESSAGE_MAX)
KEYRINGS: Final = Codec[tuple[Keyring, ...]](b"K", tuple[Keyring, ...], KEYRINGS_MAX)


def answer(outcome: Outcome) -> Unsealed | NotDecrypted | NotExamined:
    """An outcome as Gate.resume() takes it."""
    match outcome:
        case Unsealed():
            return outcome
        case Refusal(text=text, fit=fit):
            return NotDecrypted(text, fit)
        case Missed():
            return NotExamined("gpg could not examine it")


def _refuse(wrong: bool, text: str) -> None:  # noqa: FBT001  the only question
    if wrong:
        raise WireError(text)
