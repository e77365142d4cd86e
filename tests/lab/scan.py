"""The outsider's scan: one probe to every port, and every packet that comes back, counted.

It sends a SYN to each of the 65 535 TCP ports and a datagram to each UDP port asked for, and captures what arrives,
of whatever kind: SYN-ACK, RST, ICMP, data. Address resolution (ARP, neighbour discovery) is left
out, since no host on a link can do without it. Runs as a program of its own, as root, wherever the outsider is;
prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import random
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

ETH_P_ALL = 0x0003
PACKET_STATISTICS = 6
SOL_PACKET = 263
SO_RCVBUFFORCE = 33
PACKET_HOST = 0
IPV6_CHECKSUM = 7
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
SYN, RST, ACK = 0x02, 0x04, 0x10
RESOLUTION = range(133, 138)
"""ICMPv6 types of router and neighbour discovery (RFC 4861)."""

TCP_PORTS = range(1, 65536)
KNOCK_PORT = 62201
BATCH = 128
SETTLE = 2.0
"""Seconds without an answer after which the scan is over."""


@dataclass(slots=True)
class Seen:
    """Everything that came back from one address."""

    target: str
    tcp_probes: int = 0
    udp_probes: int = 0
    answers: int = 0
    tcp_open: list[int] = field(default_factory=list)
    tcp_closed: int = 0
    udp_answered: list[int] = field(default_factory=list)
    udp_refused: int = 0
    other: list[str] = field(default_factory=list)
    stray: int = 0
    """Packets that came from an address nobody had asked, in the whole scan."""
    lost: int = 0
    """Packets that the capture could not keep; a scan with any proves nothing."""


@dataclass(slots=True)
class Answers:
    """The packets of one origin, by their kind."""

    packets: int = 0
    open: set[int] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    other: list[str] = field(default_factory=list)

    def add(self, protocol: int, body: bytes) -> None:
        """Count one packet."""
        self.packets += 1
        port = int.from_bytes(body[:2], "big")
        if protocol == TCP and body[13] & RST:
            self.closed.add(port)
        elif protocol == TCP and body[13] & (SYN | ACK) == SYN | ACK:
            self.open.add(port)
        elif protocol == UDP:
            self.answered.add(port)
        elif (refused := refused_port(protocol, body)) is not None:
            self.refused.add(refused)
        elif len(self.other) < 10:
            self.other.append(f"protocol {protocol}: {body[:16].hex()}")

    def report(self, seen: Seen) -> None:
        """Put the counts into what was seen of the address."""
        seen.answers, seen.other = self.packets, self.other
        seen.tcp_open, seen.tcp_closed = sorted(self.open), len(self.closed)
        seen.udp_answered, seen.udp_refused = sorted(self.answered), len(self.refused)


def commonest_udp_ports(count: int, services: Path = Path("/usr/share/nmap/nmap-services")) -> list[int]:
    """The UDP ports most often found open, as nmap counts them."""
    rows = [
        line.split() for line in services.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]
    ports = [(float(row[2]), int(row[1].split("/")[0])) for row in rows if row[1].endswith("/udp")]
    return [port for _, port in sorted(ports, key=lambda pair: -pair[0])[:count]]


class Scanner:
    """One scan of several addresses, with one capture over all of it."""

    def __init__(self, targets: list[str]) -> None:
        """Open the capture, so that nothing of what comes back is missed."""
        self._capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._capture.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._capture.settimeout(0)
        self._answers = {ipaddress.ip_address(target).packed: Answers() for target in targets}
        self._stray = Answers()
        self.seen = [Seen(target) for target in targets]

    def run(self, udp_ports: list[int]) -> list[Seen]:
        """Probe everything and count what came back."""
        for seen in self.seen:
            self._probe_tcp(seen)
            self._probe_udp(seen, udp_ports)
        self._settle()
        statistics = self._capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        for seen in self.seen:
            self._answers[ipaddress.ip_address(seen.target).packed].report(seen)
            seen.stray = self._stray.packets
            seen.lost = struct.unpack("II", statistics)[1]
        return self.seen

    def _probe_tcp(self, seen: Seen) -> None:
        address = ipaddress.ip_address(seen.target)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        own, source_port = own_address(seen.target, family), random.randrange(32768, 60000)  # noqa: S311  no secret
        with socket.socket(family, socket.SOCK_RAW, TCP) as sender:
            for port in TCP_PORTS:
                sender.sendto(syn(own, address.packed, source_port, port), (seen.target, 0))
                seen.tcp_probes += 1
                if port % BATCH == 0:
                    self._drain()

    def _probe_udp(self, seen: Seen, ports: list[int]) -> None:
        family = socket.AF_INET6 if ":" in seen.target else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for port in ports:
                for content in (b"", b"x" * 160):
                    # A refusal is the answer to an earlier datagram; the capture has it.
                    with contextlib.suppress(ConnectionRefusedError):
                        sender.sendto(content, (seen.target, port))
                    seen.udp_probes += 1
                self._drain()

    def _settle(self) -> None:
        quiet = time.monotonic()
        while time.monotonic() - quiet < SETTLE:
            if self._drain():
                quiet = time.monotonic()
            time.sleep(0.02)

    def _drain(self) -> int:
        """How many answers were waiting."""
        count = 0
        while True:
            try:
                packet, origin = self._capture.recvfrom(2048)
            except BlockingIOError:
                return count
            count += origin[2] == PACKET_HOST and self._count(packet)

    def _count(self, packet: bytes) -> bool:
        """Whether the packet is an answer: anything that is sent to the outsider, whoever sends it."""
        if packet[0] >> 4 == 4:
            origin, protocol, body = packet[12:16], packet[9], packet[(packet[0] & 15) * 4 :]
        elif packet[0] >> 4 == 6:
            origin, protocol, body = packet[8:24], packet[6], packet[40:]
            if protocol == ICMP6 and body[0] in RESOLUTION:
                return False
        else:
            return False  # address resolution
        self._answers.get(origin, self._stray).add(protocol, body)
        return True


def own_address(target: str, family: int) -> bytes:
    """The address that packets to the target are sent from."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))
        return socket.inet_pton(family, probe.getsockname()[0])


def syn(origin: bytes, target: bytes, source_port: int, port: int) -> bytes:
    """A TCP SYN with its checksum (RFC 9293, section 3.1)."""
    head = struct.pack("!HHIIBBHHH", source_port, port, 0x1EAF, 0, 5 << 4, SYN, 64240, 0, 0)
    pseudo = origin + target + struct.pack("!II", len(head), TCP) + head
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:16] + struct.pack("!H", ~total & 0xFFFF) + head[18:]


def refused_port(protocol: int, body: bytes) -> int | None:
    """The UDP port that an ICMP error quotes, or None when it is no such error."""
    if {ICMP: 3, ICMP6: 1}.get(protocol) != body[0]:
        return None
    quoted = body[8:]
    inner = quoted[(quoted[0] & 15) * 4 :] if protocol == ICMP else quoted[40:]
    return int.from_bytes(inner[2:4], "big")


def main() -> int:
    """The exit code: 0 when the capture was complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="+")
    parser.add_argument("--udp", type=int, default=1000, help="how many of the commonest UDP ports")
    chosen = parser.parse_args()
    ports = sorted({*commonest_udp_ports(chosen.udp), KNOCK_PORT})
    seen = Scanner(chosen.target).run(ports)
    json.dump([asdict(one) for one in seen], sys.stdout)
    return 1 if any(one.lost for one in seen) else 0


if __name__ == "__main__":
    sys.exit(main())
