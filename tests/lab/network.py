"""The lab's network: a bridge in a namespace of its own, the controller and the outsider beside the hosts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.containers import podman
from lab.plan import CONTROLLER, CONTROLLER_LINK, NETWORK, OUTSIDER, OUTSIDER_ADDRESS, WITNESS, WITNESS_ADDRESS, Address
from lab.run import attempt, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.plan import Host

GATEWAY_ADDRESS = 77
# The far side of the gateway: another network for documentation (RFC 2544's is for benchmarks, and unused as well).
BEFORE_GATEWAY, GATEWAY = "198.18.77.1", "198.18.77.2"

# A host of the lab answers every closed UDP port of a scan, so that "no answer" later means something.
UNLIMITED_ANSWERS = (
    "net.ipv4.icmp_ratemask=0",
    "net.ipv6.icmp.ratemask=",
    "net.ipv6.conf.all.accept_dad=0",
)


def up() -> None:
    """Make what is missing of the network."""
    _bridge()
    _controller()
    _namespace(OUTSIDER, "outsider", Address(OUTSIDER_ADDRESS))
    _namespace(WITNESS, "witness", Address(WITNESS_ADDRESS))


def down() -> None:
    """Remove the network; containers keep running without it."""
    for namespace in (OUTSIDER, WITNESS, NETWORK):
        attempt("ip", "netns", "delete", namespace)
    attempt("ip", "link", "delete", CONTROLLER_LINK)


def exists(namespace: str) -> bool:
    """Whether a network namespace of this name is there."""
    return attempt("ip", "netns", "exec", namespace, "true").returncode == 0


def attach(process: int, port: str, address: Address) -> None:
    """Give the network namespace of a process its ``eth0``, joined to the bridge.

    Args:
        process: any process inside.
        port: the name of the bridge's side of the cable, at most 15 characters.
        address: where it is to be.
    """
    inside = ("nsenter", "--target", str(process), "--net")
    if attempt(*inside, "ip", "link", "show", "eth0").returncode == 0:
        return
    attempt("ip", "-n", NETWORK, "link", "delete", port)
    _cable(port, "eth0", str(process))
    _configure(inside, "eth0", address)
    run(*inside, "sysctl", "-q", "-w", *UNLIMITED_ANSWERS)


def outside(*command: str) -> tuple[str, ...]:
    """A command as the outsider would run it."""
    return ("ip", "netns", "exec", OUTSIDER, *command)


@contextmanager
def gateway(host: Host, outer_port: int) -> Iterator[None]:
    """A router in front of a host: the controller reaches its sshd and its knocks only through GATEWAY.

    Args:
        host: the host behind it; its way back to the controller leads through the router.
        outer_port: the TCP port of the router that is forwarded to the host's sshd.
    """
    rules = (
        "table ip forwarding { chain prerouting { type nat hook prerouting priority dstnat;\n"
        f" iif outer tcp dport {outer_port} dnat to {host.address.ipv4}:{host.ssh_port}\n"
        f" iif outer udp dport 62201 dnat to {host.address.ipv4}\n }}\n}}\n"
    )
    router = ("ip", "netns", "exec", "doorward-gateway")
    _namespace("doorward-gateway", "gateway", Address(GATEWAY_ADDRESS))
    try:
        run("ip", "link", "add", "doorward1", "type", "veth", "peer", "name", "outer", "netns", "doorward-gateway")
        run("ip", "address", "add", f"{BEFORE_GATEWAY}/30", "dev", "doorward1")
        run("ip", "link", "set", "doorward1", "up")
        run(*router, "ip", "address", "add", f"{GATEWAY}/30", "dev", "outer")
        run(*router, "ip", "link", "set", "outer", "up")
        run(*router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        run(*router, "nft", "-f", "-", stdin=rules)
        _route_back(host, "replace")
        yield
    finally:
        _route_back(host, "delete")
        attempt("ip", "netns", "delete", "doorward-gateway")
        attempt("ip", "link", "delete", "doorward1")


def _route_back(host: Host, action: str) -> None:
    process = podman("inspect", "--format", "{{.State.Pid}}", host.container).strip()
    way = (f"{BEFORE_GATEWAY}/32", "via", Address(GATEWAY_ADDRESS).ipv4)
    attempt("nsenter", "--target", process, "--net", "ip", "route", action, *way)


def _bridge() -> None:
    if exists(NETWORK):
        return
    run("ip", "netns", "add", NETWORK)
    run("ip", "-n", NETWORK, "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    run("ip", "-n", NETWORK, "link", "set", "br0", "up")


def _controller() -> None:
    if attempt("ip", "link", "show", CONTROLLER_LINK).returncode == 0:
        return
    run("ip", "link", "add", CONTROLLER_LINK, "type", "veth", "peer", "name", "controller", "netns", NETWORK)
    run("ip", "-n", NETWORK, "link", "set", "controller", "master", "br0", "up")
    _configure((), CONTROLLER_LINK, Address(CONTROLLER))


def _namespace(name: str, port: str, address: Address) -> None:
    if exists(name):
        return
    run("ip", "netns", "add", name)
    _cable(port, "eth0", name)
    inside = ("ip", "netns", "exec", name)
    _configure(inside, "eth0", address)
    run(*inside, "sysctl", "-q", "-w", *UNLIMITED_ANSWERS)


def _cable(port: str, far: str, namespace: str) -> None:
    run("ip", "-n", NETWORK, "link", "add", port, "type", "veth", "peer", "name", far, "netns", namespace)
    run("ip", "-n", NETWORK, "link", "set", port, "master", "br0", "up")


def _configure(inside: tuple[str, ...], link: str, address: Address) -> None:
    run(*inside, "ip", "link", "set", "lo", "up")
    # The same after a restart, so that no neighbour remembers another.
    run(*inside, "ip", "link", "set", link, "address", address.hardware)
    run(*inside, "ip", "address", "add", address.ipv4_interface, "dev", link)
    # nodad: the address is usable at once; nobody else here could own it.
    run(*inside, "ip", "-6", "address", "add", address.ipv6_interface, "dev", link, "nodad")
    run(*inside, "ip", "link", "set", link, "up")
