"""From a request to the bytes of one packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.crypto import symmetric
from doorward.errors import WireError
from doorward.values import DigestType, Secret, SymmetricKeys
from doorward.wire.fwknop import RANDOM_DIGITS, VERSION, Message, MessageType, serialize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doorward.values import IPAddress, Service

ORIGIN: Final = "0.0.0.0"  # noqa: S104  fwknop's word for the packet's origin, nothing is bound


@dataclass(frozen=True, slots=True)
class OpenPgpKeys:
    """The keys of gpg's keyring to encrypt to and to sign with, and an HMAC key of ours on top.

    `signer` None signs nothing; `agent` leaves asking for the passphrase to gpg-agent.
    """

    recipient: str
    signer: str | None = None
    password: Secret | None = None
    agent: bool = False
    home: Path | None = None
    exe: Path | None = None
    hmac_key: Secret | None = None
    hmac_digest: DigestType = DigestType.SHA256

    @property
    def tag_length(self) -> int:
        """The number of characters of the HMAC."""
        return self.hmac_digest.text_length if self.hmac_key is not None else 0


Keys = SymmetricKeys | OpenPgpKeys


@dataclass(frozen=True, slots=True)
class Request:
    """What every packet of one run has in common. `timeout` and `time_offset` in seconds.

    `nat` is where connections are to be led, as the message writes it (`host,port`); with `local` that is the host
    itself. A `command` is asked for instead of services.
    """

    services: tuple[Service, ...]
    user: str
    keys: Keys
    digest: DigestType = DigestType.SHA256
    timeout: int = 0  # 0 leaves the window to the daemon
    time_offset: int = 0
    nat: str | None = None
    local: bool = False
    command: str | None = None

    @property
    def type(self) -> MessageType:
        """The message type, as fwknop's client takes it (set_message_type(), client/fwknop.c)."""
        if self.command is not None:
            return MessageType.COMMAND
        if self.nat is None:
            return MessageType.ACCESS_TIMEOUT if self.timeout else MessageType.ACCESS
        if self.local:
            return MessageType.LOCAL_NAT_TIMEOUT if self.timeout else MessageType.LOCAL_NAT
        return MessageType.NAT_TIMEOUT if self.timeout else MessageType.NAT


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet with what it was made of; `payload` goes on the wire, once."""

    message: Message
    plaintext: bytes
    payload: bytes
    keys: Keys


def build(request: Request, source: IPAddress | None, now: float, random_bytes: Callable[[int], bytes]) -> Packet:
    """Return a fresh packet that asks for `source`; None is the packet's origin.

    Raises:
        WireError: the request does not fit into the format.
        OpenPgpError: gpg does not make it.
    """
    wanted = ",".join(map(str, request.services)) if request.command is None else request.command
    text = f"{ORIGIN if source is None else source},{wanted}"
    try:
        message = Message(
            random=_digits(random_bytes),
            user=request.user,
            time=int(now) + request.time_offset,
            version=VERSION,
            type=request.type,
            text=text,
            nat_access=request.nat if request.command is None else None,
            timeout=request.timeout if request.timeout and request.command is None else None,
            digest=request.digest,
        )
        plaintext = serialize(message)
    except WireError as error:
        msg = f"the knock for {text[:60]!r} cannot be made: {error}"
        raise WireError(msg) from error
    return Packet(message, plaintext, _seal(plaintext, request.keys, random_bytes), request.keys)


def _seal(plaintext: bytes, keys: Keys, random_bytes: Callable[[int], bytes]) -> bytes:
    if isinstance(keys, SymmetricKeys):
        return symmetric.seal(plaintext, keys, random_bytes(symmetric.SALT_BYTES))
    from doorward.crypto import openpgp  # noqa: PLC0415  gpg's wrapper is loaded only where it is needed

    return openpgp.seal(
        plaintext,
        keys.recipient,
        signer=keys.signer,
        password=keys.password,
        agent=keys.agent,
        home=keys.home,
        exe=keys.exe,
        hmac_key=keys.hmac_key,
        hmac_digest=keys.hmac_digest,
    )


def _digits(random_bytes: Callable[[int], bytes]) -> str:
    """Return 16 decimal digits; 128 random bits leave no bias that matters."""
    return f"{int.from_bytes(random_bytes(16), 'big') % 10**RANDOM_DIGITS:0{RANDOM_DIGITS}d}"
