"""From a request to the bytes of one packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.crypto.symmetric import SALT_BYTES, seal
from doorward.values import DigestType, SymmetricKeys
from doorward.wire.fwknop import RANDOM_DIGITS, VERSION, Message, MessageType, serialize

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.values import IPAddress, Service

ORIGIN: Final = "0.0.0.0"  # noqa: S104  fwknop's word for the packet's origin, nothing is bound


@dataclass(frozen=True, slots=True)
class Request:
    """What every packet of one run has in common. `timeout` and `time_offset` in seconds."""

    services: tuple[Service, ...]
    user: str
    keys: SymmetricKeys
    digest: DigestType = DigestType.SHA256
    timeout: int = 0  # 0 leaves the window to the daemon
    time_offset: int = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet with what it was made of; `payload` goes on the wire, once."""

    message: Message
    plaintext: bytes
    payload: bytes
    keys: SymmetricKeys


def build(request: Request, source: IPAddress | None, now: float, random_bytes: Callable[[int], bytes]) -> Packet:
    """Return a fresh packet that asks for `source`; None is the packet's origin.

    Raises:
        WireError: the request does not fit into the format.
    """
    services = ",".join(map(str, request.services))
    message = Message(
        random=_digits(random_bytes),
        user=request.user,
        time=int(now) + request.time_offset,
        version=VERSION,
        type=MessageType.ACCESS_TIMEOUT if request.timeout else MessageType.ACCESS,
        text=f"{ORIGIN if source is None else source},{services}",
        timeout=request.timeout or None,
        digest=request.digest,
    )
    plaintext = serialize(message)
    return Packet(message, plaintext, seal(plaintext, request.keys, random_bytes(SALT_BYTES)), request.keys)


def _digits(random_bytes: Callable[[int], bytes]) -> str:
    """Return 16 decimal digits; 128 random bits leave no bias that matters."""
    return f"{int.from_bytes(random_bytes(16), 'big') % 10**RANDOM_DIGITS:0{RANDOM_DIGITS}d}"
