"""The plaintext and the envelope text of fwknop 2.x (protocol 3.0.0). Pure: bytes in, values out.

Source: fwknop lib/fko_encode.c, lib/fko_decode.c, lib/fko_limits.h, lib/fko_message.c.
"""

from __future__ import annotations

import binascii
import enum
import functools
import hashlib
import hmac
import ipaddress
import re
from typing import Final

from doorward.errors import WireError
from doorward.frozen import dataclass
from doorward.values import PORT_MAX, DigestType, IPAddress, Service
from doorward.wire.wish import Kind, NatTarget, Wish

PAYLOAD_MIN: Final = 140  # MIN_SPA_DATA_SIZE, server/incoming_spa.c
PAYLOAD_MAX: Final = 1500  # MAX_SPA_PACKET_LEN, lib/fko_limits.h
SYMMETRIC_MAX: Final = 400  # MIN_GNUPG_MSG_SIZE: from here on the library takes the text for OpenPGP
PREFIX: Final = b"U2FsdGVkX1"  # base64 of "Salted__", cut from every packet
GPG_PREFIX: Final = b"hQ"
VERSION: Final = "3.0.0"
RANDOM_DIGITS: Final = 16
PLAINTEXT_MIN: Final = 36
TIMEOUT_MAX: Final = 65536

_BLANK: Final = {kind: hashlib.new(kind.label, usedforsecurity=False) for kind in DigestType}
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_FIELD_BASE64: Final = re.compile(r"([A-Za-z0-9+/]*)(?:=.*)?", re.ASCII)
_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]+")
_RANDOM: Final = re.compile(r"\d{16}", re.ASCII)
_USER: Final = re.compile(r"[ !#-)\-.0-9@-Z^-{}~]+")  # printable ASCII without "/\[]:;|=,+*?<>
_NUMBER: Final = re.compile(r"\d+", re.ASCII)
_NAT_HOST: Final = re.compile(r"[!#-&(-.0->@-\[\]-~]{1,70}")  # printable ASCII without blank /?"'\
_USER_TEXT_MAX: Final = 64
_FIELD_TEXT_MAX: Final = 256
_MESSAGE_MAX: Final = 255
_NAT_MAX: Final = 127
_VERSION_MAX: Final = 8
_TIME_DIGITS_MAX: Final = 12
_TYPE_DIGITS_MAX: Final = 2
_PORT_DIGITS_MAX: Final = 5


class Field(enum.Enum):
    """A part of the plaintext that can be wrong by itself."""

    PLAINTEXT = "plaintext"  # its length, alphabet or number of fields
    DIGEST = "digest"
    RANDOM = "random"
    USER = "user"
    TIME = "time"
    VERSION = "version"
    TYPE = "type"
    MESSAGE = "message"
    NAT_ACCESS = "nat_access"
    SERVER_AUTH = "server_auth"
    TIMEOUT = "timeout"


class FieldError(WireError):
    """A part of a plaintext breaks the format."""

    def __init__(self, field: Field, text: str) -> None:
        """Name the part and its fault."""
        super().__init__(text)
        self.field = field


class MessageType(enum.IntEnum):
    """What a packet asks for, under its number on the wire (lib/fko.h)."""

    COMMAND = 0
    ACCESS = 1
    NAT = 2
    ACCESS_TIMEOUT = 3
    NAT_TIMEOUT = 4
    LOCAL_NAT = 5
    LOCAL_NAT_TIMEOUT = 6


_TYPES: Final = {int(kind): kind for kind in MessageType}
WITH_NAT: Final = frozenset(
    {MessageType.NAT, MessageType.NAT_TIMEOUT, MessageType.LOCAL_NAT, MessageType.LOCAL_NAT_TIMEOUT}
)
WITH_TIMEOUT: Final = frozenset({MessageType.ACCESS_TIMEOUT, MessageType.NAT_TIMEOUT, MessageType.LOCAL_NAT_TIMEOUT})
_KINDS: Final = {
    MessageType.COMMAND: Kind.COMMAND,
    MessageType.ACCESS: Kind.ACCESS,
    MessageType.NAT: Kind.FORWARD,
    MessageType.ACCESS_TIMEOUT: Kind.ACCESS,
    MessageType.NAT_TIMEOUT: Kind.FORWARD,
    MessageType.LOCAL_NAT: Kind.LOCAL_NAT,
    MessageType.LOCAL_NAT_TIMEOUT: Kind.LOCAL_NAT,
}
_DIGESTS_BY_LENGTH: Final[dict[int, tuple[DigestType, ...]]] = {
    length: tuple(kind for kind in DigestType if kind.text_length == length)
    for length in sorted({kind.text_length for kind in DigestType})
}


@dataclass(frozen=True, slots=True)
class Access:
    """The body of every message but a command: open `services` for `source`; None is the packet's origin."""

    source: IPAddress | None
    services: tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """The body of message type 0."""

    source: IPAddress | None
    command: str


@dataclass(frozen=True, slots=True)
class Message:
    """One decoded plaintext. `time` in Unix seconds, `timeout` in seconds; an invalid message cannot be made."""

    random: str
    user: str
    time: int
    version: str
    type: MessageType
    text: str  # IP,proto/port[,proto/port…] or IP,command
    nat_access: str | None = None  # host,port
    server_auth: str | None = None  # as it stands on the wire, base64; historic, ignored
    timeout: int | None = None
    digest: DigestType = DigestType.SHA256

    def __post_init__(self) -> None:
        """Refuse a message that the format cannot carry or the receiver would refuse."""
        _require(Field.RANDOM, _RANDOM.fullmatch(self.random), "the random value is not 16 digits")
        _require(
            Field.USER, _USER.fullmatch(self.user), "the user name is empty or has a character that is not allowed"
        )
        _require(
            Field.USER, _text_length(len(self.user.encode())) <= _USER_TEXT_MAX, "the user name is longer than 48 bytes"
        )
        _require(Field.TIME, 0 <= self.time < 10**_TIME_DIGITS_MAX, "the time is outside 12 digits")
        _require(
            Field.VERSION,
            1 <= len(self.version) <= _VERSION_MAX and ":" not in self.version,
            "the version is not 1 to 8 characters",
        )
        length = len(self.text.encode())
        _require(Field.MESSAGE, length <= _MESSAGE_MAX, "the message is longer than 255 bytes")
        _require(Field.MESSAGE, _text_length(length) <= _FIELD_TEXT_MAX, "the message is longer than its field")
        self._check_body()
        self._check_timeout()

    def _check_body(self) -> None:
        if self.type is MessageType.COMMAND:
            parse_command(self.text)
        else:
            parse_access(self.text)
        _require(
            Field.NAT_ACCESS, (self.nat_access is not None) == (self.type in WITH_NAT), "nat_access and type do not fit"
        )
        if self.nat_access is not None:
            parse_nat(self.nat_access)

    def _check_timeout(self) -> None:
        _require(
            Field.TIMEOUT, (self.timeout is not None) == (self.type in WITH_TIMEOUT), "timeout and type do not fit"
        )
        _require(
            Field.TIMEOUT, self.timeout is None or 0 <= self.timeout <= TIMEOUT_MAX, "the timeout is outside 0 to 65536"
        )


def check(payload: bytes) -> None:
    """Refuse a payload that no fwknop client sends: size, alphabet, uncut prefix. No key is touched.

    `=` is refused although fwknopd tolerates it: base64 with and without it is the same packet twice.

    Raises:
        WireError: the payload is not of this form.
    """
    if not PAYLOAD_MIN <= len(payload) <= PAYLOAD_MAX:
        msg = f"payload of {len(payload)} bytes"
        raise WireError(msg)
    if payload.translate(None, _BASE64):
        msg = "payload is not base64 without padding"
        raise WireError(msg)
    if payload.startswith(PREFIX) or (len(payload) >= SYMMETRIC_MAX and payload.startswith(GPG_PREFIX)):
        msg = "payload still carries the prefix"  # the replay of 2.0.2
        raise WireError(msg)


def decode_blob(text: bytes) -> bytes:
    """The bytes of base64 without padding, in its one canonical spelling.

    Raises:
        WireError: another alphabet or length, or unused bits that are set (a second spelling of the same bytes).
    """
    try:
        blob = binascii.a2b_base64(text + b"=" * (-len(text) % 4))
    except binascii.Error as error:
        msg = "not base64"
        raise WireError(msg) from error
    if encode_blob(blob) != text:
        msg = "base64 is not canonical"
        raise WireError(msg)
    return blob


def encode_blob(blob: bytes) -> bytes:
    """Base64 without padding."""
    return binascii.b2a_base64(blob, newline=False).rstrip(b"=")


def serialize(message: Message) -> bytes:
    """The plaintext of a message, its digest included."""
    fields = [message.random, _encode(message.user), str(message.time), message.version]
    fields += [str(int(message.type)), _encode(message.text)]
    if message.nat_access is not None:
        fields.append(_encode(message.nat_access))
    if message.server_auth is not None:
        fields.append(message.server_auth)
    if message.timeout is not None:
        fields.append(str(message.timeout))
    body = ":".join(fields).encode("ascii")
    return body + b":" + digest_text(message.digest, body)


def is_plaintext(text: bytes) -> bool:
    """Whether decrypted bytes begin as every plaintext does: 16 digits and a colon (lib/fko_decode.c)."""
    return len(text) >= PLAINTEXT_MIN and text[:16].isdigit() and text[16:17] == b":"


def verify_digest(plaintext: bytes) -> DigestType:
    """The digest type of a plaintext whose digest fits.

    The receiver takes the algorithm from the digest's length, whatever its own configuration.

    Raises:
        FieldError: no digest, or it does not fit.
    """
    body, _, digest = plaintext.rpartition(b":")
    for kind in _DIGESTS_BY_LENGTH.get(len(digest), ()):
        if hmac.compare_digest(digest_text(kind, body), digest):
            return kind
    raise FieldError(Field.DIGEST, "the digest does not fit the plaintext")


def parse(plaintext: bytes) -> Message:
    """The message of a plaintext.

    Raises:
        FieldError: a field breaks the format, or the digest does not fit.
    """
    if not PLAINTEXT_MIN <= len(plaintext) < PAYLOAD_MAX or _PRINTABLE.fullmatch(plaintext) is None:
        raise FieldError(Field.PLAINTEXT, "the plaintext has a bad length or character")
    kind = verify_digest(plaintext)
    head = plaintext.decode("ascii").split(":")[:-1]
    _require(Field.PLAINTEXT, len(head) >= 6, "the plaintext has too few fields")  # noqa: PLR2004  six fields stand before the rest
    random, user, time, version, number, text, *rest = head
    message_type = _message_type(number)
    nat_access, server_auth, timeout = _rest(message_type, rest)
    return Message(
        random=random,
        user=_decode(Field.USER, user, _USER_TEXT_MAX, "the user name"),
        time=_number(Field.TIME, time, _TIME_DIGITS_MAX, "the time"),
        version=version,
        type=message_type,
        text=_decode_body(message_type, text),
        nat_access=nat_access,
        server_auth=server_auth,
        timeout=timeout,
        digest=kind,
    )


def wish(message: Message) -> Wish:
    """What a message asks for."""
    body = parse_command(message.text) if message.type is MessageType.COMMAND else parse_access(message.text)
    return Wish(
        kind=_KINDS[message.type],
        made=message.time,
        source=body.source,
        services=body.services if isinstance(body, Access) else (),
        seconds=message.timeout or 0,
        target=None if message.nat_access is None else parse_nat(message.nat_access),
        command=body.command if isinstance(body, Command) else None,
        user=message.user,
    )


@functools.lru_cache(maxsize=16)  # the parser asks, and then wish()
def parse_access(text: str) -> Access:
    """Read `IP,proto/port[,proto/port…]`; 0.0.0.0 is the packet's origin.

    An IPv6 source is doorward's extension; fwknopd refuses it.

    Raises:
        FieldError: not of this form.
    """
    source, _, services = text.partition(",")
    try:
        return Access(_source(source), tuple(Service.parse(entry) for entry in services.split(",")))
    except WireError as error:
        raise FieldError(Field.MESSAGE, str(error)) from error


def parse_command(text: str) -> Command:
    """Read `IP,command`; everything after the first comma is the command.

    Raises:
        FieldError: not of this form.
    """
    source, _, command = text.partition(",")
    _require(Field.MESSAGE, command, "the command is empty")
    return Command(_source(source), command)


def parse_nat(text: str) -> NatTarget:
    """Read `host,port`.

    Raises:
        FieldError: not of this form.
    """
    _require(Field.NAT_ACCESS, len(text.encode()) <= _NAT_MAX and text.count(",") == 1, "nat_access is not host,port")
    host, _, port = text.partition(",")
    _require(Field.NAT_ACCESS, _NAT_HOST.fullmatch(host), "the NAT host has a character that is not allowed")
    number = _number(Field.NAT_ACCESS, port, _PORT_DIGITS_MAX, "the NAT port")
    _require(Field.NAT_ACCESS, 1 <= number <= PORT_MAX, "the NAT port is outside 1 to 65535")
    return NatTarget(host, number)


def _rest(message_type: MessageType, rest: list[str]) -> tuple[str | None, str | None, int | None]:
    """Nat_access, server_auth and timeout from the fields after the message."""
    nat_access = server_auth = timeout = None
    if message_type in WITH_NAT:
        _require(Field.NAT_ACCESS, rest, "nat_access is missing")
        nat_access = _decode(Field.NAT_ACCESS, rest.pop(0), _FIELD_TEXT_MAX, "nat_access")
    if message_type in WITH_TIMEOUT:
        _require(Field.TIMEOUT, rest, "the timeout is missing")
        timeout = _number(Field.TIMEOUT, rest.pop(), _PORT_DIGITS_MAX, "the timeout")
    if rest:
        server_auth = rest.pop(0)
        _decode_bytes(Field.SERVER_AUTH, server_auth, _FIELD_TEXT_MAX, "server_auth")
    _require(Field.PLAINTEXT, not rest, "the plaintext has too many fields")
    return nat_access, server_auth, timeout


def _message_type(text: str) -> MessageType:
    number = _number(Field.TYPE, text, _TYPE_DIGITS_MAX, "the message type")
    _require(Field.TYPE, number in _TYPES, f"message type {number} does not exist")
    return _TYPES[number]


def _source(text: str) -> IPAddress | None:
    """The address to let in, or None for the packet's origin."""
    try:
        source = ipaddress.ip_address(text)
    except ValueError as error:
        # 010.0.0.1 included, which fwknopd hands on as it is
        raise FieldError(Field.MESSAGE, "the source is no address") from error
    if isinstance(source, ipaddress.IPv6Address):
        return _routable(source)
    return None if source.is_unspecified else source


def _routable(source: ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    """An IPv6 source that a packet from another host can have."""
    odd = (
        source.is_unspecified
        or source.is_loopback
        or source.is_multicast
        or source.is_link_local
        or source.scope_id
        or source in _IPV4_IN_IPV6
    )
    _require(Field.MESSAGE, not odd, "the IPv6 source is none that can arrive from elsewhere")
    return source


_IPV4_IN_IPV6: Final = ipaddress.IPv6Network("::/64")  # mapped and compatible forms, and the rest of a reserved block


def digest_text(kind: DigestType, body: bytes) -> bytes:
    """The digest of a plaintext as its last field writes it."""
    state = _BLANK[kind].copy()  # to look an algorithm up by its name takes longer than to use it
    state.update(body)
    return encode_blob(state.digest())


def _text_length(length: int) -> int:
    """The length in base64 without padding of so many bytes."""
    return -(-length * 4 // 3)


def _encode(text: str) -> str:
    return encode_blob(text.encode("utf-8")).decode("ascii")


def _decode_bytes(field: Field, text: str, limit: int, what: str) -> bytes:
    """The bytes of a base64 field; the characters behind a `=` are ignored, as by fwknop's decoder (lib/base64.c)."""
    match = _FIELD_BASE64.fullmatch(text)
    if match is None or not 1 <= len(text) <= limit or len(match[1]) % 4 == 1:
        raise FieldError(field, f"{what} is not base64 of at most {limit} characters")
    return binascii.a2b_base64(match[1] + "=" * (-len(match[1]) % 4))


def _decode(field: Field, text: str, limit: int, what: str) -> str:
    raw = _decode_bytes(field, text, limit, what)
    _require(field, _PRINTABLE.fullmatch(raw), f"{what} has a character that is not printable ASCII")
    return raw.decode("ascii")


def _decode_body(kind: MessageType, text: str) -> str:
    """The message's text; a command may have letters beyond ASCII, as in fwknop."""
    if kind is not MessageType.COMMAND:
        return _decode(Field.MESSAGE, text, _FIELD_TEXT_MAX, "the message")
    try:
        body = _decode_bytes(Field.MESSAGE, text, _FIELD_TEXT_MAX, "the message").decode("utf-8")
    except UnicodeDecodeError as error:
        raise FieldError(Field.MESSAGE, "the command is not UTF-8 text") from error
    _require(Field.MESSAGE, body.isprintable(), "the command has a character that is not printable")
    return body


def _number(field: Field, text: str, digits: int, what: str) -> int:
    if len(text) > digits or _NUMBER.fullmatch(text) is None:
        raise FieldError(field, f"{what} is not a number of at most {digits} digits")
    return int(text)


def _require(field: Field, condition: object, text: str) -> None:
    if not condition:
        raise FieldError(field, text)
