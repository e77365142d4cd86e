"""From a request to the bytes of one packet."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.crypto import sealing
from doorward.errors import ClientError, WireError
from doorward.values import COMMAND_MAX, PREFIXES, DigestType, PublicKey, Secret, Service, SymmetricKeys
from doorward.wire.fwknop import RANDOM_DIGITS, VERSION, Message, MessageType, serialize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doorward.client.nat import NatRequest
    from doorward.client.profile import Profile
    from doorward.values import IPAddress
    from doorward.wire import doorward

PACKETS_MAX: Final = 4  # of one request; some fifty services
_PLAINTEXT_MAX: Final = 271  # bytes; sealed they have fewer characters than SYMMETRIC_MAX
_FIXED: Final = 45  # characters of digits, time, version, type, timeout, and the colons between all
ORIGIN: Final = "0.0.0.0"  # noqa: S104  fwknop's word for the packet's origin, nothing is bound


class OpenPgpKeys(NamedTuple):
    """The keys of gpg's keyring to encrypt to and to sign with, and an HMAC key for the message as a whole.

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


class PublicKeys(NamedTuple):
    """The keys of the format doorward 1: this machine's own, the host's, and what they shared before, if anything."""

    private: Secret
    host: PublicKey
    psk: Secret | None = None


Keys = SymmetricKeys | OpenPgpKeys


class Request(NamedTuple):
    """The common part of all packets of one run; `nat` has the services, unless the profile has a command."""

    profile: Profile
    nat: NatRequest
    keys: Keys | PublicKeys
    user: str

    @property
    def is_authenticated(self) -> bool:
        """Whether the host can tell who made its packets before it decrypts them."""
        return isinstance(self.keys, PublicKeys) or self.keys.hmac_key is not None

    @property
    def code(self) -> int | None:
        """The one-time code, where there is one."""
        given = self.profile.one_time_code
        return given if isinstance(given, int) else None

    @property
    def type(self) -> MessageType:
        """The message type, as fwknop's client takes it (set_message_type(), client/fwknop.c)."""
        timeout = self.profile.timeout
        if self.profile.command is not None:
            return MessageType.COMMAND
        if self.nat.target is None:
            return MessageType.ACCESS_TIMEOUT if timeout else MessageType.ACCESS
        if self.profile.nat_local:
            return MessageType.LOCAL_NAT_TIMEOUT if timeout else MessageType.LOCAL_NAT
        return MessageType.NAT_TIMEOUT if timeout else MessageType.NAT


class Packet(NamedTuple):
    """One packet and its parts; `payload` goes on the wire, once."""

    message: Message | doorward.Message
    plaintext: bytes
    payload: bytes
    keys: Keys | PublicKeys

    @property
    def text(self) -> str:
        """What it asks for, as fwknop writes it: the source, and the services or the command."""
        if isinstance(self.message, Message):
            return self.message.text
        wanted = self.message.command or ",".join(map(str, self.message.services)) or "all that is open"
        lengths = (self.message.prefix, self.message.second_prefix)
        networks = ["" if each is None else f"/{each}" for each in lengths]
        second = "" if self.message.second is None else f"+{self.message.second}{networks[1]}"
        return f"{self.message.source or ORIGIN}{networks[0]}{second},{wanted}"


def parts(request: Request, source: IPAddress | None) -> list[Request]:
    """The request as several, a packet each, where its services are more than a message holds.

    Raises:
        ClientError: they are more than a run sends.
    """
    services = request.nat.services
    if isinstance(request.keys, PublicKeys):
        return _ranges(request)
    room = left = _room(request) - len(str(source or ORIGIN))
    chunks: list[list[Service]] = [[]]
    for service in services if request.profile.command is None else ():
        size = len(f",{service}")
        if size > left:
            chunks.append([])
            left = room
        chunks[-1].append(service)
        left -= size
    return _divided(request, chunks)


def _ranges(request: Request) -> list[Request]:
    """The request as several, where its services are more ranges than a message of doorward 1 holds."""
    from doorward.wire import doorward  # noqa: PLC0415  other formats do without it

    found, most = doorward.ranges(request.nat.services), doorward.SERVICES_MAX
    parts = [found[place : place + most] for place in range(0, len(found), most)] or [()]
    return _divided(
        request,
        [[Service(one.protocol, port) for one in part for port in range(one.first, one.last + 1)] for part in parts],
    )


def _divided(request: Request, chunks: list[list[Service]]) -> list[Request]:
    """The request with its services in chunks.

    Raises:
        ClientError: they are more than a run sends.
    """
    if len(chunks) == 1:
        return [request]
    if request.code is not None:
        msg = f"these services need {len(chunks)} packets, and a one-time code is good for one: ask for fewer"
        raise ClientError(msg)
    if len(chunks) > PACKETS_MAX:
        count = len(request.nat.services)
        msg = f"{count} services need {len(chunks)} packets, and {PACKETS_MAX} are sent: ask for fewer"
        raise ClientError(msg)
    return [request._replace(nat=request.nat._replace(services=tuple(chunk))) for chunk in chunks]


def _room(request: Request) -> int:
    """The bytes of a message's text, which is in base64 beside the user's name and the digest."""
    name = -(-len(request.user.encode()) * 4 // 3)
    digest = request.profile.digest or DigestType.SHA256
    return min((_PLAINTEXT_MAX - _FIXED - name - digest.text_length) * 3 // 4, COMMAND_MAX)


def build(
    request: Request,
    source: IPAddress | None,
    now: float,
    random_bytes: Callable[[int], bytes],
    second: IPAddress | None = None,
) -> Packet:
    """A fresh packet that asks for `source`; None is the packet's origin.

    `second` is a source of the other family, in a packet of the format doorward 1.

    Raises:
        WireError: the request does not fit into the format.
        OpenPgpError: gpg fails.
    """
    profile, nat = request.profile, request.nat
    if isinstance(request.keys, PublicKeys):
        return _build_tagged(request, request.keys, (source, second), now, random_bytes)
    wanted = ",".join(map(str, nat.services)) if profile.command is None else profile.command
    text = f"{ORIGIN if source is None else source},{wanted}"
    try:
        message = Message(
            random=_digits(random_bytes),
            user=request.user,
            time=int(now) + (profile.time_offset or 0),
            version=VERSION,
            type=request.type,
            text=text,
            nat_access=nat.target if profile.command is None else None,
            timeout=profile.timeout or None if profile.command is None else None,
            digest=profile.digest or DigestType.SHA256,
        )
        plaintext = serialize(message)
    except WireError as error:
        msg = f"the knock for {text[:60]!r} cannot be made: {error}"
        raise WireError(msg) from error
    return Packet(message, plaintext, _seal(plaintext, request.keys, random_bytes), request.keys)


def _build_tagged(
    request: Request,
    keys: PublicKeys,
    named: tuple[IPAddress | None, IPAddress | None],
    now: float,
    random_bytes: Callable[[int], bytes],
) -> Packet:
    """A fresh packet of the format doorward 1; `named` are its sources."""
    from doorward.crypto import doorward as sealed  # noqa: PLC0415  other formats do without cryptography
    from doorward.wire import doorward  # noqa: PLC0415  and without this

    profile = request.profile
    is_command = profile.command is not None
    prefix, second_prefix = (None if is_command else _prefix(profile, each) for each in named)
    source, second = (_beginning(*each) for each in zip(named, (prefix, second_prefix), strict=True))
    try:
        message = doorward.Message(
            kind=doorward.Kind.COMMAND if is_command else doorward.Kind.ACCESS,
            time=int(now * 1000) + (profile.time_offset or 0) * 1000,
            source=source,
            second=second,
            prefix=prefix,
            second_prefix=second_prefix,
            services=() if is_command else doorward.ranges(request.nat.services),
            seconds=0 if is_command else profile.timeout or 0,
            nat=None if is_command or request.nat.target is None else _forward(request.nat.target, profile),
            command=profile.command,
            code=request.code,
        )
    except WireError as error:
        msg = f"the knock for {str(source or ORIGIN)[:60]} cannot be made: {error}"
        raise WireError(msg) from error
    plaintext = doorward.serialize(message)
    pair = sealed.Pair.of_client(keys.private, keys.host, keys.psk)
    payload = pair.seal(plaintext, doorward.epoch_of(message.time), random_bytes(sealed.NONCE_BYTES))
    return Packet(message, plaintext, payload, keys)


def _prefix(profile: Profile, source: IPAddress | None) -> int | None:
    """The length of the network to ask for; an address that nobody names is asked for alone."""
    if source is None:
        return None
    return next((one for one in profile.prefixes or () if one in PREFIXES[source.version]), None)


def _beginning(source: IPAddress | None, prefix: int | None) -> IPAddress | None:
    """The source, or the first address of the network around it."""
    if source is None or prefix is None:
        return source
    return ipaddress.ip_network((source, prefix), strict=False).network_address


def _forward(target: str, profile: Profile) -> doorward.Forward:
    """Where connections are led: to a port of the host itself, or to an address.

    Raises:
        WireError: it is a name, which this format does not carry.
    """
    from doorward.wire import doorward  # noqa: PLC0415  other formats do without it

    host, _, port = target.rpartition(",")
    if profile.nat_local:
        return doorward.Forward(None, int(port))
    try:
        return doorward.Forward(ipaddress.ip_address(host), int(port))
    except ValueError:
        msg = f"the inner host {host[:60]!r} is no address, and this format carries no names"
        raise WireError(msg) from None


def _seal(plaintext: bytes, keys: Keys, random_bytes: Callable[[int], bytes]) -> bytes:
    if isinstance(keys, SymmetricKeys):
        return sealing.seal(plaintext, keys, random_bytes(sealing.SALT_BYTES))
    from doorward.crypto import openpgp  # noqa: PLC0415  gpg's wrapper is loaded only for gpg's keys

    return openpgp.seal(plaintext, **keys._asdict())


def _digits(random_bytes: Callable[[int], bytes]) -> str:
    """16 decimal digits; with 128 random bits the bias is negligible."""
    return f"{int.from_bytes(random_bytes(16), 'big') % 10**RANDOM_DIGITS:0{RANDOM_DIGITS}d}"
