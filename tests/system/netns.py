"""Network namespaces on one switch, with IPv4 and IPv6: real kernels to test against, always cleaned up.

    with network("host", "client", "outsider") as (host, client, outsider):
        host.nft("table inet doorward { … }")
        client.run("ping", "-c1", host.ipv4)
        with host.inside():          # this thread's new sockets and libnftables contexts belong to `host`
            capture = PacketCapture(…)

Every namespace has `lo` and `eth0` up; the n-th (from 1) is 10.77.0.n/24 and fd77::n/64.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import programs

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace. `name` is what `ip netns` calls it, `number` its place on the switch."""

    name: str
    number: int

    @property
    def ipv4(self) -> str:
        """Its address 10.77.0.n."""
        return f"10.77.0.{self.number}"

    @property
    def ipv6(self) -> str:
        """Its address fd77::n."""
        return f"fd77::{self.number:x}"

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs `argv` inside."""
        command = ["ip", "netns", "exec", self.name, *argv]
        programs.require_all(command)
        return command

    def run(self, *argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; its output is captured as text."""
        options = {"capture_output": True, "text": True, "timeout": 200, **options}
        done: subprocess.CompletedProcess[str] = subprocess.run(self.command(*argv), check=False, **options)
        if check and done.returncode:
            message = f"{argv} in {self.name}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            raise AssertionError(message)
        return done

    @contextlib.contextmanager
    def process(self, *argv: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Start a command inside and end it, by its id, with the block."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        # `ip netns exec` becomes the command by exec, so the id is the command's own
        with subprocess.Popen(self.command(*argv), **options) as started:
            try:
                yield started
            finally:
                started.terminate()
                try:
                    started.wait(5)
                except subprocess.TimeoutExpired:
                    started.kill()

    def nft(self, commands: str) -> str:
        """Run nft commands inside as one transaction and return what they print."""
        return self.run("nft", "-f", "-", input=commands).stdout

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread inside for the block; what is opened there (sockets, contexts) stays there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            yield
        finally:
            _enter(before)
            os.close(there)
            os.close(before)


@contextlib.contextmanager
def namespace(label: str = "ns", number: int = 1) -> Iterator[Namespace]:
    """Yield one new namespace with nothing in it but `lo`, up."""
    made = Namespace(f"dw{os.getpid()}-{next(_NUMBERS)}-{label}", number)
    _ip("netns", "add", made.name)
    try:
        _ip("-n", made.name, "link", "set", "lo", "up")
        yield made
    finally:
        _ip("netns", "del", made.name)


@contextlib.contextmanager
def network(*labels: str, mtu: int = 1500) -> Iterator[tuple[Namespace, ...]]:
    """Yield one namespace a label, all on one switch; the switch is a namespace of its own."""
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(namespace("switch"))
        _ip("-n", switch.name, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0")
        _ip("-n", switch.name, "link", "set", "br0", "up")
        members = tuple(stack.enter_context(namespace(label, number)) for number, label in enumerate(labels, 1))
        for member in members:
            plug(member, switch, mtu=mtu)
        yield members


def plug(member: Namespace, switch: Namespace, device: str = "eth0", mtu: int = 1500) -> None:
    """Give `member` an interface on the switch, with its addresses; also for one that was pulled before."""
    port = f"p{member.number}-{device}"
    peer = ("peer", "name", port, "netns", switch.name)
    _ip("-n", member.name, "link", "add", device, "mtu", str(mtu), "type", "veth", *peer)
    _ip("-n", switch.name, "link", "set", port, "mtu", str(mtu), "master", "br0", "up")
    _ip("-n", member.name, "addr", "add", f"{member.ipv4}/24", "dev", device)
    _ip("-n", member.name, "addr", "add", f"{member.ipv6}/64", "dev", device, "nodad")
    _ip("-n", member.name, "link", "set", device, "up")


def _ip(*argv: str) -> None:
    """Run iproute2."""
    subprocess.run(["ip", *argv], check=True, capture_output=True, timeout=60)


def _enter(descriptor: int) -> None:
    """Move this thread to the namespace of `descriptor` (setns(2); os.setns is younger than Python 3.10)."""
    if _LIBC.setns(descriptor, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def capable() -> bool:
    """Return whether namespaces can be made here."""
    return os.geteuid() == 0 and Path("/proc/self/ns/net").exists()
