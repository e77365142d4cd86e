"""RESP2, the protocol of Valkey and Redis: three commands, and the replies to them.

Whatever is no expected reply is an error. Source: https://valkey.io/topics/protocol/
"""

from __future__ import annotations

import re
from typing import Final

from doorward.errors import WireError
from doorward.frozen import dataclass

REPLY_MAX: Final = 1 << 18  # bytes: twice 64 entries of a stream, each with RECORD_MAX bytes
RECORD_MAX: Final = 2048  # bytes of a bulk string
ENTRIES_MAX: Final = 64  # of a stream, in one reply
FIRST: Final = b"0-0"  # before every entry of a stream
_LINE_MAX: Final = 512  # bytes: an error's text
_DEPTH_MAX: Final = 4  # of arrays: streams, one of them, its entries, one of them; below it the fields
_TEXT_MAX: Final = 200  # characters of an error that are shown
_FIELD: Final = b"g"
_LENGTH: Final = re.compile(rb"-1|0|[1-9][0-9]{0,5}")
_ID: Final = re.compile(rb"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})")
_END: Final = b"\r\n"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error reply; the connection can be used on. `text` is printable ASCII."""

    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream."""

    name: bytes
    content: bytes


Reply = str | bytes | None | Refusal | tuple["Reply", ...]
"""A simple string, a bulk string, nothing, an error, an array."""


def command(*words: bytes) -> bytes:
    """The bytes of a command."""
    parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)]
    return b"".join(parts)


def claim(name: bytes, milliseconds: int | None) -> bytes:
    """The command that sets a name unless it is set, for so long, or with None for ever."""
    expiry = () if milliseconds is None else (b"PX", b"%d" % milliseconds)
    return command(b"SET", name, b"1", b"NX", *expiry)


def append(stream: bytes, content: bytes, most: int) -> bytes:
    """The command that appends an entry to a stream, which keeps its last `most` entries."""
    return command(b"XADD", stream, b"MAXLEN", b"%d" % most, b"*", _FIELD, content)


def read(stream: bytes, after: bytes) -> bytes:
    """The command that reads the next ENTRIES_MAX entries of a stream."""
    return command(b"XREAD", b"COUNT", b"%d" % ENTRIES_MAX, b"STREAMS", stream, after)


def parse(content: bytes) -> tuple[Reply, int] | None:
    """The reply at the beginning of `content` and its length; None where more bytes are needed.

    Raises:
        WireError: the bytes begin no reply that is known here.
    """
    if len(content) > REPLY_MAX:
        msg = f"a reply of more than {REPLY_MAX} bytes"
        raise WireError(msg)
    return _value(content, 0, 0)


def _value(content: bytes, place: int, depth: int) -> tuple[Reply, int] | None:
    """The value at `place`, and the place behind it."""
    end = content.find(_END, place, place + _LINE_MAX)
    if end < 0:
        if len(content) - place >= _LINE_MAX:
            msg = "a line without an end"
            raise WireError(msg)
        return None
    kind, line, place = content[place : place + 1], content[place + 1 : end], end + len(_END)
    if kind == b"+":
        return _printable(line), place
    if kind == b"-":
        return Refusal(_printable(line)), place
    if kind == b"$":
        return _bulk(content, place, _length(line, RECORD_MAX))
    if kind == b"*" and depth <= _DEPTH_MAX:
        return _array(content, place, _length(line, ENTRIES_MAX), depth)
    msg = f"a reply of an unknown kind: {kind!r}"
    raise WireError(msg)


def _length(line: bytes, most: int) -> int | None:
    if _LENGTH.fullmatch(line) is None or int(line) > most:
        msg = f"{_printable(line)!r} is no length up to {most}"
        raise WireError(msg)
    return None if int(line) < 0 else int(line)


def _bulk(content: bytes, place: int, length: int | None) -> tuple[Reply, int] | None:
    if length is None:
        return None, place
    end = place + length
    if len(content) < end + len(_END):
        return None
    if content[end : end + len(_END)] != _END:
        msg = "a string that is longer than it says"
        raise WireError(msg)
    return content[place:end], end + len(_END)


def _array(content: bytes, place: int, length: int | None, depth: int) -> tuple[Reply, int] | None:
    if length is None:
        return None, place
    items: list[Reply] = []
    for _ in range(length):
        found = _value(content, place, depth + 1)
        if found is None:
            return None
        item, place = found
        items.append(item)
    return tuple(items), place


def _printable(line: bytes) -> str:
    text = line[:_TEXT_MAX].decode("ascii", "replace")
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)


def was_new(reply: Reply) -> bool:
    """Whether claim() has set a name that was not set before.

    Raises:
        WireError: it is no reply to claim().
    """
    if reply == "OK" or reply is None:
        return reply is not None
    msg = f"no reply to SET: {_shown(reply)}"
    raise WireError(msg)


def appended(reply: Reply) -> bytes:
    """The name of the entry that append() has appended.

    Raises:
        WireError: it is no reply to append().
    """
    if isinstance(reply, bytes) and _ID.fullmatch(reply):
        return reply
    msg = f"no reply to XADD: {_shown(reply)}"
    raise WireError(msg)


def entries(reply: Reply, stream: bytes, after: bytes) -> tuple[Entry, ...]:
    """The entries of a stream that read() has read, in their order.

    Raises:
        WireError: it is no reply to read().
    """
    if reply is None:
        return ()
    match reply:
        case ((bytes() as name, tuple() as rows),) if name == stream:
            found = tuple(map(_entry, rows))
        case _:
            msg = f"no reply to XREAD: {_shown(reply)}"
            raise WireError(msg)
    order = [_order(name) for name in (after, *(one.name for one in found))]
    if order != sorted(set(order)):
        msg = "entries that were read before"
        raise WireError(msg)
    return found


def _entry(row: Reply) -> Entry:
    match row:
        case (bytes() as name, (bytes() as field, bytes() as content)) if field == _FIELD and _ID.fullmatch(name):
            return Entry(name, content)
        case _:
            msg = f"no entry of a stream: {_shown(row)}"
            raise WireError(msg)


def _order(name: bytes) -> tuple[int, int]:
    milliseconds, _, number = name.partition(b"-")
    return int(milliseconds), int(number)


def _shown(reply: Reply) -> str:
    return reply.text if isinstance(reply, Refusal) else repr(reply)[:_TEXT_MAX]
