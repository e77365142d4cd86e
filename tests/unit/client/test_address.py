from __future__ import annotations

import ipaddress
import socket
import threading

import pytest

from doorward.client.address import Endpoint, Here, fits, from_here, own_address, plausible, resolve
from doorward.errors import ClientError


@pytest.mark.parametrize(
    ("own", "host", "can_be_right"),
    [
        ("198.51.100.4", "8.8.8.8", False),
        ("9.9.9.9", "8.8.8.8", True),
        ("10.0.0.4", "10.0.0.5", True),
        ("10.0.0.4", "8.8.8.8", False),
        ("192.168.1.4", "8.8.8.8", False),
        ("100.64.0.4", "8.8.8.8", False),
        ("9.9.9.9", "10.0.0.5", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("fd77::2", "fd77::1", True),
        ("fd77::2", "2600::1", False),
        ("2600::2", "2600::1", True),
        ("fe80::2", "fe80::1", False),
        ("::1", "::1", False),
        ("2600::2", "64:ff9b::808:808", False),
    ],
)
def test_the_own_address_can_be_right_unless_a_host_cannot_see_it_or_no_message_can_say_it(
    own: str, host: str, *, can_be_right: bool
) -> None:
    assert fits(ipaddress.ip_address(own), ipaddress.ip_address(host)) is can_be_right


@pytest.mark.parametrize(
    ("found", "host", "can_be_right"),
    [
        ("9.9.9.9", "8.8.8.8", True),
        ("10.0.0.4", "8.8.8.8", False),
        ("10.0.0.4", "10.0.0.5", True),
        ("9.9.9.9", "10.0.0.5", True),
        ("2600::2", "2600::1", True),
        ("fd77::2", "2600::1", False),
        ("9.9.9.9", "2600::1", False),
        ("2600::2", "8.8.8.8", False),
        ("9.9.9.9", "64:ff9b::808:808", True),
        ("10.0.0.4", "64:ff9b::808:808", False),
        *((odd, "10.0.0.5", False) for odd in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.0.1")),  # noqa: S104  nothing is bound
        *((odd, "fd77::1", False) for odd in ("::", "::1", "ff02::1", "fe80::2", "::ffff:9.9.9.9")),
    ],
)
def test_an_address_that_others_told_counts_only_where_the_host_can_see_it(
    found: str, host: str, *, can_be_right: bool
) -> None:
    assert plausible(ipaddress.ip_address(found), ipaddress.ip_address(host)) is can_be_right


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


def test_a_connection_begins_at_the_end_that_is_named() -> None:
    towards = Endpoint(ipaddress.ip_address("127.0.0.1"), 9)
    (bound,) = from_here((towards,), "127.0.0.7", None, 1)
    assert str(own_address(bound)) == "127.0.0.7"
    assert str(own_address(towards)) == "127.0.0.1"
    with bound.open(socket.SOCK_STREAM) as made:
        assert made.getsockname()[0] == "127.0.0.7"


def test_only_what_the_end_can_reach_is_left() -> None:
    both = (Endpoint(ipaddress.ip_address("::1"), 9), Endpoint(ipaddress.ip_address("127.0.0.1"), 9))
    assert [each.host.version for each in from_here(both, "127.0.0.7", None, 1)] == [4]
    assert [each.host.version for each in from_here(both, "::1", None, 1)] == [6]
    assert from_here(both, None, None, 1) == both
    assert {each.here for each in from_here(both, None, "lo", 1)} == {Here(None, "lo")}
    with pytest.raises(ClientError, match="one is IPv4, the other IPv6"):
        from_here(both[:1], "127.0.0.7", None, 1)


def test_an_end_that_this_machine_does_not_have_is_told() -> None:
    (bound,) = from_here((Endpoint(ipaddress.ip_address("127.0.0.1"), 9),), "192.0.2.77", "nowhere0", 1)
    with pytest.raises(OSError, match=r"this machine's end, 192\.0\.2\.77 on nowhere0: "):
        own_address(bound)
    with pytest.raises(OSError, match=r"this machine's end, 192\.0\.2\.77: "):
        own_address(bound._replace(here=Here(bound.here.address)))


def test_a_system_that_binds_to_no_interface_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_BINDTODEVICE", raising=False)
    (bound,) = from_here((Endpoint(ipaddress.ip_address("127.0.0.1"), 9),), None, "lo", 1)
    with pytest.raises(OSError, match="binds no connection to an interface"):
        own_address(bound)
