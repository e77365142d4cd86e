"""One question to one name server over UDP, by dnspython.

The answer is not signed: an attacker who reads the question on its way can answer it.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final

from doorward.client.address import resolve
from doorward.client.profile import DNS_PORT
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dns.message import Message

    from doorward.client.address import Endpoint
    from doorward.client.profile import Question

PACKAGE: Final = "dnspython (Debian: python3-dnspython; pip install 'doorward[dns]')"
TRIES: Final = 3
TRY_SECONDS: Final = 2.0
_MESSAGE_MAX: Final = 4096


def ask(question: Question, family: socket.AddressFamily, monotonic: Callable[[], float]) -> str:
    """The one address of a name, asked over the family in question: as A or AAAA, else as TXT.

    Raises:
        ClientError: no answer, or not one address; or dnspython is missing.
        OSError: the server cannot be reached.
    """
    try:
        from dns.message import make_query  # noqa: PLC0415  an extra, only for --resolve-dns
    except ImportError as error:
        msg = f"--resolve-dns needs the Python package {PACKAGE}"
        raise ClientError(msg) from error
    (server, *_) = resolve(
        question.server.host, question.server.port or DNS_PORT, family=family, seconds=TRIES * TRY_SECONDS
    )
    for kind in ("A" if family is socket.AF_INET else "AAAA", "TXT"):
        found = _exchange(make_query(question.name, kind), server, monotonic)
        if len(found) > 1:
            msg = f"answers {len(found)} addresses"
            raise ClientError(msg)
        if found:
            return found.pop()
    msg = "answers no address"
    raise ClientError(msg)


def _exchange(query: Message, server: Endpoint, monotonic: Callable[[], float]) -> set[str]:
    """Send a query until it is answered, from a new port each time; return the addresses in the answer."""
    for _ in range(TRIES):
        with socket.socket(server.family, socket.SOCK_DGRAM) as asking:
            asking.connect(server.sockaddr)
            asking.send(query.to_wire())
            deadline = monotonic() + TRY_SECONDS
            while (left := deadline - monotonic()) > 0:
                asking.settimeout(left)
                try:
                    found = addresses(query, asking.recv(_MESSAGE_MAX))
                except TimeoutError:
                    break
                if found is not None:
                    return found
    msg = f"does not answer within {TRIES * TRY_SECONDS:g} s"
    raise ClientError(msg)


def addresses(query: Message, received: bytes) -> set[str] | None:
    """The addresses in the records that were asked for; None if the message does not answer the query.

    Raises:
        ClientError: the server refuses, or the answer is truncated.
    """
    from dns import exception, flags, message, rcode  # noqa: PLC0415  an extra, only for --resolve-dns

    try:
        answer = message.from_wire(received)
    except exception.DNSException:
        return None
    if not query.is_response(answer):
        return None
    if answer.rcode() != rcode.NOERROR or answer.flags & flags.TC:
        refusal = f"refuses: {rcode.to_text(answer.rcode())}"
        msg = "answers with a truncated message" if answer.flags & flags.TC else refusal
        raise ClientError(msg)
    return set(_texts(query, answer))


def _texts(query: Message, answer: Message) -> Iterator[str]:
    """The addresses; a TXT record counts if its text is an address."""
    (asked,) = query.question
    kind = asked.rdtype, asked.rdclass
    for record in (each for records in answer.answer if (records.rdtype, records.rdclass) == kind for each in records):
        is_text = asked.rdtype.name == "TXT"
        text = b"".join(record.strings[:1]).decode("ascii", "replace") if is_text else record.address
        try:
            yield str(ipaddress.ip_address(text))
        except ValueError:
            continue  # servers send other texts too
