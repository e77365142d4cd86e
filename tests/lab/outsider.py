"""What the outsider sees: the scan, run where the outsider is, with a witness that shows it works."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.network import outside
from lab.plan import WITNESS, WITNESS_ADDRESS, Address, Host
from lab.run import LabError, run
from lab.scan import KNOCK_PORT, TCP_PORTS, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCAN = Path(__file__).with_name("scan.py")
PROVOKE = Path(__file__).with_name("provoke.py")
GATEWAY = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=1")
"""The witness answers what only gateways answer."""
WITNESS_PORT = 22
PYTHON = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", sys.executable, "-I")


@dataclass(frozen=True, slots=True)
class View:
    """What one scan saw of one host, in both families."""

    host: Host
    ipv4: Seen
    ipv6: Seen

    @property
    def answers(self) -> int:
        """Packets that came back."""
        return self.ipv4.answers + self.ipv6.answers

    def __str__(self) -> str:
        """One line for a reader."""
        parts = (f"{name} {_words(seen)}" for name, seen in (("IPv4", self.ipv4), ("IPv6", self.ipv6)))
        return f"{self.host.name}: {'; '.join(parts)}"


def scan(hosts: Sequence[Host]) -> list[View]:
    """What the outsider sees of the hosts, on every TCP port and the commonest UDP ports.

    Raises:
        LabError: the scan did not see everything of the witness, so that an absence elsewhere would prove nothing.
    """
    witness = Address(WITNESS_ADDRESS)
    addresses = [address for host in hosts for address in (host.address.ipv4, host.address.ipv6)]
    with _witness_listens():
        shown = run(*outside(*PYTHON, str(SCAN), witness.ipv4, *addresses, witness.ipv6))
    first, *seen, last = (Seen(**one) for one in json.loads(shown))
    for one in (first, last):
        _check_witness(one)
    pairs = zip(seen[::2], seen[1::2], strict=True)
    return [View(host, ipv4, ipv6) for host, (ipv4, ipv6) in zip(hosts, pairs, strict=True)]


@dataclass(frozen=True, slots=True)
class Provoked:
    """What came back from one host to packets that a kernel answers by itself, by kind, of so many kinds."""

    host: Host
    answers: dict[str, int]
    kinds: int

    def __str__(self) -> str:
        """One line for a reader."""
        said = ", ".join(f"{count} to {kind}" for kind, count in self.answers.items()) or "0 answers"
        return f"{self.host.name}: {said}, of {self.kinds} kinds of packets that a kernel answers by itself"


def provoke(hosts: Sequence[Host]) -> list[Provoked]:
    """What the hosts answer to fragments, malformed options and packets for elsewhere (provoke.py), in 70 s.

    Raises:
        LabError: the witness did not answer every kind, so that an absence elsewhere would prove nothing.
    """
    run("ip", "netns", "exec", WITNESS, "sysctl", "-q", "-w", *GATEWAY)
    witness = Address(WITNESS_ADDRESS)
    asked = [witness, *(host.address for host in hosts)]
    targets = [address for one in asked for address in (one.ipv4, one.ipv6)]
    answers: dict[str, dict[str, int]] = json.loads(run(*outside(*PYTHON, str(PROVOKE), *targets)))
    unanswered = [f"{target} {kind}" for target in targets[:2] for kind, count in answers[target].items() if not count]
    if unanswered:
        text = f"nothing is proven, the witness does not answer: {', '.join(unanswered)}"
        raise LabError(text)
    return [_provoked(host, answers) for host in hosts]


def _provoked(host: Host, answers: dict[str, dict[str, int]]) -> Provoked:
    both = {f"{name}, {kind}": count
            for name, address in (("IPv4", host.address.ipv4), ("IPv6", host.address.ipv6))
            for kind, count in answers[address].items()}  # fmt: skip
    return Provoked(host, {kind: count for kind, count in both.items() if count}, len(both))


def nmap_states(host: Host) -> set[str]:
    """The states that nmap gives to the host's sshd port, the knock's port and some others, in both families."""
    ports = f"T:{host.ssh_port},80,443,U:{KNOCK_PORT},53,123"
    states = set()
    for family, address in (("-4", host.address.ipv4), ("-6", host.address.ipv6)):
        command = ("nmap", family, "-Pn", "-n", "-sS", "-sU", "-p", ports, "--max-retries", "1", "-oG", "-", address)
        shown = run(*outside(*command))
        fields = [
            word for line in shown.splitlines() if "Ports: " in line for word in line.split("Ports: ")[1].split(", ")
        ]
        states |= {word.split("/")[1] for word in fields}
    return states


@contextmanager
def _witness_listens() -> Iterator[None]:
    code = (
        "import socket\n"
        f"s = socket.create_server(('::', {WITNESS_PORT}), family=socket.AF_INET6, dualstack_ipv6=True)\n"
        "print('ready', flush=True)\nimport signal\nsignal.pause()\n"
    )
    command = ("ip", "netns", "exec", WITNESS, sys.executable, "-I", "-c", code)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            process.kill()
            text = "the witness of the scan could not listen"
            raise LabError(text)
        try:
            yield
        finally:
            process.terminate()


def _check_witness(seen: Seen) -> None:
    whole = seen.answers == seen.tcp_probes + seen.udp_probes and seen.tcp_closed == len(TCP_PORTS) - 1
    if not whole or seen.tcp_open != [WITNESS_PORT] or seen.lost:
        text = f"the scan is not trustworthy, of the witness it saw only {seen}"
        raise LabError(text)


def _words(seen: Seen) -> str:
    probes = seen.tcp_probes + seen.udp_probes
    if seen.answers == 0:
        return f"0 answers to {probes} probes"
    ports = ", ".join(f"tcp/{port}" for port in seen.tcp_open) or "no port"
    return f"{ports} open, {seen.answers} answers to {probes} probes"
