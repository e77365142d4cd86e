"""One question to one name server over UDP, and a parser that trusts no count and no length (RFC 1035 §4).

The answer is not signed: whoever can read the question on its way can answer it.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from typing import TYPE_CHECKING, Final

from doorward.client.address import resolve
from doorward.config.profile import DNS_PORT
from doorward.errors import ClientError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doorward.config.profile import Question

A: Final = 1
TXT: Final = 16
AAAA: Final = 28
TRIES: Final = 3
TRY_SECONDS: Final = 2.0
_CLASS_IN: Final = 1
_HEADER: Final = struct.Struct("!6H")
_QUESTION_END: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_POINTER: Final = 0xC0
_LABEL_MAX: Final = 63
_RESPONSE: Final = 0x8000
_OPCODE: Final = 0x7800
_TRUNCATED: Final = 0x0200
_RCODE: Final = 0x000F
_RECURSION_DESIRED: Final = 0x0100
_RECORDS_MAX: Final = 32
_MESSAGE_MAX: Final = 4096
_STRANGERS_MAX: Final = 100  # wrong answers before an attempt is given up


def ask(
    question: Question,
    family: socket.AddressFamily,
    monotonic: Callable[[], float],
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    """Return the one address that a name stands for, asked over the family in question: as A or AAAA, else as TXT.

    Raises:
        ClientError: no answer, or not one address.
        OSError: no way to the server.
    """
    (server, *_) = resolve(
        question.server.host, question.server.port or DNS_PORT, family=family, seconds=TRIES * TRY_SECONDS
    )
    for kind in (A if family is socket.AF_INET else AAAA, TXT):
        query = make_query(question.name, kind, int.from_bytes(random_bytes(2), "big"))
        found = sorted(set(_exchange(query, server.family, server.sockaddr, monotonic)))
        if len(found) > 1:
            msg = f"answers {len(found)} addresses"
            raise ClientError(msg)
        if found:
            return found[0]
    msg = "answers no address"
    raise ClientError(msg)


def make_query(name: str, kind: int, number: int) -> bytes:
    """Return a query for one name."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode("ascii").split(b"."))
    return _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0) + labels + b"\0" + _QUESTION_END.pack(kind, _CLASS_IN)


def _exchange(
    query: bytes, family: socket.AddressFamily, to: tuple[str | int, ...], monotonic: Callable[[], float]
) -> list[str]:
    """Send a query until it is answered, from a port of its own each time; return the addresses in the answer."""
    for _ in range(TRIES):
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            asking.connect(to)
            asking.send(query)
            deadline = monotonic() + TRY_SECONDS
            for _ in range(_STRANGERS_MAX):
                asking.settimeout(max(deadline - monotonic(), 0.001))
                try:
                    answer = asking.recv(_MESSAGE_MAX)
                except TimeoutError:
                    break
                if answers(answer, query):
                    return list(addresses(answer, query))
    msg = f"does not answer within {TRIES * TRY_SECONDS:g} s"
    raise ClientError(msg)


def answers(answer: bytes, query: bytes) -> bool:
    """Say whether a message answers this query: its number, and the question word for word."""
    if len(answer) < len(query):
        return False
    number, flags, questions, *_ = _HEADER.unpack_from(answer)
    same = answer[_HEADER.size : len(query)].lower() == query[_HEADER.size :].lower()
    return bool(flags & _RESPONSE) and number == _HEADER.unpack_from(query)[0] and questions == 1 and same


def addresses(answer: bytes, query: bytes) -> Iterator[str]:
    """Yield the addresses of the records that were asked for; a text counts where it is one.

    Raises:
        ClientError: the server refuses, or the message is not of the format.
    """
    _, flags, _, count, *_ = _HEADER.unpack_from(answer)
    kind, _ = _QUESTION_END.unpack_from(query, len(query) - _QUESTION_END.size)
    if flags & (_OPCODE | _TRUNCATED | _RCODE):
        msg = f"refuses: code {flags & _RCODE}" if flags & _RCODE else "answers with a message that is cut off"
        raise ClientError(msg)
    try:
        for found, content in _records(answer, len(query), min(count, _RECORDS_MAX)):
            if found == kind:
                yield from _texts(kind, content)
    except WireError as error:
        msg = f"answers with a broken message: {error}"
        raise ClientError(msg) from error


def _records(answer: bytes, place: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the records from `place` on."""
    for _ in range(count):
        place = _after_name(answer, place)
        if place + _RECORD.size > len(answer):
            msg = "a record is cut off"
            raise WireError(msg)
        kind, class_, _, length = _RECORD.unpack_from(answer, place)
        place += _RECORD.size
        if place + length > len(answer):
            msg = "a record's content is cut off"
            raise WireError(msg)
        if class_ == _CLASS_IN:
            yield kind, answer[place : place + length]
        place += length


def _after_name(answer: bytes, place: int) -> int:
    """Return where a name ends; a pointer ends it, and is not followed."""
    while place < len(answer):
        length = answer[place]
        if length & _POINTER == _POINTER:
            return place + 2
        if length > _LABEL_MAX:
            break
        place += 1 + length
        if length == 0:
            return place
    msg = "a name is cut off"
    raise WireError(msg)


def _texts(kind: int, content: bytes) -> Iterator[str]:
    if kind == TXT:
        text = content[1 : 1 + content[0]] if content else b""
        try:
            yield str(ipaddress.ip_address(text.decode("ascii")))
        except ValueError:
            return  # servers say other things too
        return
    if len(content) != (4 if kind == A else 16):
        msg = "an address has a wrong length"
        raise WireError(msg)
    yield str(ipaddress.ip_address(content))
