"""The closed set of messages between the processes: one SEQPACKET message each, decoded exactly. Pure.

Anything that is not one of these ends the process that received it.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Final

from doorward.errors import HelperError, WireError
from doorward.values import COMMAND_MAX, Execution, Grant, IPAddress, Nat, Protocol, Service, address, unmap

MESSAGE_MAX: Final = 60_000  # bytes, under the default send buffer of a Unix socket
SERVICES_MAX: Final = 64  # fwknop's longest message names fewer
_OPEN: Final = struct.Struct("!16sIBB")  # source (IPv4 mapped), seconds, number of services, bytes of conditions
_SERVICE: Final = struct.Struct("!BH")
_MAPPED: Final = bytes(10) + b"\xff\xff"
_HAS_NAT, _EVERYTHING, _AS_IS, _MASQUERADE = 1, 2, 4, 8  # bits of a grant's conditions
_CONDITIONS: Final = 1 + 3 * 16 + 2  # bytes: bits, destination, NAT target, its source, port; a system's name behind
_NO_NAT: Final = Nat(None, 1)
# stanza, source, origin, destination, seconds, time made, client's timeout, protocol and port (0: none), mark
_EXECUTE: Final = struct.Struct("!I16s16s16sIQIBH16s")
MARK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Configure:
    """Listener: read the files again and hand them over; nothing changes yet."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Listener: it can use the files that were handed over last; act on them."""


@dataclass(frozen=True, slots=True)
class Open:
    """Listener: open this grant."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Configuration:
    """Helper: all files in one sealed descriptor."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """Helper: they are in force; the descriptors are all that the listener reads from now on."""


@dataclass(frozen=True, slots=True)
class Problems:
    """Helper: the files have problems, or cannot be acted on, one a line; the old configuration stays."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """Helper: it is open."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Helper: it is not, and why."""

    text: str


@dataclass(frozen=True, slots=True)
class Execute:
    """Listener to doorward-exec: do this; `mark` is the stanza as the listener read it (limits.mark)."""

    execution: Execution
    mark: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """Listener to doorward-exec: mail this line to whoever wants to know."""

    granted: bool
    line: str


@dataclass(frozen=True, slots=True)
class Reread:
    """Listener to doorward-exec: the files have changed, read them again."""


Order = Execute | Report | Reread
Request = Configure | Adopt | Open
Reply = Configuration | Adopted | Problems | Done | Refused

_EMPTY: Final[dict[type[Request | Reply], bytes]] = {
    Configure: b"C",
    Adopt: b"A",
    Configuration: b"c",
    Adopted: b"a",
    Done: b"d",
}
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
    if content == b"A":
        return Adopt()
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
    if content == b"a":
        return Adopted()
    if content == b"d":
        return Done()
    for kind, letter in _TEXT.items():
        if content[:1] == letter:
            return kind(_decode_text(content))
    raise _unknown(content)


def encode_order(order: Order) -> bytes:
    """Return the bytes of what the listener tells doorward-exec; a line that is too long is cut."""
    match order:
        case Execute(execution=execution, mark=mark):
            return b"E" + _encode_execution(execution, mark)
        case Report(granted=granted, line=line):
            text = line.encode("utf-8", "replace")[: MESSAGE_MAX - 1]
            return (b"G" if granted else b"D") + text.decode("utf-8", "ignore").encode()
        case Reread():
            return b"R"


def decode_order(content: bytes) -> Order:
    """Return what the listener tells doorward-exec.

    Raises:
        HelperError: not an order.
    """
    if content == b"R":
        return Reread()
    if content[:1] == b"E":
        return _decode_execution(content[1:])
    if content[:1] in {b"G", b"D"}:
        return Report(content[:1] == b"G", _decode_text(content))
    raise _unknown(content)


def _encode_execution(execution: Execution, mark: bytes) -> bytes:
    service = execution.service
    head = _EXECUTE.pack(
        execution.stanza,
        *map(_packed, (execution.source, execution.origin, execution.destination)),
        execution.seconds,
        execution.made,
        execution.client_timeout,
        service.protocol if service else 0,
        service.port if service else 0,
        mark,
    )
    return head + (execution.command or "").encode()


def _decode_execution(content: bytes) -> Execute:
    """Return an execution; its bytes say everything once, and nothing follows them."""
    if not _EXECUTE.size <= len(content) <= _EXECUTE.size + COMMAND_MAX:
        raise _unknown(content)
    stanza, source, origin, destination, seconds, made, timeout, protocol, port, mark = _EXECUTE.unpack_from(content)
    try:
        execution = Execution(
            stanza,
            _address(source),
            _address(origin),
            _address(destination),
            seconds,
            made,
            Service(Protocol(protocol), port) if protocol else None,
            timeout,
            content[_EXECUTE.size :].decode() or None,
        )
    except (ValueError, WireError) as error:
        msg = f"an execution that cannot be: {error}"
        raise HelperError(msg) from error
    if _encode_execution(execution, mark) != content:  # a second spelling of the same execution
        raise _unknown(content)
    return Execute(execution, mark)


def _decode_text(content: bytes) -> str:
    """Return the text behind the letter of a message."""
    if len(content) > MESSAGE_MAX:
        raise _unknown(content)
    try:
        return content[1:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unknown(content) from error


def _encode_grant(grant: Grant) -> bytes:
    conditions = _encode_conditions(grant)
    head = _OPEN.pack(_packed(grant.source), grant.seconds, len(grant.services), len(conditions))
    services = b"".join(_SERVICE.pack(service.protocol, service.port) for service in grant.services)
    return head + services + conditions


def _encode_conditions(grant: Grant) -> bytes:
    """Return what a plain grant does not have, nothing for a plain grant."""
    if grant.nat is None and grant.os is None and grant.destination is None:
        return b""
    nat = grant.nat or _NO_NAT
    flags = sum(
        bit
        for bit, said in (
            (_HAS_NAT, grant.nat),
            (_EVERYTHING, nat.everything),
            (_AS_IS, not nat.rewrite),
            (_MASQUERADE, nat.masquerade),
        )
        if said
    )
    addresses = b"".join(map(_packed_or_none, (grant.destination, nat.target, nat.snat)))
    port = 0 if grant.nat is None else nat.port or 0
    return bytes([flags]) + addresses + port.to_bytes(2, "big") + (grant.os or "").encode("ascii")


def _decode_grant(content: bytes) -> Grant:
    """Return a grant; its bytes say everything once, and nothing follows them."""
    if len(content) < _OPEN.size:
        raise _unknown(content)
    source, seconds, count, rest = _OPEN.unpack_from(content)
    end = _OPEN.size + count * _SERVICE.size
    if not 1 <= count <= SERVICES_MAX or len(content) != end + rest:
        raise _unknown(content)
    try:
        pairs = _SERVICE.iter_unpack(content[_OPEN.size : end])
        services = tuple(_service(number, port) for number, port in pairs)
        grant = Grant(_address(source), services, seconds, *_decode_conditions(content[end:]))
    except (ValueError, WireError) as error:
        msg = f"a grant that cannot be: {error}"
        raise HelperError(msg) from error
    if _encode_grant(grant) != content:  # a second spelling of the same grant
        raise _unknown(content)
    return grant


def _decode_conditions(content: bytes) -> tuple[Nat | None, str | None, IPAddress | None]:
    """Return NAT, operating system and destination of a grant."""
    if not content:
        return None, None, None
    if len(content) < _CONDITIONS:
        raise _unknown(content)
    flags, (destination, target, snat) = content[0], (content[place : place + 16] for place in (1, 17, 33))
    nat = None
    if flags & _HAS_NAT:
        nat = Nat(
            _address_or_none(target),
            int.from_bytes(content[49:51], "big") or None,
            everything=bool(flags & _EVERYTHING),
            rewrite=not flags & _AS_IS,
            snat=_address_or_none(snat),
            masquerade=bool(flags & _MASQUERADE),
        )
    return nat, content[_CONDITIONS:].decode("ascii") or None, _address_or_none(destination)


@functools.lru_cache(maxsize=256)
def _service(protocol: int, port: int) -> Service:
    return Service(Protocol(protocol), port)


def _packed(one: IPAddress) -> bytes:
    return one.packed if one.version == 6 else _MAPPED + one.packed  # noqa: PLR2004


def _packed_or_none(one: IPAddress | None) -> bytes:
    return bytes(16) if one is None else _packed(one)


def _address(packed: bytes) -> IPAddress:
    return address(unmap(packed))


def _address_or_none(packed: bytes) -> IPAddress | None:
    return _address(packed) if any(packed) else None


def _unknown(content: bytes) -> HelperError:
    return HelperError(f"unknown message of {len(content)} bytes: {content[:16].hex()}")
