from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR

from doorward.client import dns
from doorward.config.profile import HostPort, Question
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "me.example"
QUERY = dns.make_query(NAME, dns.A, 7)


def answer(*records: DNSRR, query: bytes = QUERY, **changes: Any) -> bytes:
    asked = DNS(query)
    made = DNS(id=asked.id, qr=1, qd=DNSQR(qname=asked.qd[0].qname, qtype=asked.qd[0].qtype), an=list(records))
    for name, value in changes.items():
        setattr(made, name, value)
    return bytes(made)


def a(address: str, name: str = NAME) -> DNSRR:
    return DNSRR(rrname=name, type="A", rdata=address)


def test_a_query_is_what_scapy_reads() -> None:
    read = DNS(QUERY)
    assert (read.id, read.rd, read.qd[0].qname, read.qd[0].qtype) == (7, 1, b"me.example.", dns.A)


@pytest.mark.parametrize(
    ("kind", "records", "found"),
    [
        (dns.A, [a("192.0.2.1")], ["192.0.2.1"]),
        (dns.A, [a("192.0.2.1"), a("192.0.2.2")], ["192.0.2.1", "192.0.2.2"]),
        (
            dns.A,
            [DNSRR(rrname=NAME, type="CNAME", rdata="other.example"), a("192.0.2.1", "other.example")],
            ["192.0.2.1"],
        ),
        (dns.A, [DNSRR(rrname=NAME, type="TXT", rdata="192.0.2.9")], []),
        (dns.AAAA, [DNSRR(rrname=NAME, type="AAAA", rdata="2001:db8::1")], ["2001:db8::1"]),
        (dns.TXT, [DNSRR(rrname=NAME, type="TXT", rdata=["192.0.2.1"])], ["192.0.2.1"]),
        (dns.TXT, [DNSRR(rrname=NAME, type="TXT", rdata=["edns0-client-subnet 192.0.2.0/24"])], []),
        (dns.A, [], []),
    ],
)
def test_the_records_that_were_asked_for_are_read(kind: int, records: list[DNSRR], found: list[str]) -> None:
    query = dns.make_query(NAME, kind, 7)
    made = answer(*records, query=query)
    assert dns.answers(made, query)
    assert list(dns.addresses(made, query)) == found


@pytest.mark.parametrize("changes", [{"id": 8}, {"qr": 0}, {"qd": DNSQR(qname="other.exam", qtype="A")}])
def test_what_answers_another_question_is_no_answer(changes: dict[str, Any]) -> None:
    assert not dns.answers(answer(a("192.0.2.1"), **changes), QUERY)
    assert dns.answers(answer(a("192.0.2.1")), QUERY)


@pytest.mark.parametrize("changes", [{"rcode": 3}, {"rcode": 5}, {"tc": 1}, {"opcode": 2}])
def test_a_refusal_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match=r"refuses|cut off"):
        list(dns.addresses(answer(a("192.0.2.1"), **changes), QUERY))


@given(st.integers(0, 200), st.binary(max_size=120))
@example(0, b"\xc0\x0c" * 60)
@example(0, b"\x3f" * 120)
def test_whatever_stands_behind_the_question_nothing_but_an_address_or_an_error_comes_out(
    count: int, rest: bytes
) -> None:
    made = bytearray(answer()[: len(QUERY)] + rest)
    made[6:8] = count.to_bytes(2, "big")
    try:
        for found in dns.addresses(bytes(made), QUERY):
            ipaddress.ip_address(found)
    except ClientError:
        pass


def test_an_answer_may_be_cut_off_anywhere() -> None:
    whole = answer(a("192.0.2.1"), a("192.0.2.2"))
    for end in range(len(QUERY), len(whole)):
        with pytest.raises(ClientError, match="broken message"):
            list(dns.addresses(whole[:end], QUERY))


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
        assert DNS(query).qd[0].qtype == dns.AAAA
        return [answer(DNSRR(rrname=NAME, type="AAAA", rdata="2001:db8::1"), query=query)]

    assert ask(reply, socket.AF_INET6) == "2001:db8::1"


def test_a_text_is_asked_for_where_there_is_no_address() -> None:
    def reply(query: bytes, _: int) -> list[bytes]:
        if DNS(query).qd[0].qtype == dns.A:
            return [answer(query=query)]
        return [answer(DNSRR(rrname=NAME, type="TXT", rdata=["192.0.2.7"]), query=query)]

    assert ask(reply) == "192.0.2.7"


def test_strangers_answers_are_waited_out() -> None:
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
