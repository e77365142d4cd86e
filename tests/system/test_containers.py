"""Ports that other programs forward, to containers or other ports: services of the host as those of its sockets."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from doorward.firewall import ruleset
from doorward.values import Protocol, Service
from system.containers import INNER, PUBLISHED, UDP, WEB4, WEB6, containers, publish, serving
from system.doorwardd import HMAC_KEY, KEY, doorwardd, environment, eventually, listener, send
from system.test_sessions import dial, drain, end_by_the_server, is_heard, sending
from unit.collection.test_firewall_table import render
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from system.containers import Containers
    from system.netns import Namespace

ACCESS = f"SOURCE ANY\n{KEY}\n{HMAC_KEY}\nOPEN_PORTS tcp/{PUBLISHED}, udp/{UDP}\nREQUIRE_SOURCE_ADDRESS N\n"
SERVICES = [f"tcp/{PUBLISHED}", f"udp/{UDP}"]
GRANT = "timeout 60s"


def tables() -> dict[str, Callable[[], str]]:
    """Every table text that closes the published ports."""
    return {
        "drop": render,
        "the role's guard": lambda: render(doorward_firewall_mode="guard", firewall_services=SERVICES),
        "after a failure": lambda: render(firewall_failure=True),
        "guard": lambda: ruleset.guard([Service.parse(one) for one in SERVICES]),
    }


def talks(client: Namespace, address: str, port: int = PUBLISHED, within: float = 0.4) -> bool:
    """Whether a TCP server answers."""
    try:
        with client.inside(), socket.create_connection((address, port), within) as connection:
            return says_back(connection)
    except OSError:
        return False


def says_back(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except OSError:
        return False


def echoes(client: Namespace, address: str, port: int = UDP) -> bool:
    """Whether a UDP server answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.inside(), socket.socket(family, socket.SOCK_DGRAM) as flow:
        flow.connect((address, port))
        flow.settimeout(0.4)
        return says_back(flow)


def addresses(host: Namespace) -> tuple[str, str]:
    return host.ipv4, host.ipv6


def reached(client: Namespace, host: Namespace) -> list[bool]:
    """Whether the published services answer: TCP and UDP, IPv4 and IPv6."""
    probes = [(probe, address) for address in addresses(host) for probe in (talks, echoes)]
    with ThreadPoolExecutor() as threads:  # each probe waits in vain where all is well
        return list(threads.map(lambda one: one[0](client, one[1]), probes))


ALL, NONE = [True] * 4, [False] * 4


def knock(client: Namespace, host: Namespace, services: str = ",".join(SERVICES)) -> None:
    for address in addresses(host):
        send(client, payload(message(text=f"0.0.0.0,{services}", time=int(time.time())), KEYS), address)


def close(host: Namespace, folder: Path, *words: str) -> str:
    argv = (sys.executable, "-m", "doorward", "close", "-r", str(folder / "run"), *words)
    return host.run(*argv, env=environment()).stdout.strip()


def inner_traffic(host: Namespace, inside: Containers, outsider: Namespace) -> dict[str, bool]:
    """What the containers and the host do among themselves, and towards the internet."""
    with serving(outsider, 443):
        return {
            "container to internet": talks(inside.web, outsider.ipv4, 443) and talks(inside.web, outsider.ipv6, 443),
            "container to container": talks(inside.other, WEB4, INNER) and talks(inside.other, WEB6, INNER),
            "host to container": talks(host, WEB4, INNER) and talks(host, WEB6, INNER),
            "host to its own published port": talks(host, host.ipv4) and talks(host, host.ipv6),
        }


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
@pytest.mark.parametrize("mode", ["guard", "drop"])
def test_a_published_port_is_closed_until_a_knock_opens_it(
    trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path, flavour: str, mode: str
) -> None:
    host, client, outsider = trio
    with containers(host) as inside:
        publish(host, flavour)
        assert reached(outsider, host) == ALL, "without doorwardd it is open"
        if mode == "drop":
            (tmp_path / "firewall.nft").write_text(render())
        with doorwardd(host, tmp_path, ACCESS + "FW_ACCESS_TIMEOUT 3\n", "FIREWALL_MODE guard\n") as running:
            assert reached(outsider, host) == reached(client, host) == NONE
            assert all(inner_traffic(host, inside, outsider).values())
            knock(client, host)
            running.wait_for("reason=granted", 2)
            assert reached(client, host) == ALL
            assert reached(outsider, host) == NONE
            with client.inside():
                sessions = [socket.create_connection((address, PUBLISHED), 1) for address in addresses(host)]
            assert eventually(lambda: not talks(client, host.ipv4) and not talks(client, host.ipv6), within=8)
            assert reached(client, host) == NONE
            assert all(map(says_back, sessions)), "sessions outlive the grant"
            assert "ended: " in close(host, tmp_path, "--from", client.ipv4, "--sessions", f"tcp/{PUBLISHED}")
            assert list(map(says_back, sessions)) == [False, True]
            for session in sessions:
                session.close()


@contextlib.contextmanager
def published(host: Namespace, text: str) -> Iterator[Containers]:
    """Containers with published ports, and a table."""
    with containers(host) as inside:
        publish(host, "nft")
        host.nft(text)
        yield inside


def let_in(host: Namespace, client: Namespace, name: str, service: str, at: str = "") -> None:
    """Add a grant to a set, for both families."""
    for family, source, place in (("4", client.ipv4, host.ipv4), ("6", client.ipv6, host.ipv6)):
        key = f"{source} . {place} . {service}" if at else f"{source} . {service}"
        host.nft(f"add element inet doorward {name}{family} {{ {key} {GRANT} }}")


@pytest.mark.parametrize("name", list(tables()))
def test_a_grant_names_the_port_that_is_dialled(trio: tuple[Namespace, Namespace, Namespace], name: str) -> None:
    host, client, outsider = trio
    with published(host, tables()[name]()) as inside:
        let_in(host, client, "open", f"6 . {INNER}")
        assert reached(client, host) == NONE, "the container's own port is none of the host's"
        let_in(host, client, "open", f"6 . {PUBLISHED}")
        assert reached(client, host) == [True, False, True, False]
        let_in(host, client, "open_at", f"17 . {UDP}", at="host")
        assert reached(client, host) == ALL
        assert reached(outsider, host) == NONE
        assert all(inner_traffic(host, inside, outsider).values())
        host.nft(f"add element inet doorward open_any {{ 6 . {PUBLISHED} {GRANT} }}")
        assert reached(outsider, host) == [True, False, True, False]


def test_a_public_service_and_a_fallback_source_need_no_knock(trio: tuple[Namespace, Namespace, Namespace]) -> None:
    host, client, outsider = trio
    text = render(
        doorward_public_services=[f"tcp/{PUBLISHED}"], doorward_fallback_sources=[f"{client.ipv4}/32", client.ipv6]
    )
    with published(host, text):
        assert reached(outsider, host) == [True, False, True, False]
        assert reached(client, host) == ALL


def test_what_guard_does_not_name_stays_open(pair: tuple[Namespace, Namespace]) -> None:
    host, client = pair
    with published(host, ruleset.guard([Service(Protocol.UDP, UDP)])):
        assert reached(client, host) == [True, False, True, False]


def redirect(host: Namespace, rule: str) -> None:
    """DNAT of another program, without a word about the address that was dialled."""
    host.nft(f"table inet other {{ chain pre {{ type nat hook prerouting priority dstnat; {rule}; }}; }}")


@pytest.mark.parametrize("name", list(tables()))
def test_a_port_that_is_redirected_on_the_host_is_closed_under_both_numbers(
    pair: tuple[Namespace, Namespace], name: str
) -> None:
    host, client = pair
    redirect(host, f"tcp dport {PUBLISHED} redirect to :22; tcp dport 9999 redirect to :{PUBLISHED}")
    with serving(host, 22, PUBLISHED):
        both = [(address, port) for address in addresses(host) for port in (PUBLISHED, 9999)]
        assert all(talks(client, *one) for one in both)
        host.nft(tables()[name]())
        assert not any(talks(client, *one) for one in both)
        let_in(host, client, "open", f"6 . {PUBLISHED}")
        assert all(talks(client, *one) for one in both)


@pytest.mark.parametrize("name", ["drop", "after a failure"])
def test_drop_closes_whatever_is_led_in(trio: tuple[Namespace, Namespace, Namespace], name: str) -> None:
    host, client, outsider = trio
    host.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    lead = f"dnat ip to {outsider.ipv4}; meta l4proto {{ 1, 6, 17 }} dnat ip6 to {outsider.ipv6}"
    redirect(host, f"ip daddr {host.ipv4} {lead}")
    host.nft("table inet back { chain post { type nat hook postrouting priority srcnat; masquerade; }; }")
    host.run("sysctl", "-q", "-w", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0")
    with serving(outsider, 22):
        before = reached_at_all(client, host)
        assert before == ALL, "a host of the same link answers in its name"
        host.nft(render(firewall_failure=name != "drop"))
        assert reached_at_all(client, host) == NONE


def reached_at_all(client: Namespace, host: Namespace) -> list[bool]:
    """Whether TCP over both families, UDP and ICMP are answered."""
    ping = client.run("ping", "-c1", "-W1", host.ipv4, check=False)
    tcp = [talks(client, address, 22) for address in addresses(host)]
    return [*tcp, echoes(client, host.ipv4), not ping.returncode]


@pytest.mark.parametrize("name", list(tables()))
def test_a_stranger_of_the_same_link_dials_another_address_in_vain(
    pair: tuple[Namespace, Namespace], name: str
) -> None:
    host, client = pair
    with containers(host):
        leads = [f"tcp dport {PUBLISHED} dnat {target}:{INNER}" for target in (f"ip to {WEB4}", f"ip6 to [{WEB6}]")]
        redirect(host, "; ".join(leads))
        places = {"198.51.100.7": host.ipv4, "2001:db8::7": host.ipv6, "172.17.0.9": host.ipv4, "fd77::": None}
        for place, way in places.items():
            if way:
                client.run("ip", "route", "add", place, "via", way)
        assert eventually(lambda: all(talks(client, place) for place in places))
        host.nft(tables()[name]())
        assert not any(talks(client, place) for place in places)


@pytest.mark.parametrize("name", list(tables()))
def test_a_container_dials_services_of_its_cluster(pair: tuple[Namespace, Namespace], name: str) -> None:
    host, _ = pair
    with published(host, tables()[name]()) as inside:
        redirect(host, f"ip daddr 10.96.0.1 tcp dport {PUBLISHED} dnat ip to {WEB4}:{INNER}")
        assert talks(inside.other, WEB4, INNER)
        host.nft("table ip pass { chain post { type nat hook postrouting priority srcnat; masquerade; }; }")
        assert talks(inside.other, "10.96.0.1")


@pytest.mark.parametrize("name", ["drop", "guard"])
def test_no_syn_passes_as_part_of_a_session_with_a_container(pair: tuple[Namespace, Namespace], name: str) -> None:
    host, client = pair
    with published(host, tables()[name]()) as inside:
        inside.web.run("sysctl", "-q", "-w", "net.ipv4.tcp_fin_timeout=1")
        host.nft(f"add element inet doorward open4 {{ {client.ipv4} . 6 . {PUBLISHED} {GRANT} }}")
        with listener(inside.web, 81) as accepting:
            host.nft(f"insert rule ip nat DOCKER tcp dport {PUBLISHED} dnat to {WEB4}:81")
            host.nft("insert rule ip filter FORWARD ip daddr 172.17.0.2 tcp dport 81 accept")
            connection = dial(client, host.ipv4, PUBLISHED)
            assert connection is not None, "the window is open"
            end_by_the_server(inside.web, accepting, connection)
            host.nft("flush set inet doorward open4")
            assert f"dport={PUBLISHED}" in host.run("conntrack", "-L", "-p", "tcp").stdout, "it is still known"
            assert dial(client, host.ipv4, PUBLISHED) is None


TALKER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 7777))
server.settimeout(0.02)
peer = None
print("ready", flush=True)
while True:
    try:
        content, peer = server.recvfrom(100)
        server.sendto(b"echo", peer)
    except TimeoutError:
        if peer:
            server.sendto(b"hello", peer)
"""


@pytest.mark.parametrize("name", ["drop", "the role's guard", "guard"])
def test_close_ends_a_udp_flow_that_a_container_keeps_up(
    pair: tuple[Namespace, Namespace], tmp_path: Path, name: str
) -> None:
    host, client = pair
    with published(host, tables()[name]()) as inside:
        host.nft(f"insert rule ip nat DOCKER udp dport {UDP} dnat to 172.17.0.3:{UDP}")
        host.nft(f"insert rule ip filter FORWARD ip daddr 172.17.0.3 udp dport {UDP} accept")
        grant = f"add element inet doorward open4 {{ {client.ipv4} . 17 . {UDP} {GRANT} }}"
        with inside.other.process(sys.executable, "-c", TALKER) as process, sending(client, host.ipv4) as flow:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            host.nft(grant)
            assert eventually(lambda: is_heard(flow))
            host.nft("flush set inet doorward open4")
            assert is_heard(flow), "a flow outlives its grant"
            assert "ended: " in close(host, tmp_path, "--from", client.ipv4)
            drain(flow)
            assert not is_heard(flow)
            host.nft(grant)
            assert is_heard(flow), "another knock begins it again"
