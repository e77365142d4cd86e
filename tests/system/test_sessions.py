"""What a grant leaves behind when it ends: no SYN without a knock, and sessions that root can end."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from doorward.firewall import ruleset
from doorward.values import Protocol, Service
from system.doorwardd import environment, eventually, listener
from system.netns import namespace
from unit.collection.test_firewall_table import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from system.netns import Namespace

TCP_REPAIR = 19
PORT = 40123
GRANT = "timeout 60s"


def tables() -> dict[str, Callable[[], str]]:
    """Every table text that closes tcp/22."""
    return {
        "drop": render,
        "the role's guard": lambda: render(doorward_firewall_mode="guard", firewall_services=["tcp/22", "udp/7777"]),
        "after a failure": lambda: render(firewall_failure=True),
        "guard": lambda: ruleset.guard([Service(Protocol.TCP, 22), Service(Protocol.UDP, 7777)]),
    }


def dial(client: Namespace, address: str, port: int, within: float = 1.0) -> socket.socket | None:
    """A connection from PORT, or None where nobody answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.inside():
        dialler = socket.socket(family, socket.SOCK_STREAM)
    dialler.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    dialler.bind(("", PORT))
    dialler.settimeout(within)
    try:
        dialler.connect((address, port))
    except TimeoutError:
        dialler.close()
        return None
    return dialler


def forget(connection: socket.socket) -> None:
    """Close one end without a word to the other (TCP_REPAIR): the port is free for another connection."""
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    connection.close()


def end_by_the_server(server: Namespace, accepting: socket.socket, connection: socket.socket) -> None:
    """Let the server close, and wait until it has forgotten; the client acknowledges, and sends no FIN."""
    accepted, _ = accepting.accept()
    accepted.close()
    assert connection.recv(1) == b""
    waiting = ("ss", "-Htan", "state", "connected")  # FIN-WAIT-1 and FIN-WAIT-2, then nothing
    assert eventually(lambda: server.run(*waiting).stdout == "", within=10)
    forget(connection)


def knows_the_connection(host: Namespace, family: str) -> bool:
    """Whether connection tracking still has it."""
    return f"sport={PORT}" in host.run("conntrack", "-L", "-f", family, "-p", "tcp").stdout


@pytest.mark.parametrize("name", list(tables()))
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_syn_is_no_part_of_an_established_connection(
    pair: tuple[Namespace, Namespace], name: str, family: str
) -> None:
    host, client = pair
    source, target = getattr(client, family), getattr(host, family)
    host.run("sysctl", "-q", "-w", "net.ipv4.tcp_fin_timeout=1")
    host.nft(tables()[name]())
    version = "6" if family == "ipv6" else "4"
    host.nft(f"add element inet doorward open{version} {{ {source} . 6 . 22 {GRANT} }}")
    with listener(host) as accepting:
        connection = dial(client, target, 22)
        assert connection is not None, "the window is open"
        end_by_the_server(host, accepting, connection)
        host.nft(f"flush set inet doorward open{version}")
        assert (
            "ESTABLISHED" in host.run("conntrack", "-L", "-f", family).stdout
            or host.run("conntrack", "-L", "-f", family, "-p", "tcp", "--dport", "22").stdout
        ), "connection tracking must still know the connection"
        assert dial(client, target, 22) is None


STATES = ("SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT")


def remember(host: Namespace, client: Namespace, family: str, state: str) -> None:
    """Put a connection from PORT to port 22 into connection tracking, as one that a grant has left behind."""
    ways = ("-s", getattr(client, family), "-d", getattr(host, family), "--sport", str(PORT), "--dport", "22")
    seen = () if state == "SYN_SENT" else ("-u", "SEEN_REPLY,ASSURED")
    host.run("conntrack", "-I", "-p", "tcp", *ways, "--state", state, "--timeout", "60", *seen)


@pytest.mark.parametrize("name", list(tables()))
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_syn_gets_in_under_no_old_connection_whatever_its_state_is(
    pair: tuple[Namespace, Namespace], name: str, family: str
) -> None:
    host, client = pair
    source, version = getattr(client, family), "6" if family == "ipv6" else "4"
    host.nft(tables()[name]())
    got_in = {}
    with listener(host):
        for state in STATES:
            host.run("conntrack", "-F")
            remember(host, client, family, state)
            assert knows_the_connection(host, family)
            reached = dial(client, getattr(host, family), 22, within=0.2)
            got_in[state] = reached is not None
        host.run("conntrack", "-F")
        host.nft(f"add element inet doorward open{version} {{ {source} . 6 . 22 {GRANT} }}")
        connection = dial(client, getattr(host, family), 22)
        assert connection is not None, "a grant lets the same port in"
        forget(connection)
    assert [state for state, so in got_in.items() if so] == []


def test_without_the_rule_about_syns_an_old_connection_would_let_one_in(pair: tuple[Namespace, Namespace]) -> None:
    host, client = pair
    text = tables()["guard"]()
    assert ruleset.ESTABLISHED in text
    host.nft(text.replace(ruleset.ESTABLISHED, "        ct state established accept\n"))
    remember(host, client, "ipv4", "ESTABLISHED")
    with listener(host):
        connection = dial(client, host.ipv4, 22)
        assert connection is not None
        forget(connection)


@pytest.mark.parametrize("name", list(tables()))
def test_a_port_used_again_within_the_window_gets_in(pair: tuple[Namespace, Namespace], name: str) -> None:
    host, client = pair
    host.run("sysctl", "-q", "-w", "net.ipv4.tcp_fin_timeout=1")
    host.nft(tables()[name]())
    host.nft(f"add element inet doorward open4 {{ {client.ipv4} . 6 . 22 {GRANT} }}")
    with listener(host) as accepting:
        for _ in range(3):
            connection = dial(client, host.ipv4, 22)
            assert connection is not None
            end_by_the_server(host, accepting, connection)


@contextlib.contextmanager
def behind(gateway: Namespace, client: Namespace) -> Iterator[Namespace]:
    """A host behind a gateway."""
    with namespace("inside", 9) as inside:
        gateway.run("ip", "link", "add", "inner", "type", "veth", "peer", "name", "eth0", "netns", inside.name)
        for member, device, last in ((gateway, "inner", 1), (inside, "eth0", 9)):
            member.run("ip", "addr", "add", f"10.88.0.{last}/24", "dev", device)
            member.run("ip", "link", "set", device, "up")
        inside.run("ip", "route", "add", "default", "via", "10.88.0.1")
        client.run("ip", "route", "add", "10.88.0.0/24", "via", gateway.ipv4)
        gateway.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        yield inside


@pytest.mark.parametrize("mode", ["drop", "guard"])
@pytest.mark.parametrize("led", [True, False], ids=["led there by a port of the gateway", "asked for itself"])
def test_a_syn_is_not_forwarded_as_part_of_an_established_connection(
    pair: tuple[Namespace, Namespace],
    mode: str,
    led: bool,  # noqa: FBT001  a case
) -> None:
    gateway, client = pair
    with behind(gateway, client) as inside:
        inside.run("sysctl", "-q", "-w", "net.ipv4.tcp_fin_timeout=1")
        gateway.nft(
            render(doorward_firewall_mode=mode, doorward_firewall_nat=True, doorward_hidden_networks=["10.88.0.0/24"])
        )
        gateway.nft(f"add element inet doorward through4 {{ {client.ipv4} . 10.88.0.9 . 6 . 22 {GRANT} }}")
        gateway.nft(f"add element inet doorward lead4 {{ {client.ipv4} . 6 . 2222 {GRANT} : 10.88.0.9 . 22 }}")
        target, port = (gateway.ipv4, 2222) if led else ("10.88.0.9", 22)
        with listener(inside) as accepting:
            connection = dial(client, target, port)
            assert connection is not None, "the window is open"
            end_by_the_server(inside, accepting, connection)
            gateway.nft("flush set inet doorward through4; flush map inet doorward lead4")
            assert dial(client, target, port) is None


UDP = 7777
ECHO = """
import socket, sys
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(("::", 7777))
server.settimeout(0.02 if sys.argv[1] == "talks" else None)
peers = set()
print("ready", flush=True)
while True:
    try:
        content, peer = server.recvfrom(100)
        peers.add(peer)
        server.sendto(b"echo", peer)
    except TimeoutError:
        for peer in peers:
            try:
                server.sendto(b"hello", peer)
            except PermissionError:  # dropped by the table
                pass
"""


@contextlib.contextmanager
def served(host: Namespace, manner: str) -> Iterator[None]:
    """A UDP server that answers, and where it `talks` also sends on its own."""
    with host.process(sys.executable, "-c", ECHO, manner) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield


def is_heard(flow: socket.socket, seconds: float = 1.0) -> bool:
    """Whether the server answers something that is sent many times within the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            flow.send(b"busy")
            if flow.recv(100) == b"echo":
                return True
    return False


@contextlib.contextmanager
def sending(client: Namespace, address: str) -> Iterator[socket.socket]:
    """A UDP socket of the client's, always from the same port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.inside(), socket.socket(family, socket.SOCK_DGRAM) as flow:
        flow.bind(("", PORT))
        flow.connect((address, UDP))
        flow.settimeout(0.05)
        yield flow


def close(host: Namespace, folder: Path, *words: str) -> str:
    """Run `doorward close`."""
    argv = (sys.executable, "-m", "doorward", "close", "-r", str(folder), *words)
    return host.run(*argv, env=environment()).stdout.strip()


@pytest.mark.parametrize("manner", ["answers", "talks"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("name", ["drop", "the role's guard", "guard"])
def test_close_ends_a_udp_flow_that_is_kept_busy(
    pair: tuple[Namespace, Namespace], tmp_path: Path, name: str, family: str, manner: str
) -> None:
    host, client = pair
    source, target = getattr(client, family), getattr(host, family)
    version = "6" if family == "ipv6" else "4"
    grant = f"add element inet doorward open{version} {{ {source} . 17 . {UDP} {GRANT} }}"
    host.nft(tables()[name]())
    with served(host, manner), sending(client, target) as flow:
        host.nft(grant)
        assert is_heard(flow)
        host.nft(f"flush set inet doorward open{version}")
        assert is_heard(flow), "a flow outlives its grant"
        assert close(host, tmp_path, "--from", source) == f"closed 0 of {source}; ended: 1"
        drain(flow)
        assert not is_heard(flow)
        host.nft(grant)
        assert is_heard(flow), "another knock begins it again"
        host.nft(f"flush set inet doorward open{version}")
        assert is_heard(flow)
        assert close(host, tmp_path) == "all grants are closed; ended: 1"
        drain(flow)
        assert not is_heard(flow)


def drain(flow: socket.socket) -> None:
    """Take in what was on its way."""
    with contextlib.suppress(TimeoutError):
        while flow.recv(100):
            pass


def answers(connection: socket.socket) -> bool:
    """Whether a TCP connection still carries data both ways."""
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except (TimeoutError, ConnectionError):
        return False


ECHO_TCP = """
import socket, threading
def answer(connection):
    while content := connection.recv(100):
        connection.sendall(content)
def serve(server):
    while True:
        threading.Thread(target=answer, args=server.accept()[:1]).start()
servers = [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in (22, 2222)]
for server in servers:
    threading.Thread(target=serve, args=(server,)).start()
print("ready", flush=True)
"""


@contextlib.contextmanager
def accepting(host: Namespace) -> Iterator[None]:
    """A TCP server that says back what it is told, at ports 22 and 2222."""
    with host.process(sys.executable, "-c", ECHO_TCP, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("name", ["drop", "the role's guard", "guard"])
def test_close_ends_the_sessions_of_an_address_or_a_service_and_no_others(
    trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path, name: str, family: str
) -> None:
    host, client, other = trio
    target: str = getattr(host, family)
    host.nft(tables()[name]())
    host.nft(f"add element inet doorward open_any {{ 6 . 22 {GRANT}, 6 . 2222 {GRANT} }}")
    with (
        host.process(sys.executable, "-c", ECHO_TCP, stderr=subprocess.DEVNULL) as process,
        contextlib.ExitStack() as stack,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def connected(ns: Namespace, port: int) -> socket.socket:
            with ns.inside():
                return stack.enter_context(socket.create_connection((target, port), 1))

        ssh, shell, others = connected(client, 22), connected(client, 2222), connected(other, 22)
        assert close(host, tmp_path) == "all grants are closed"
        assert all(map(answers, (ssh, shell, others)))
        assert "ended: 1" in close(host, tmp_path, "--from", getattr(client, family), "--sessions", "tcp/22")
        assert [answers(one) for one in (ssh, shell, others)] == [False, True, True]
        assert "ended: 1" in close(host, tmp_path, "--from", getattr(client, family), "--sessions")
        assert [answers(one) for one in (ssh, shell, others)] == [False, False, True]
        assert "ended: 1" in close(host, tmp_path, "--sessions")
        assert not answers(others)


def test_close_ends_sessions_that_lead_through_a_gateway(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    gateway, client = pair
    with behind(gateway, client) as inside:
        gateway.nft(render(doorward_firewall_nat=True, doorward_hidden_networks=["10.88.0.0/24"]))
        gateway.nft(f"add element inet doorward through4 {{ {client.ipv4} . 10.88.0.9 . 6 . 22 {GRANT} }}")
        gateway.nft(f"add element inet doorward lead4 {{ {client.ipv4} . 6 . 2222 {GRANT} : 10.88.0.9 . 22 }}")
        with accepting(inside), client.inside(), socket.create_connection((gateway.ipv4, 2222), 1) as led:
            assert answers(led)
            assert "ended: 1" in close(gateway, tmp_path, "--sessions", "tcp/2222")
            assert not answers(led)


def test_close_leaves_what_the_host_itself_began(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    host.nft(render())
    with accepting(client), accepting(host), host.inside(), contextlib.ExitStack() as stack:
        targets = (client.ipv4, client.ipv6, "127.0.0.1", "::1", host.ipv4)
        own = [stack.enter_context(socket.create_connection((target, 22), 1)) for target in targets]
        for words in ((), ("tcp/22",)):
            assert close(host, tmp_path, "--sessions", *words) == "all grants are closed"
        assert all(map(answers, own))
