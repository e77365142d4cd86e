"""Containers as Docker sets them up: a bridge, two containers behind it, and the rules of dockerd.

The rules are those that dockerd 20.10 writes (iptables-save and ip6tables-save, with --ip6tables) for `docker run -p
8080:80 -p 7777:7777/udp`.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from system.doorwardd import eventually
from system.netns import namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

PUBLISHED, INNER, UDP = 8080, 80, 7777
WEB4, WEB6 = "172.17.0.2", "fd99::242:ac11:2"
_FILTER: Final = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d WEB ! -i docker0 -o docker0 -p udp -m udp --dport 7777 -j ACCEPT
-A DOCKER -d WEB ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
_NAT: Final = """\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d LOOPBACK -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s NETWORK ! -o docker0 -j MASQUERADE
-A POSTROUTING -s WEB -d WEB -p udp -m udp --dport 7777 -j MASQUERADE
-A POSTROUTING -s WEB -d WEB -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p udp -m udp --dport 7777 -j DNAT --to-destination INSIDE:7777
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination INSIDE:80
COMMIT
"""
_FAMILIES: Final = {
    "iptables": {"WEB": f"{WEB4}/32", "INSIDE": WEB4, "NETWORK": "172.17.0.0/16", "LOOPBACK": "127.0.0.0/8"},
    "ip6tables": {"WEB": f"{WEB6}/128", "INSIDE": f"[{WEB6}]", "NETWORK": "fd99::/64", "LOOPBACK": "::1/128"},
}
ECHO: Final = """
import socket, sys, threading
def answer(connection):
    while content := connection.recv(100):
        connection.sendall(content)
def serve(server):
    while True:
        threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()
def echo():
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", 7777))
    while True:
        content, peer = server.recvfrom(100)
        server.sendto(content, peer)
for port in map(int, sys.argv[1:]):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=serve, args=(server,)).start()
threading.Thread(target=echo).start()
print("ready", flush=True)
"""


@dataclass(frozen=True)
class Containers:
    """A container with a published service, and another one on the same bridge."""

    web: Namespace
    other: Namespace


@contextlib.contextmanager
def serving(where: Namespace, *ports: int) -> Iterator[None]:
    """Servers that say back what they are told: TCP at `ports`, UDP at 7777."""
    argv = (sys.executable, "-c", ECHO, *map(str, ports))
    with where.process(*argv, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield


def _answers(host: Namespace, container: Namespace) -> bool:
    places = {2: (WEB4, WEB6), 3: ("172.17.0.3", "fd99::242:ac11:3")}[container.number]
    return not any(host.run("ping", "-c1", "-W1", place, check=False).returncode for place in places)


@contextlib.contextmanager
def containers(host: Namespace) -> Iterator[Containers]:
    """Two containers behind docker0, and a server in the first; no rules."""
    host.run("ip", "link", "add", "docker0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0")
    for address in ("172.17.0.1/16", "fd99::1/64"):
        host.run("ip", "addr", "add", address, "dev", "docker0", *(["nodad"] if ":" in address else []))
    host.run("ip", "link", "set", "docker0", "up")
    host.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    with namespace("web", 2) as web, namespace("other", 3) as other:
        _plug(host, web, WEB4, WEB6)
        _plug(host, other, "172.17.0.3", "fd99::242:ac11:3")
        assert eventually(lambda: all(map(functools.partial(_answers, host), (web, other))))
        with serving(web, INNER):
            yield Containers(web, other)


def _plug(host: Namespace, container: Namespace, ipv4: str, ipv6: str) -> None:
    veth = f"veth{container.number}"
    host.run("ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", container.name)
    host.run("ip", "link", "set", veth, "master", "docker0", "up")
    container.run("ip", "addr", "add", f"{ipv4}/16", "dev", "eth0")
    container.run("ip", "addr", "add", f"{ipv6}/64", "dev", "eth0", "nodad")
    container.run("ip", "link", "set", "eth0", "up")
    container.run("ip", "route", "add", "default", "via", "172.17.0.1")
    container.run("ip", "route", "add", "default", "via", "fd99::1")


def publish(host: Namespace, flavour: str) -> None:
    """Load Docker's rules by iptables-nft or iptables-legacy."""
    for program, words in _FAMILIES.items():
        text = _FILTER + _NAT
        for word, stands_for in words.items():
            text = text.replace(word, stands_for)
        host.run(f"{program}-{flavour}-restore", input=text)
