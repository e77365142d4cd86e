"""The lab's network: a bridge in a namespace of its own, the controller and the outsider beside the hosts."""

from __future__ import annotations

from lab.plan import CONTROLLER, CONTROLLER_LINK, NETWORK, OUTSIDER, OUTSIDER_ADDRESS, WITNESS, WITNESS_ADDRESS, Address
from lab.run import attempt, run

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
    run(*inside, "ip", "address", "add", address.ipv4_interface, "dev", link)
    # nodad: the address is usable at once; nobody else here could own it.
    run(*inside, "ip", "-6", "address", "add", address.ipv6_interface, "dev", link, "nodad")
    run(*inside, "ip", "link", "set", link, "up")
