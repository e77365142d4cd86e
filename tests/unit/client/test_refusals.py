"""What the network answers to a knock: real refusals of the loopback, and ICMP errors as Linux hands them over."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from doorward.client import refusals
from doorward.client.address import Endpoint
from doorward.client.profile import Profile
from doorward.client.refusals import Refusal
from doorward.client.send import send

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN, HOST, ROUTER = map(ipaddress.ip_address, ("192.0.2.1", "192.0.2.9", "192.0.2.254"))
ROUTER6 = ipaddress.ip_address("2001:db8::1")
REFUSED = "refuses udp/62201 (does doorwardd run, at this port?)"


@pytest.fixture
def senders() -> Iterator[list[socket.socket]]:
    kept: list[socket.socket] = []
    yield kept
    for each in kept:
        each.close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def open_port(request: pytest.FixtureRequest) -> Iterator[tuple[Endpoint, socket.socket]]:
    host = ipaddress.ip_address(request.param)
    with socket.socket(socket.AF_INET if host.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as listener:
        listener.bind((request.param, 0))
        yield Endpoint(host, listener.getsockname()[1]), listener


def test_a_port_that_takes_packets_answers_nothing_and_one_that_does_not_refuses(
    open_port: tuple[Endpoint, socket.socket], senders: list[socket.socket]
) -> None:
    to, listener = open_port
    send(b"x", to, Profile(), senders)
    assert refusals.heard(senders) == []
    listener.close()
    send(b"x", to, Profile(), senders)
    send(b"x", to, Profile(), senders)
    assert refusals.heard(senders) == [Refusal(errno.ECONNREFUSED, to.host)]


def test_a_system_without_an_error_queue_tells_a_refused_port_alone(
    open_port: tuple[Endpoint, socket.socket], monkeypatch: pytest.MonkeyPatch, senders: list[socket.socket]
) -> None:
    to, listener = open_port
    listener.close()
    monkeypatch.setattr("sys.platform", "darwin")
    send(b"x", to, Profile(), senders)
    monkeypatch.delattr(socket, "MSG_DONTWAIT")
    assert refusals.heard(senders) == [Refusal(errno.ECONNREFUSED)]


def test_a_few_sockets_are_kept_and_none_with_a_fixed_port(
    open_port: tuple[Endpoint, socket.socket], senders: list[socket.socket]
) -> None:
    to, _ = open_port
    with socket.socket(to.family, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        free = probe.getsockname()[1]
    for _ in range(2):  # the port is free again
        send(b"x", to, Profile(source_port=free), senders)
    assert senders == []
    for _ in range(20):
        send(b"x", to, Profile(), senders)
    assert len(senders) == 8


def queued(number: int, origin: int, kind: int, code: int, offender: bytes) -> bytes:
    """An entry of the error queue: sock_extended_err and the offender's sockaddr."""
    return struct.pack("=IBBBxII", number, origin, kind, code, 0, 0) + offender


V4 = struct.pack("!HH4s8x", 2, 0, ROUTER.packed)
V6 = struct.pack("!HHI16sI", 10, 0, 0, ROUTER6.packed, 0)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (queued(errno.EHOSTUNREACH, 2, 3, 13, V4), Refusal(errno.EHOSTUNREACH, ROUTER, is_forbidden=True)),
        (queued(errno.EHOSTUNREACH, 2, 3, 1, V4), Refusal(errno.EHOSTUNREACH, ROUTER)),
        (queued(errno.EACCES, 3, 1, 1, V6), Refusal(errno.EACCES, ROUTER6, is_forbidden=True)),
        (queued(errno.EHOSTUNREACH, 2, 3, 1, b""), Refusal(errno.EHOSTUNREACH)),
        (queued(errno.EMSGSIZE, 1, 0, 0, V4), None),
        (b"short", None),
    ],
    ids=["forbidden", "unreachable", "IPv6", "without offender", "of this machine", "short"],
)
def test_an_entry_of_the_error_queue_is_read(data: bytes, found: Refusal | None) -> None:
    assert refusals._refusal(data) == found  # noqa: SLF001  a kernel that sends each of these is in system tests


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (Refusal(errno.ECONNREFUSED, HOST), f"192.0.2.9 {REFUSED}"),
        (
            Refusal(errno.ECONNREFUSED),
            f"the host or a firewall before it {REFUSED}",
        ),
        (Refusal(errno.EHOSTUNREACH, HOST, is_forbidden=True), "192.0.2.9 forbids udp/62201"),
        (Refusal(errno.EHOSTUNREACH, ROUTER, is_forbidden=True), "refused on the way: 192.0.2.254 forbids udp/62201"),
        (
            Refusal(errno.EHOSTUNREACH, ROUTER),
            "refused on the way: 192.0.2.254 refuses udp/62201 (No route to host)",
        ),
        (
            Refusal(errno.EHOSTUNREACH, OWN),
            "nobody on this network has the address 192.0.2.9: the host is down, or the address is wrong",
        ),
    ],
)
def test_who_refused_is_told(refusal: Refusal, told: str) -> None:
    assert refusal.words(Endpoint(HOST, 62201), OWN) == told
