from __future__ import annotations

import ipaddress
import socket
import threading

import pytest

from doorward.client.address import Endpoint, own_address, resolve, source_to_ask
from doorward.config.profile import SourceRule
from doorward.errors import ClientError


@pytest.mark.parametrize(
    ("own", "host", "asked"),
    [
        ("198.51.100.4", "8.8.8.8", ""),
        ("9.9.9.9", "8.8.8.8", "9.9.9.9"),
        ("10.0.0.4", "10.0.0.5", "10.0.0.4"),
        ("10.0.0.4", "8.8.8.8", ""),
        ("192.168.1.4", "8.8.8.8", ""),
        ("100.64.0.4", "8.8.8.8", ""),
        ("9.9.9.9", "10.0.0.5", "9.9.9.9"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("fd77::2", "fd77::1", "fd77::2"),
        ("fd77::2", "2600::1", ""),
        ("2600::2", "2600::1", "2600::2"),
        ("fe80::2", "fe80::1", ""),
        ("::1", "::1", ""),
    ],
)
def test_the_automatic_source_is_the_own_address_unless_only_the_origin_can_be_right(
    own: str, host: str, asked: str
) -> None:
    found = source_to_ask(SourceRule.AUTO, ipaddress.ip_address(own), ipaddress.ip_address(host))
    assert found == (ipaddress.ip_address(asked) if asked else None)


def test_packet_is_always_the_origin_and_an_address_always_itself() -> None:
    own, host, third = map(ipaddress.ip_address, ("9.9.9.9", "8.8.8.8", "192.0.2.1"))
    assert source_to_ask(SourceRule.PACKET, own, host) is None
    assert source_to_ask(third, own, host) == third


@pytest.mark.parametrize(
    ("text", "meant"), [("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("::ffff:192.0.2.1", "192.0.2.1")]
)
def test_an_address_resolves_to_itself_and_a_mapped_one_to_what_it_means(text: str, meant: str) -> None:
    assert resolve(text, 22) == (Endpoint(ipaddress.ip_address(meant), 22),)


def test_a_link_local_address_keeps_its_interface() -> None:
    (found,) = resolve("fe80::1%lo", 22)
    assert found.sockaddr == ("fe80::1", 22, 0, socket.if_nametoindex("lo"))


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 300, "a..b"])
def test_a_name_without_an_address_is_told(name: str) -> None:
    with pytest.raises(ClientError, match=f"^{name}"):
        resolve(name, 22)


def test_a_resolver_that_never_answers_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [] if silent.wait() else None)
    with pytest.raises(ClientError, match="not resolved within 0 s"):
        resolve("no-such-host.invalid", 22, seconds=0)
    silent.set()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_own_address_towards_this_machine_is_the_loopback(host: str) -> None:
    assert str(own_address(Endpoint(ipaddress.ip_address(host), 9))) == host
