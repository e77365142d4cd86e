from __future__ import annotations

import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6

from doorward.client import raw
from doorward.client.address import Endpoint
from doorward.client.profile import USER_AGENT, Carrier, HostPort, Profile
from doorward.client.send import http_request, send, unsent
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator

PAYLOAD = b"ab+/" * 40
V4, V6 = Endpoint(ipaddress.ip_address("127.0.0.1"), 62201), Endpoint(ipaddress.ip_address("::1"), 62201)


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.create_server(
        (request.param, 0), family=socket.AF_INET6 if ":" in request.param else socket.AF_INET
    ) as made:
        made.settimeout(10)
        yield made


def endpoint(listener: socket.socket) -> Endpoint:
    host, port, *_ = listener.getsockname()
    return Endpoint(ipaddress.ip_address(host), port)


def received(listener: socket.socket) -> bytes:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10)
        content = b""
        while chunk := connection.recv(4096):
            content += chunk
        return content


def test_over_tcp_the_payload_is_all_there_is(listener: socket.socket) -> None:
    assert send(PAYLOAD, endpoint(listener), Profile(carrier=Carrier.TCP)) == len(PAYLOAD)
    assert received(listener) == PAYLOAD


def test_over_tcp_the_source_port_can_be_named(listener: socket.socket) -> None:
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    send(PAYLOAD, endpoint(listener), Profile(carrier=Carrier.TCP, source_port=port))
    connection, client = listener.accept()
    connection.close()
    assert client[1] == port


def test_over_http_it_is_fwknops_request(listener: socket.socket) -> None:
    send(PAYLOAD, endpoint(listener), Profile(carrier=Carrier.HTTP, server="web1"))
    path = "ab-_" * 40
    assert received(listener).decode() == (
        f"GET /{path} HTTP/1.1\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nHost: web1\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(("server", "shown"), [("web1", "web1"), ("2001:db8::1", "[2001:db8::1]")])
def test_through_a_proxy_the_request_names_the_server_and_the_host_is_the_proxy(server: str, shown: str) -> None:
    sent = http_request(b"ab", Profile(carrier=Carrier.HTTP, server=server, http_proxy=HostPort("px"), user_agent="me"))
    assert sent.decode().split("\r\n")[:4] == [
        f"GET http://{shown}/ab HTTP/1.1",
        "User-Agent: me",
        "Accept: */*",
        "Host: px",
    ]


def test_a_proxy_is_given_the_time_to_pass_the_request_on(listener: socket.socket) -> None:
    gone: list[bytes] = []

    def pass_on() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.settimeout(0)
            try:
                gone.append(connection.recv(1))  # an end of file: the client went away
            except BlockingIOError:
                gone.append(b"still there")
            connection.settimeout(10)
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    thread = threading.Thread(target=pass_on)
    thread.start()
    send(PAYLOAD, endpoint(listener), Profile(carrier=Carrier.HTTP, server="web1", http_proxy=HostPort("px")))
    thread.join()
    assert gone == [b"still there"]


@pytest.mark.parametrize("carrier", [Carrier.TCP, Carrier.HTTP])
def test_nobody_there_is_an_error(carrier: Carrier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        send(PAYLOAD, V4._replace(port=port), Profile(carrier=carrier))


@pytest.mark.parametrize(
    ("error", "profile", "told"),
    [
        (
            TimeoutError("timed out"),
            Profile(carrier=Carrier.TCP, server="web1"),
            "web1 (127.0.0.1) port 62201 over tcp: no answer within 5 s; -P tcp needs a server there",
        ),
        (
            TimeoutError("timed out"),
            Profile(carrier=Carrier.HTTP, http_proxy=HostPort("px")),
            "the proxy px (127.0.0.1) port 62201 over http: no answer within 5 s",
        ),
        (
            OSError(1, "Operation not permitted"),
            Profile(server="127.0.0.1"),
            "127.0.0.1 port 62201 over udp: Operation not permitted: this machine's own",
        ),
        (
            OSError(101, "Network is unreachable"),
            Profile(carrier=Carrier.ICMP),
            "127.0.0.1 over icmp: Network is unreachable",
        ),
    ],
)
def test_what_could_not_be_sent_is_told_with_where_it_was_to_go(error: OSError, profile: Profile, told: str) -> None:
    assert unsent(error, V4, profile).startswith(told)


@pytest.mark.parametrize("to", [V4, V6])
@pytest.mark.parametrize("carrier", [Carrier.UDPRAW, Carrier.TCPRAW])
def test_headers_of_our_own_making_are_fwknops(carrier: Carrier, to: Endpoint) -> None:
    content = raw.packet(PAYLOAD, to, Profile(carrier=carrier, source_port=1234))
    network = IP(content) if to is V4 else IPv6(content)
    assert (network.ttl if to is V4 else network.hlim) == 255
    carried = network.payload
    assert isinstance(carried, UDP if carrier is Carrier.UDPRAW else TCP)
    assert (carried.sport, carried.dport, bytes(carried.payload)) == (1234, 62201, PAYLOAD)
    if carrier is Carrier.TCPRAW:
        assert (carried.flags, carried.seq, carried.window) == ("S", 1, 32767)
    assert sums_are_right(network)


@pytest.mark.parametrize(
    ("kind", "code", "in_v4", "in_v6"),
    [(None, 0, 0, ICMPv6EchoReply), (0, 0, 0, ICMPv6EchoReply), (8, 0, 8, ICMPv6EchoRequest), (40, 15, 40, None)],
)
@pytest.mark.parametrize("to", [V4, V6])
def test_icmp_carries_the_payload_behind_its_eight_bytes(
    to: Endpoint, kind: int | None, code: int, in_v4: int, in_v6: type | None
) -> None:
    content = raw.packet(PAYLOAD, to, Profile(carrier=Carrier.ICMP, icmp_type=kind, icmp_code=code))
    network = IP(content) if to is V4 else IPv6(content)
    assert bytes(network.payload)[1] == code
    assert bytes(network.payload)[8:] == PAYLOAD
    assert in_v6 is None or to is V4 or isinstance(network.payload, in_v6)
    assert to is V6 or (isinstance(network.payload, ICMP) and network.payload.type == in_v4)
    sequence = int.from_bytes(bytes(network.payload)[6:8], "big")
    assert sequence == (1 if kind == 8 else 0)
    assert sums_are_right(network)


def sums_are_right(network: Any) -> bool:
    """Say whether scapy would have computed the same checksums."""
    again = network.copy()
    for layer in (again, again.payload):
        for name in ("chksum", "cksum"):
            if name in layer.fields:
                del layer.fields[name]
    return bytes(again) == bytes(network)


def test_a_spoofed_source_stands_in_the_header() -> None:
    spoofed = ipaddress.ip_address("198.51.100.7")
    assert IP(raw.packet(PAYLOAD, V4, Profile(carrier=Carrier.UDPRAW, spoofed=spoofed))).src == "198.51.100.7"
    assert IP(raw.packet(PAYLOAD, V4, Profile(carrier=Carrier.UDPRAW))).src == "127.0.0.1"


def test_a_spoofed_source_is_of_the_hosts_family() -> None:
    with pytest.raises(ClientError, match="cannot be the source"):
        raw.send(PAYLOAD, V6, Profile(carrier=Carrier.UDPRAW, spoofed=ipaddress.ip_address("198.51.100.7")))


def test_a_machine_without_scapy_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scapy.layers", None)
    with pytest.raises(ClientError, match="python3-scapy"):
        raw.packet(PAYLOAD, V4, Profile(carrier=Carrier.UDPRAW))
