"""One-time codes of authenticator apps (RFC 6238: SHA-1, six digits, steps of 30 s), and a bound on guesses at them.

Guesses come from whoever has the client's key, and he can also keep its owner waiting. So wrong codes shut nobody out:
after a few of them one right code is not enough, it takes two of different steps. The owner, whose knock did not open,
tries again with the next code anyway; a guesser has to be lucky twice within two minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from doorward.denials import CodeDenied, CodeFault
from doorward.wire.doorward import CODE_MAX, CODE_STEP

if TYPE_CHECKING:
    from doorward.values import Secret

FORGIVEN: Final = 8  # wrong codes, after which a right one needs another
FORGOTTEN_AFTER: Final = 86_400  # seconds from the last wrong code, after which one is enough again
GUESSES_MAX: Final = 100  # wrong codes in a step; the next ones are not looked at
_PAIR_STEPS: Final = 4  # between the first and the second of two codes
_NAME: Final = b"doorward 1 one-time code"
_SLIP: Final = 15  # of a digest's last byte: where the code is cut out (RFC 4226, section 5.3)
_SIGN: Final = 0x7FFF_FFFF


def code(secret: Secret, step: int) -> int:
    """The code of a step (RFC 4226, section 5.3)."""
    digest = hmac.digest(secret.reveal(), struct.pack(">Q", step), hashlib.sha1)
    place = digest[-1] & _SLIP
    cut: int = struct.unpack_from(">I", digest, place)[0]
    return (cut & _SIGN) % (CODE_MAX + 1)


def step_of(now: float) -> int:
    """The step of a time in Unix seconds."""
    return int(now) // CODE_STEP


def name_of(secret: Secret, client: bytes) -> bytes:
    """The name under which a client's last code is remembered: without its secret nobody can tell whose it is.

    It stays the same when stanzas move in the file.
    """
    return hmac.digest(secret.reveal(), _NAME + client, hashlib.sha256)


def step_of_code(secret: Secret, wanted: int, now: float) -> int | None:
    """Which of the last, this and the next step a code is of; the latest where it is of several, None where of none."""
    this = step_of(now)
    fitting = [step for step in (this - 1, this, this + 1) if step >= 0 and code(secret, step) == wanted]
    return fitting[-1] if fitting else None


class Steps(Protocol):
    """Where used steps are remembered."""

    def use_step(self, name: bytes, step: int) -> bool:
        """Remember a step as used, and return whether it is later than all used before under this name."""


@dataclass(slots=True)
class _Guesses:
    """The wrong codes of one client."""

    wrong: int = 0
    last: float = 0.0  # Unix seconds
    step: int = -1
    in_step: int = 0
    first: int | None = None  # the step of the first of two right codes


class Codes:
    """The examination of one-time codes. What it counts is lost with the process; used steps are not."""

    def __init__(self) -> None:
        """Begin without a wrong code."""
        self._guesses: dict[bytes, _Guesses] = {}  # one for each client and secret of the files, at most

    def refuses(self, secret: Secret, client: bytes, given: int | None, now: float, steps: Steps) -> CodeDenied | None:
        """Why a code does not open at `now` (Unix seconds), None where it does; a right one is used up.

        Raises:
            ReplayError: its step cannot be remembered.
        """
        if given is None:
            return CodeDenied(CodeFault.MISSING)
        name, step = name_of(secret, client), step_of(now)
        guesses = self._guesses.get(name, _Guesses())
        if guesses.step == step and guesses.in_step >= GUESSES_MAX:
            return CodeDenied(CodeFault.TOO_MANY)
        found = step_of_code(secret, given, now)
        if found is None:
            self._count(guesses, step, now)
            self._guesses[name] = guesses
            return CodeDenied(CodeFault.WRONG)
        if not steps.use_step(name, found):
            return CodeDenied(CodeFault.USED)
        if guesses.wrong > FORGIVEN and abs(now - guesses.last) < FORGOTTEN_AFTER and not _is_second(guesses, found):
            guesses.first = found
            return CodeDenied(CodeFault.FIRST_OF_TWO)
        self._guesses.pop(name, None)
        return None

    @staticmethod
    def _count(guesses: _Guesses, step: int, now: float) -> None:
        if abs(now - guesses.last) >= FORGOTTEN_AFTER:
            guesses.wrong = 0
        guesses.wrong += 1
        guesses.last = now
        guesses.in_step = guesses.in_step + 1 if guesses.step == step else 1
        guesses.step = step


def _is_second(guesses: _Guesses, step: int) -> bool:
    """Whether a right code follows another one soon enough."""
    return guesses.first is not None and 0 < step - guesses.first <= _PAIR_STEPS
