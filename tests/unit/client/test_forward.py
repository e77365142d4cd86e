"""The bytes of `doorward forward`; that it knocks is in system/test_everywhere.py."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from doorward.client import getopt
from doorward.client.forward import _listening, carry
from doorward.client.options import FORWARD
from doorward.client.profile import HostPort
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and a service, with a carrier between them that ends when they have."""
    (client, one), (other, service) = socket.socketpair(), socket.socketpair()
    with client, one, other, service:
        carrier = threading.Thread(target=carry, args=(one, other))
        carrier.start()
        yield client, service
        carrier.join(10)
        assert not carrier.is_alive()


def test_bytes_go_both_ways_and_each_way_ends_alone(ends: tuple[socket.socket, socket.socket]) -> None:
    client, service = ends
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert service.recv(100) == b"question"
    assert service.recv(100) == b""
    service.sendall(b"answer")
    service.close()
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""


def test_a_service_that_is_gone_ends_the_connection(ends: tuple[socket.socket, socket.socket]) -> None:
    client, service = ends
    service.close()
    assert client.recv(100) == b""
    with contextlib.suppress(BrokenPipeError):
        client.sendall(b"question")
        client.sendall(b"question")


@pytest.mark.parametrize("text", ["0", "127.0.0.1:0", "localhost:0"])
def test_the_loopback_is_listened_on(text: str) -> None:
    local = HostPort(text.partition(":")[0], 0) if ":" in text else getopt.parse(FORWARD, [text, "web1:22"]).local
    with _listening(local) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ClientError, match="Address already in use"):
            _listening(HostPort("127.0.0.1", listening.getsockname()[1]))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "web1"])  # noqa: S104  refused, not bound
def test_other_machines_are_not_let_to_the_port(host: str) -> None:
    with pytest.raises(ClientError, match="no address of this machine alone"):
        _listening(HostPort(host, 0))


@pytest.mark.parametrize("words", [["65536", "web1:22"], ["22", "web1"], ["22", "a b:22"], ["22", "web1:0"]])
def test_what_is_no_port_or_no_service_is_refused(words: list[str]) -> None:
    with pytest.raises(getopt.UsageError):
        getopt.parse(FORWARD, words)
