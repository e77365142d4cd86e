"""What leaves a hidden host: nothing towards one who was not let in, and path MTUs of those who were."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import provoke
from system.netns import namespace, network
from unit.collection.test_firewall_table import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

PROGRAM = Path(provoke.__file__)
BEHIND = ("10.88.0.9", "fd88::9")
"""Nobody's addresses in the network behind a gateway."""
SMALL = 1300
UPLOAD = 200_000
QUICK = (  # seconds for which fragments are kept, where the kernel's are 30 and 60
    "net.ipv4.ipfrag_time=2",
    "net.ipv6.ip6frag_time=2",
    "net.ipv4.icmp_ratemask=0",
    "net.ipv6.icmp.ratemask=",
)
FORWARDING = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def answers(outsider: Namespace, *hosts: Namespace, behind: tuple[str, ...] = ()) -> list[dict[str, int]]:
    """How many packets of each kind came back from each host, IPv4 and IPv6."""
    targets = [address for host in hosts for address in (host.ipv4, host.ipv6)]
    beyond = [word for address in behind for word in ("--behind", address)]
    shown = outsider.run(sys.executable, "-I", str(PROGRAM), *targets, *beyond, "--wait", "6").stdout
    seen: dict[str, dict[str, int]] = json.loads(shown)
    return [{f"{family}: {kind}": n for family in ("ipv4", "ipv6") for kind, n in seen[getattr(host, family)].items()}
            for host in hosts]  # fmt: skip


def settle(host: Namespace, *settings: str) -> None:
    host.run("sysctl", "-q", "-w", *QUICK, *settings)


def close(host: Namespace, **variables: Any) -> None:
    """Give a host the table of the role, and short times to the fragments that its conntrack keeps."""
    host.nft(render(**variables))
    host.run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_frag6_timeout=2")


@pytest.mark.parametrize(
    "variables",
    [{}, {"doorward_public_services": ["udp/62201"]}, {"firewall_failure": True, "doorward_firewall_nat": True}],
    ids=["hidden", "with a server for knocks that crashed", "after a failure"],
)
def test_a_hidden_host_answers_nothing_that_an_open_one_answers(
    trio: tuple[Namespace, Namespace, Namespace], variables: dict[str, Any]
) -> None:
    hidden, opened, outsider = trio
    for host in (hidden, opened):
        settle(host, *FORWARDING)
    close(hidden, **variables)
    seen, witnessed = answers(outsider, hidden, opened)
    assert {kind: count for kind, count in seen.items() if count} == {}
    assert [kind for kind, count in witnessed.items() if not count] == []
    assert seen.keys() <= witnessed.keys()


@pytest.mark.parametrize(
    "variables",
    [{"doorward_hidden_networks": ["10.88.0.0/16", "fd88::/64"]}, {"doorward_hidden_from": ["eth0"]}],
    ids=["networks", "from an interface"],
)
def test_a_gateway_answers_nothing_to_those_it_hides_from(
    trio: tuple[Namespace, Namespace, Namespace], variables: dict[str, Any]
) -> None:
    hidden, opened, outsider = trio
    for host in (hidden, opened):
        settle(host, *FORWARDING)
        host.run("ip", "link", "add", "inner", "mtu", str(SMALL), "type", "veth", "peer", "name", "far")
        host.run("ip", "addr", "add", "10.88.0.1/24", "dev", "inner")
        host.run("ip", "addr", "add", "fd88::1/64", "dev", "inner", "nodad")
        host.run("ip", "link", "set", "inner", "up")
        host.run("ip", "link", "set", "far", "up")
    close(hidden, **variables)
    seen, witnessed = answers(outsider, hidden, opened, behind=BEHIND)
    assert {kind: count for kind, count in seen.items() if count} == {}
    assert [kind for kind, count in witnessed.items() if not count] == []


@contextlib.contextmanager
def routed(small: str) -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """A gateway, somebody outside and somebody inside; the gateway's link `small` takes 1300 bytes, theirs 1500."""
    with network("gateway", "outside") as (gateway, outside), namespace("inside", 9) as inside:
        peer = ("peer", "name", "eth0", "netns", inside.name)
        gateway.run("ip", "link", "add", "inner", "type", "veth", *peer)
        for member, device, last in ((gateway, "inner", 1), (inside, "eth0", 9)):
            member.run("ip", "addr", "add", f"10.88.0.{last}/24", "dev", device)
            member.run("ip", "addr", "add", f"fd88::{last}/64", "dev", device, "nodad")
            member.run("ip", "link", "set", device, "up")
        for member, four, six in ((inside, "10.88.0.1", "fd88::1"), (outside, gateway.ipv4, gateway.ipv6)):
            member.run("ip", "route", "add", "default", "via", four)
            member.run("ip", "-6", "route", "add", "default", "via", six)
        gateway.run("ip", "link", "set", small, "mtu", str(SMALL))
        settle(gateway, *FORWARDING)
        yield gateway, outside, inside


def arrives(sender: Namespace, receiver: Namespace, address: str) -> bool:
    """Whether an upload in packets of 1500 bytes is received, which a gateway between must say are too big."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.inside(), socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        server.settimeout(3)
        with sender.inside(), socket.socket(family, socket.SOCK_STREAM) as dialler:
            dialler.settimeout(3)
            dialler.connect((address, 7000))
            accepted, _ = server.accept()
            with accepted, contextlib.suppress(TimeoutError):
                accepted.settimeout(3)
                dialler.sendall(bytes(UPLOAD))
                left = UPLOAD
                while left and (content := accepted.recv(1 << 16)):
                    left -= len(content)
                return not left
    return False


@pytest.mark.parametrize("variables", [{}, {"doorward_hidden_networks": ["10.88.0.0/16", "fd88::/64"]}],
                         ids=["hiding nothing", "hiding its network"])  # fmt: skip
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_client_that_was_let_in_learns_the_path_mtu(variables: dict[str, Any], family: str) -> None:
    with routed("inner") as (gateway, outside, inside):
        close(gateway, doorward_firewall_nat=True, **variables)
        version, ip, target = ("6", "ip6", "fd88::9") if family == "ipv6" else ("4", "ip", "10.88.0.9")
        source = getattr(outside, family)
        gateway.nft(f"add element inet doorward through{version} {{ {source} . {target} . 6 . 7000 timeout 60s }}")
        assert arrives(outside, inside, target)
        gateway.nft(f"table {ip} x {{ chain y {{ type filter hook output priority 1; {BLOCKED}; }}; }}")
        outside.run("ip", "route", "flush", "cache", check=False)
        outside.run("ip", "-6", "route", "flush", "cache", check=False)
        assert not arrives(outside, inside, target), "without the gateway's errors the upload must not arrive"


BLOCKED = "meta l4proto { 1, 58 } drop"


@pytest.mark.parametrize(
    "variables",
    [{}, {"doorward_hidden_networks": ["10.88.0.0/16", "fd88::/64"]}, {"doorward_hidden_from": ["eth0"]}],
    ids=["hiding nothing", "hiding its network", "hiding from an interface"],
)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("masquerade", [True, False], ids=["masqueraded", "routed"])
def test_a_host_behind_a_gateway_learns_the_path_mtu(variables: dict[str, Any], family: str, masquerade: bool) -> None:  # noqa: FBT001  a case
    with routed("eth0") as (gateway, outside, inside):
        close(gateway, **variables)
        if masquerade:
            gateway.nft(
                "table inet nat { chain c { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }"
            )
        assert arrives(inside, outside, getattr(outside, family))
