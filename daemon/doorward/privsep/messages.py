"""The closed set of messages between listener and helper: one SEQPACKET message each, decoded exactly. Pure.

Anything that is not one of these ends the process that received it.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

from doorward.errors import HelperError, WireError
from doorward.values import Grant, Protocol, Service, unmap

MESSAGE_MAX: Final = 60_000  # bytes, under the default send buffer of a Unix socket
SERVICES_MAX: Final = 64  # fwknop's longest message names fewer
_OPEN: Final = struct.Struct("!16sIB")  # source (IPv4 mapped), seconds, number of services
_SERVICE: Final = struct.Struct("!BH")
_MAPPED: Final = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Configure:
    """Listener: read the files again and hand them over."""


@dataclass(frozen=True, slots=True)
class Open:
    """Listener: open this grant."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Configuration:
    """Helper: both files as sealed descriptors, the capture sockets behind them the first time."""


@dataclass(frozen=True, slots=True)
class Problems:
    """Helper: the files have problems, one a line; the old configuration stays."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """Helper: it is open."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Helper: it is not, and why."""

    text: str


Request = Configure | Open
Reply = Configuration | Problems | Done | Refused

_EMPTY: Final[dict[type[Request | Reply], bytes]] = {Configure: b"C", Configuration: b"c", Done: b"d"}
_TEXT: Final[dict[type[Problems | Refused], bytes]] = {Problems: b"p", Refused: b"r"}


def encode(message: Request | Reply) -> bytes:
    """Return the bytes of a message."""
    if isinstance(message, Open):
        return b"O" + _encode_grant(message.grant)
    if isinstance(message, (Problems, Refused)):
        text = message.text.encode("utf-8", "replace")[: MESSAGE_MAX - 1]
        return _TEXT[type(message)] + text.decode("utf-8", "ignore").encode()  # a character that was cut is left out
    return _EMPTY[type(message)]


def decode_request(content: bytes) -> Request:
    """Return what the listener asks for.

    Raises:
        HelperError: not a request.
    """
    if content == b"C":
        return Configure()
    if content[:1] == b"O":
        return Open(_decode_grant(content[1:]))
    raise _unknown(content)


def decode_reply(content: bytes) -> Reply:
    """Return what the helper answers.

    Raises:
        HelperError: not a reply.
    """
    if content == b"c":
        return Configuration()
    if content == b"d":
        return Done()
    for kind, letter in _TEXT.items():
        if content[:1] == letter:
            return kind(_decode_text(content))
    raise _unknown(content)


def _decode_text(content: bytes) -> str:
    """Return the text behind the letter of a reply."""
    if len(content) > MESSAGE_MAX:
        raise _unknown(content)
    try:
        return content[1:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unknown(content) from error


def _encode_grant(grant: Grant) -> bytes:
    source = grant.source.packed if grant.source.version == 6 else _MAPPED + grant.source.packed  # noqa: PLR2004
    head = _OPEN.pack(source, grant.seconds, len(grant.services))
    return head + b"".join(_SERVICE.pack(service.protocol, service.port) for service in grant.services)


def _decode_grant(content: bytes) -> Grant:
    """Return a grant; its bytes say everything once, and nothing follows them."""
    if len(content) < _OPEN.size:
        raise _unknown(content)
    source, seconds, count = _OPEN.unpack_from(content)
    if not 1 <= count <= SERVICES_MAX or len(content) != _OPEN.size + count * _SERVICE.size:
        raise _unknown(content)
    try:
        pairs = _SERVICE.iter_unpack(content[_OPEN.size :])
        services = tuple(Service(Protocol(number), port) for number, port in pairs)
        return Grant(ipaddress.ip_address(unmap(source)), services, seconds)
    except (ValueError, WireError) as error:
        msg = f"a grant that cannot be: {error}"
        raise HelperError(msg) from error


def _unknown(content: bytes) -> HelperError:
    return HelperError(f"unknown message of {len(content)} bytes: {content[:16].hex()}")
