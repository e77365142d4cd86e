"""A knock inside an HTTP request. Pure. Source: fwknop server/incoming_spa.c, client/spa_comm.c.

GET /<packet, with - for + and _ for /> HTTP/1.0
User-Agent: Fwknop/2.6.10
X-Forwarded-For: 192.0.2.7
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from doorward.frozen import dataclass
from doorward.values import unmap

if TYPE_CHECKING:
    from doorward.values import Datagram, Networks

REQUEST_MAX: Final = 8192  # bytes; the usual limit of web servers for a request's head
_METHOD: Final = b"GET /"
_AGENT: Final = b"Fwknop"
_BLANKS: Final = b" \t\n\v\f\r"
_TO_BASE64: Final = bytes.maketrans(b"-_", b"+/")
_HOPS_MAX: Final = 16  # proxies that one knock may pass


@dataclass(frozen=True, slots=True)
class Rules:
    """The requests that carry knocks: fwknop's agent alone or any; and the proxies whose X-Forwarded-For counts."""

    any_agent: bool = False
    proxies: Networks | None = None


def read(datagram: Datagram, rules: Rules) -> Datagram:
    """The knock in a request, or the datagram unchanged if it is no such request.

    The unchanged datagram is refused later: no packet of any format has a blank.
    """
    request = datagram.payload[:REQUEST_MAX]
    if request[: len(_METHOD)].upper() != _METHOD:
        return datagram
    fields = _fields(request)
    if not rules.any_agent and not any(value.startswith(_AGENT) for name, value in fields if name == b"user-agent"):
        return datagram
    knock = _first_word(request[len(_METHOD) :]).translate(_TO_BASE64)
    believed = rules.proxies is not None and datagram.origin in rules.proxies
    forwarded = _forwarded(fields, rules.proxies) if believed and rules.proxies is not None else None
    return datagram._replace(payload=knock, forwarded=forwarded)


def is_whole(content: bytes) -> bool:
    """Whether the head of a request is complete; False if it is no request."""
    return content[: len(_METHOD)].upper() == _METHOD and (b"\r\n\r\n" in content or b"\n\n" in content)


def _first_word(text: bytes) -> bytes:
    """The text before the first blank."""
    return text.translate(bytes.maketrans(_BLANKS, b" " * len(_BLANKS))).partition(b" ")[0]


def _fields(request: bytes) -> list[tuple[bytes, bytes]]:
    """The header fields, names in lower case; a last line that may have been cut is left out (RFC 9112, 5)."""
    head, _, _ = request.replace(b"\r\n", b"\n").partition(b"\n\n")
    lines = head.split(b"\n") if len(head) < len(request.replace(b"\r\n", b"\n")) else head.split(b"\n")[:-1]
    pairs = (line.partition(b":") for line in lines[1:])
    return [(name.lower(), value.strip(b" \t")) for name, colon, value in pairs if colon]


def _forwarded(fields: list[tuple[bytes, bytes]], proxies: Networks) -> bytes | None:
    """The last address that is no trusted proxy, else the first: each proxy appends its peer's address.

    The addresses before it were written by others, the client included.
    """
    values = b",".join(value for name, value in fields if name == b"x-forwarded-for")
    address = None
    for text in reversed(values.split(b",")[-_HOPS_MAX:]):
        try:
            address = unmap(ipaddress.ip_address(text.strip().decode("ascii")).packed)
        except ValueError:
            return None
        if address not in proxies:
            break
    return address if address is not None and any(address) else None
