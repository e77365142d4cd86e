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
    lost: int = 0
    """Packets that the capture could not keep; a scan with any proves nothing."""


def commonest_udp_ports(count: int, services: Path = Path("/usr/share/nmap/nmap-services")) -> list[int]:
    """The UDP ports most often found open, as nmap counts them."""
    rows = [
        line.split() for line in services.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]
    ports = [(float(row[2]), int(row[1].split("/")[0])) for row in rows if row[1].endswith("/udp")]
    return [port for _, port in sorted(ports, key=lambda pair: -pair[0])[:count]]


class Scanner:
    """One scan of one address."""

    def __init__(self, target: str) -> None:
        """Open the capture, so that nothing of what comes back is missed."""
        self.seen = Seen(target)
        self._address = ipaddress.ip_address(target)
        self._family = socket.AF_INET if self._address.version == 4 else socket.AF_INET6
        self._own = self._own_address()
        self._capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._capture.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._capture.settimeout(0)
        self._source_port = random.randrange(32768, 60000)  # noqa: S311  no secret
        self._open: set[int] = set()
        self._closed: set[int] = set()
        self._answered: set[int] = set()
        self._refused: set[int] = set()

    def run(self, udp_ports: list[int]) -> Seen:
        """Probe everything and count what came back."""
        self._probe_tcp()
        self._probe_udp(udp_ports)
        self._settle()
        lost = self._capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.seen.lost = struct.unpack("II", lost)[1]
        self.seen.tcp_open, self.seen.tcp_closed = sorted(self._open), len(self._closed)
        self.seen.udp_answered, self.seen.udp_refused = sorted(self._answered), len(self._refused)
        return self.seen

    def _own_address(self) -> bytes:
        with socket.socket(self._family, socket.SOCK_DGRAM) as probe:
            probe.connect((self.seen.target, 9))
            return socket.inet_pton(self._family, probe.getsockname()[0])

    def _probe_tcp(self) -> None:
        with socket.socket(self._family, socket.SOCK_RAW, TCP) as sender:
            for port in TCP_PORTS:
                sender.sendto(self._syn(port), (self.seen.target, 0))
                self.seen.tcp_probes += 1
                if port % BATCH == 0:
                    self._drain()

    def _probe_udp(self, ports: list[int]) -> None:
        with socket.socket(self._family, socket.SOCK_DGRAM) as sender:
            for port in ports:
                for content in (b"", b"x" * 160):
                    # A refusal is the answer to an earlier datagram; the capture has it.
                    with contextlib.suppress(ConnectionRefusedError):
                        sender.sendto(content, (self.seen.target, port))
                    self.seen.udp_probes += 1
                self._drain()

    def _syn(self, port: int) -> bytes:
        """A TCP SYN with its checksum (RFC 9293, section 3.1)."""
        head = struct.pack("!HHIIBBHHH", self._source_port, port, 0x1EAF, 0, 5 << 4, SYN, 64240, 0, 0)
        pseudo = self._own + self._address.packed + struct.pack("!II", len(head), TCP)
        words = struct.unpack(f"!{(len(pseudo) + len(head)) // 2}H", pseudo + head)
        total = sum(words)
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return head[:16] + struct.pack("!H", ~total & 0xFFFF) + head[18:]

    def _settle(self) -> None:
        quiet = time.monotonic()
        while time.monotonic() - quiet < SETTLE:
            if self._drain():
                quiet = time.monotonic()
            time.sleep(0.02)

    def _drain(self) -> int:
        """How many packets of the target were waiting."""
        count = 0
        while True:
            try:
                packet, origin = self._capture.recvfrom(2048)
            except BlockingIOError:
                return count
            if origin[2] == PACKET_HOST and self._count(packet):
                count += 1

    def _count(self, packet: bytes) -> bool:
        """Whether the packet is an answer: anything that is sent to the outsider, whoever sends it."""
        if packet[0] >> 4 == 4:
            protocol, body = packet[9], packet[(packet[0] & 15) * 4 :]
        elif packet[0] >> 4 == 6:
            protocol, body = packet[6], packet[40:]
            if protocol == ICMP6 and body[0] in RESOLUTION:
                return False
        else:
            return False  # address resolution
        self.seen.answers += 1
        self._sort(protocol, body)
        return True

    def _sort(self, protocol: int, body: bytes) -> None:
        port = int.from_bytes(body[:2], "big")
        if protocol == TCP and body[13] & RST:
            self._closed.add(port)
        elif protocol == TCP and body[13] & (SYN | ACK) == SYN | ACK:
            self._open.add(port)
        elif protocol == UDP:
            self._answered.add(port)
        elif (refused := self._refused_port(protocol, body)) is not None:
            self._refused.add(refused)
        elif len(self.seen.other) < 10:
            self.seen.other.append(f"protocol {protocol}: {body[:16].hex()}")

    def _refused_port(self, protocol: int, body: bytes) -> int | None:
        """The UDP port that an ICMP error quotes, or None when it is no such error."""
        errors = {ICMP: 3, ICMP6: 1}
        if errors.get(protocol) != body[0]:
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
    seen = [Scanner(target).run(ports) for target in chosen.target]
    json.dump([asdict(one) for one in seen], sys.stdout)
    return 1 if any(one.lost for one in seen) else 0


if __name__ == "__main__":
    sys.exit(main())
