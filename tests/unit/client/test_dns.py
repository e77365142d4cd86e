from __future__ import annotations

import ipaddress
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from dns.message import make_query
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR

from doorward.client import dns
from doorward.client.profile import HostPort, Question
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "me.example"
ASKED = make_query(NAME, "A")
ASKED.id = 7  # an argument only since dnspython 2.2
QUERY = ASKED.to_wire()
A, AAAA, TXT = 1, 28, 16


def answer(*records: DNSRR, query: bytes = QUERY, **changes: Any) -> bytes:
    """Return the answer of a server that is not dnspython's."""
    asked = DNS(query)
    made = DNS(id=asked.id, qr=1, qd=DNSQR(qname=asked.qd[0].qname, qtype=asked.qd[0].qtype), an=list(records))
    for name, value in changes.items():
        setattr(made, name, value)
    return bytes(made)


def a(address: str, name: str = NAME) -> DNSRR:
    return DNSRR(rrname=name, type="A", rdata=address)


@pytest.mark.parametrize(
    ("kind", "records", "found"),
    [
        ("A", [a("192.0.2.1")], {"192.0.2.1"}),
        ("A", [a("192.0.2.1"), a("192.0.2.2")], {"192.0.2.1", "192.0.2.2"}),
        (
            "A",
            [DNSRR(rrname=NAME, type="CNAME", rdata="other.example"), a("192.0.2.1", "other.example")],
            {"192.0.2.1"},
        ),
        ("A", [DNSRR(rrname=NAME, type="TXT", rdata="192.0.2.9")], set()),
        ("AAAA", [DNSRR(rrname=NAME, type="AAAA", rdata="2001:db8::1")], {"2001:db8::1"}),
        ("TXT", [DNSRR(rrname=NAME, type="TXT", rdata=["192.0.2.1"])], {"192.0.2.1"}),
        ("TXT", [DNSRR(rrname=NAME, type="TXT", rdata=["edns0-client-subnet 192.0.2.0/24"])], set()),
        ("A", [DNSRR(rrname=NAME, type="A", rclass=4, rdata="192.0.2.9")], set()),
        ("A", [], set()),
    ],
)
def test_the_records_that_were_asked_for_are_read(kind: str, records: list[DNSRR], found: set[str]) -> None:
    query = make_query(NAME, kind)
    assert dns.addresses(query, answer(*records, query=query.to_wire())) == found


@pytest.mark.parametrize("changes", [{"id": 8}, {"qr": 0}, {"qd": DNSQR(qname="other.exam", qtype="A")}])
def test_an_answer_to_another_question_is_no_answer(changes: dict[str, Any]) -> None:
    assert dns.addresses(ASKED, answer(a("192.0.2.1"), **changes)) is None
    assert dns.addresses(ASKED, answer(a("192.0.2.1"))) is not None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"rcode": 3}, "refuses: NXDOMAIN"), ({"rcode": 5}, "refuses: REFUSED"), ({"tc": 1}, "truncated message")],
)
def test_a_refusal_is_an_error(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ClientError, match=complaint):
        dns.addresses(ASKED, answer(a("192.0.2.1"), **changes))


@given(st.integers(0, 200), st.binary(max_size=120))
@example(0, b"\xc0\x0c" * 60)
@example(0, b"\x3f" * 120)
@example(1, b"\xc0\x0c\0\x10\0\x01\0\0\0\0\0\0")
def test_any_bytes_behind_the_question_give_addresses_or_an_error_or_no_answer(count: int, rest: bytes) -> None:
    for query in (ASKED, make_query(NAME, "TXT")):
        made = bytearray(answer(query=query.to_wire())[: len(query.to_wire())] + rest)
        made[6:8] = count.to_bytes(2, "big")
        try:
            found = dns.addresses(query, bytes(made)) or set()
        except ClientError:
            continue
        assert all(ipaddress.ip_address(text) for text in found)


def test_a_truncated_answer_is_no_answer() -> None:
    whole = answer(a("192.0.2.1"), a("192.0.2.2"))
    for end in range(len(whole)):
        assert dns.addresses(ASKED, whole[:end]) is None


def test_without_dnspython_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.message", None)
    with pytest.raises(ClientError, match=r"Python package dnspython \(Debian: python3-dnspython; pip install"):
        dns.ask(Question(NAME, HostPort("127.0.0.1", 1)), socket.AF_INET, time.monotonic)


def ask(reply: Callable[[bytes, int], list[bytes]], family: socket.AddressFamily = socket.AF_INET) -> str:
    """Ask a server on the loopback; `reply` makes its answers to a query, the second argument counts."""
    host = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, 0))
        server.settimeout(20)
        port = server.getsockname()[1]

        def serve() -> None:
            for count in range(10):
                query, client = server.recvfrom(2048)
                if query == b"end":
                    return
                for message in reply(query, count):
                    server.sendto(message, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return dns.ask(Question(NAME, HostPort(host, port)), family, time.monotonic)
        finally:
            with socket.socket(family, socket.SOCK_DGRAM) as ender:
                ender.sendto(b"end", (host, port))
            thread.join()


def test_a_server_is_asked_and_believed() -> None:
    assert ask(lambda query, _: [answer(a("192.0.2.1"), query=query)]) == "192.0.2.1"


def test_ipv6_is_asked_over_ipv6_for_ipv6() -> None:
    def reply(query: bytes, _: int) -> list[bytes]:
        assert DNS(query).qd[0].qtype == AAAA
        return [answer(DNSRR(rrname=NAME, type="AAAA", rdata="2001:db8::1"), query=query)]

    assert ask(reply, socket.AF_INET6) == "2001:db8::1"


def test_a_text_is_asked_for_where_there_is_no_address() -> None:
    def reply(query: bytes, _: int) -> list[bytes]:
        if DNS(query).qd[0].qtype == A:
            return [answer(query=query)]
        return [answer(DNSRR(rrname=NAME, type="TXT", rdata=["192.0.2.7"]), query=query)]

    assert ask(reply) == "192.0.2.7"


def test_forged_answers_are_ignored() -> None:
    def reply(query: bytes, _: int) -> list[bytes]:
        forged = answer(a("203.0.113.66"), query=query, id=(DNS(query).id + 1) % 65536)
        return [os.urandom(40), b"", forged, answer(a("192.0.2.1"), query=query)]

    assert ask(reply) == "192.0.2.1"


def test_a_lost_question_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "TRY_SECONDS", 0.2)
    assert ask(lambda query, count: [answer(a("192.0.2.1"), query=query)] if count else []) == "192.0.2.1"


@pytest.mark.parametrize(
    ("records", "complaint"), [([a("192.0.2.1"), a("192.0.2.2")], "answers 2 addresses"), ([], "answers no address")]
)
def test_one_address_is_wanted(records: list[DNSRR], complaint: str) -> None:
    with pytest.raises(ClientError, match=complaint):
        ask(lambda query, _: [answer(*records, query=query)])


def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "TRY_SECONDS", 0.1)
    with pytest.raises(ClientError, match=r"does not answer within 0\.3 s"):
        ask(lambda _query, _count: [])
