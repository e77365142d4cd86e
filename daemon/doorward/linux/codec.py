"""Frozen values to bytes and back, by the type hints of their classes. Each value has exactly one encoding.

A dataclass is its fields in order, an int 8 bytes, an enumeration the index of its member. Text, bytes and
tuples of any length begin with that length. A union begins with the index of the type; an option is a union.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import struct
import types
import typing
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, Generic, TypeVar

from doorward.errors import DoorwardError, HelperError
from doorward.linux.seqpacket import MESSAGE_MAX
from doorward.values import Secret, unmap

T = TypeVar("T")
_Put = Callable[[bytes], None]
_Write = Callable[[Any, _Put], None]
_Read = Callable[[bytes, int], tuple[Any, int]]  # content and offset to a value and the offset behind it

_BYTES: Final = tuple(bytes([number]) for number in range(256))
_INT: Final = struct.Struct("!q")
_LENGTH: Final = struct.Struct("!I")
_COUNT: Final = struct.Struct("!H")


class Cut(int):
    """In `Annotated[str, Cut(most)]`: text for people, cut to `most` bytes; `?` replaces surrogates."""


class Codec(Generic[T]):
    """Encoder and decoder of one message type; `letter` distinguishes the messages of different channels."""

    def __init__(self, letter: bytes, kind: object, most: int = MESSAGE_MAX) -> None:
        """Take the type of the values, and the size limit of an encoded message in bytes."""
        self._letter = letter
        self._kind = kind
        self._most = most

    @functools.cached_property
    def _ways(self) -> tuple[_Write, _Read]:
        return _ways(self._kind)

    def encode(self, value: T) -> bytes:
        """Encode a value.

        Raises:
            HelperError: it is too long, or of a type or size without an encoding.
        """
        parts = [self._letter]
        try:
            self._ways[0](value, parts.append)
        except (ValueError, LookupError, struct.error) as error:
            msg = f"a message that cannot be sent: {error}"
            raise HelperError(msg) from error
        content = b"".join(parts)
        if len(content) > self._most:
            msg = f"a message of {len(content)} bytes, more than {self._most}"
            raise HelperError(msg)
        return content

    def decode(self, content: bytes) -> T:
        """Decode a value.

        Raises:
            HelperError: the bytes encode no value. Nothing else is raised.
        """
        try:
            if content[:1] != self._letter or len(content) > self._most:
                raise ValueError  # noqa: TRY301  every fault has one error
            value: T
            value, end = self._ways[1](content, 1)
            if end != len(content):
                raise ValueError  # noqa: TRY301  as above
        except (ValueError, LookupError, struct.error, DoorwardError) as error:
            msg = f"unknown message of {len(content)} bytes: {content[:16].hex()} {error}".rstrip()
            raise HelperError(msg) from error
        return value


@functools.cache
def _ways(kind: Any) -> tuple[_Write, _Read]:  # noqa: ANN401  a type hint
    """The writer and the reader of a type."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return _union(arguments)
    if origin is tuple:
        return _row(arguments[0]) if arguments[-1] is Ellipsis else _fixed(arguments, lambda *found: found, tuple)
    if origin is typing.Annotated:
        return _text(arguments[1])
    if issubclass(kind, enum.Enum):
        return _member(tuple(kind))
    hints = typing.get_type_hints(kind, include_extras=True)
    names = kind.__match_args__  # the fields that the constructor takes
    return _fixed([hints[name] for name in names], kind, lambda value: [getattr(value, name) for name in names])


def _fixed(kinds: Iterable[object], make: Callable[..., Any], take: Callable[[Any], Any]) -> tuple[_Write, _Read]:
    ways = tuple(map(_ways, kinds))
    writes, reads = tuple(way[0] for way in ways), tuple(way[1] for way in ways)

    def write(value: Any, put: _Put) -> None:  # noqa: ANN401  any value
        for write_one, one in zip(writes, take(value), strict=True):
            write_one(one, put)

    def read(content: bytes, place: int) -> tuple[Any, int]:
        found = []
        for read_one in reads:
            one, place = read_one(content, place)
            found.append(one)
        return make(*found), place

    return write, read


def _row(kind: object) -> tuple[_Write, _Read]:
    write_one, read_one = _ways(kind)

    def write(value: tuple[Any, ...], put: _Put) -> None:
        put(_COUNT.pack(len(value)))
        for one in value:
            write_one(one, put)

    def read(content: bytes, place: int) -> tuple[Any, int]:
        (count,) = _COUNT.unpack_from(content, place)
        place += _COUNT.size
        found = []
        for _ in range(count):
            one, place = read_one(content, place)
            found.append(one)
        return tuple(found), place

    return write, read


def _union(kinds: tuple[Any, ...]) -> tuple[_Write, _Read]:
    """The writer and the reader of a union; the indexes do not depend on the order in the source."""
    kinds = tuple(sorted(kinds, key=lambda kind: (kind is not types.NoneType, kind.__qualname__)))
    writes = {kind: (_BYTES[place], _ways(kind)[0]) for place, kind in enumerate(kinds)}
    reads = tuple(_ways(kind)[1] for kind in kinds)

    def write(value: Any, put: _Put) -> None:  # noqa: ANN401  any value
        mark, write_one = writes[type(value)]
        put(mark)
        write_one(value, put)

    def read(content: bytes, place: int) -> tuple[Any, int]:
        return reads[content[place]](content, place + 1)

    return write, read


def _member(members: tuple[Hashable, ...]) -> tuple[_Write, _Read]:
    marks = {member: _BYTES[place] for place, member in enumerate(members)}
    return lambda value, put: put(marks[value]), lambda content, place: (members[content[place]], place + 1)


def _text(most: int) -> tuple[_Write, _Read]:
    def write(value: str, put: _Put) -> None:
        fitting = value.encode("utf-8", "replace")[:most]
        _write_bytes(fitting.decode("utf-8", "ignore").encode(), put)  # drops a character that was cut

    def read(content: bytes, place: int) -> tuple[str, int]:
        found, place = _read_bytes(content, place)
        if len(found) > most:
            raise ValueError
        return found.decode(), place

    return write, read


def _write_bytes(value: bytes, put: _Put) -> None:
    put(_LENGTH.pack(len(value)))
    put(value)


def _read_bytes(content: bytes, place: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(content, place)
    start = place + _LENGTH.size
    if start + length > len(content):
        raise ValueError
    return content[start : start + length], start + length


def _read_str(content: bytes, place: int) -> tuple[str, int]:
    found, place = _read_bytes(content, place)
    return found.decode(), place


def _read_secret(content: bytes, place: int) -> tuple[Secret, int]:
    found, place = _read_bytes(content, place)
    return Secret(found), place


def _read_int(content: bytes, place: int) -> tuple[int, int]:
    return _INT.unpack_from(content, place)[0], place + _INT.size


def _read_ipv4(content: bytes, place: int) -> tuple[ipaddress.IPv4Address, int]:
    return ipaddress.IPv4Address(content[place : place + 4]), place + 4


def _write_ipv6(value: ipaddress.IPv6Address, put: _Put) -> None:
    if value.scope_id is not None:
        msg = f"{value} is valid on one link only"
        raise ValueError(msg)
    put(_unmapped(value.packed))


def _read_ipv6(content: bytes, place: int) -> tuple[ipaddress.IPv6Address, int]:
    return ipaddress.IPv6Address(_unmapped(content[place : place + 16])), place + 16


def _unmapped(packed: bytes) -> bytes:
    """Refuse an IPv4-mapped address: it is encoded as an IPv4 address."""
    if unmap(packed) is not packed:
        msg = "an IPv4-mapped address"
        raise ValueError(msg)
    return packed


_SIMPLE: Final[dict[Any, tuple[_Write, _Read]]] = {
    types.NoneType: (lambda _value, _put: None, lambda _content, place: (None, place)),
    bool: _member((False, True)),
    int: (lambda value, put: put(_INT.pack(value)), _read_int),
    bytes: (_write_bytes, _read_bytes),
    str: (lambda value, put: _write_bytes(value.encode(), put), _read_str),
    Secret: (lambda value, put: _write_bytes(value.reveal(), put), _read_secret),
    ipaddress.IPv4Address: (lambda value, put: put(value.packed), _read_ipv4),
    ipaddress.IPv6Address: (_write_ipv6, _read_ipv6),
}
