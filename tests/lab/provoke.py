"""Packets that a kernel answers by itself, before or beside its packet filter, and every packet that comes back.

A scan asks ports. This program asks the kernel: lone fragments (answered after 30 s, IPv6 after 60 s), malformed
options, unknown extension headers, and what only a gateway answers: hop limit 1, a destination without a route, a host
of the sender's own link, a packet that is too big for the way on. Frames go to the target's own hardware address, and
what comes from there is an answer, whatever address it bears. Runs as a program of its own, as root, on the target's
link; prints one JSON object: for each target and kind how many packets came back.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ETH_P_ALL = 0x0003
ETHERNET = {4: 0x0800, 6: 0x86DD}
PACKET_HOST = 0
TCP, UDP, ICMP, ICMP6, IGMP = 6, 17, 1, 58, 2
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
UNKNOWN = 253
"""A protocol for experiments (RFC 3692) that no kernel knows."""
SSH, CLOSED, KNOCK_PORT = 22, 9, 62201
FIRST = 40001
"""The number of the first packet: its source port or identifier, its IPv4 identification or IPv6 flow label."""
RESOLUTION = range(133, 137)
"""ICMPv6 types of router and neighbour discovery (RFC 4861); a redirect, 137, is an answer."""
UNROUTABLE = {4: "192.0.2.1", 6: "3fff:fff::1"}
NEIGHBOUR = 250
"""The place on the target's network of a host that nobody is."""
WAIT = 70.0
"""Seconds: longer than a kernel keeps the fragments of IPv6."""
BIG = 1400
"""Bytes, for a way on whose MTU is smaller; a kind for gateways with such a way alone."""


@dataclass(frozen=True, slots=True)
class Way:
    """Who asks whom, in one family, and the number that tells this packet from others."""

    own: bytes
    target: bytes
    number: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self.own) == 4 else 6

    def packet(self, protocol: int, body: bytes, options: bytes = b"", flags: int = 0, hops: int = 64) -> bytes:
        """The IP packet around a body. `flags` are those of an IPv4 fragment with its offset."""
        if self.version == 6:
            head = struct.pack("!IHBB", 6 << 28 | self.number, len(body), protocol, hops)
            return head + self.own + self.target + body
        words = 5 + len(options) // 4
        head = struct.pack(
            "!BBHHHBBH4s4s",
            4 << 4 | words,
            0,
            words * 4 + len(body),
            self.number,
            flags,
            hops,
            protocol,
            0,
            self.own,
            self.target,
        )
        head += options
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body

    def syn(self, flags: int = 0x02, port: int = SSH) -> bytes:
        """A TCP segment, with these flags."""
        head = struct.pack("!HHIIBBHHH", self.number, port, 0x1EAF, 0, 5 << 4, flags, 64240, 0, 0)
        return self._summed(TCP, head, 16)

    def datagram(self, size: int = 8, port: int = CLOSED) -> bytes:
        """A UDP datagram with so many bytes of content."""
        head = struct.pack("!HHHH", self.number, port, 8 + size, 0)
        return self._summed(UDP, head + bytes(size), 6)

    def echo(self) -> bytes:
        """An echo request."""
        if self.version == 4:
            head = struct.pack("!BBHHH", 8, 0, 0, self.number, 1)
            return head[:2] + struct.pack("!H", checksum(head)) + head[4:]
        return self._summed(ICMP6, struct.pack("!BBHHH", 128, 0, 0, self.number, 1), 2)

    def _summed(self, protocol: int, body: bytes, place: int) -> bytes:
        pseudo = self.own + self.target + struct.pack("!II", len(body), protocol)
        return body[:place] + struct.pack("!H", checksum(pseudo + body)) + body[place + 2 :]


def checksum(content: bytes) -> int:
    """The checksum of RFC 1071."""
    content += bytes(len(content) % 2)
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


MORE = 0x2000
DO_NOT_FRAGMENT = 0x4000
V4_OPTIONS = {
    "record route, pointer 3": bytes([7, 7, 3, 0, 0, 0, 0, 0]),
    "timestamp, pointer 3": bytes([68, 8, 3, 0, 0, 0, 0, 0]),
    "option of length 1": bytes([7, 1, 0, 0]),
    "option longer than the header": bytes([7, 40, 4, 0]),
    "router alert of 3 bytes": bytes([148, 3, 0, 0]),
    "CIPSO": bytes([134, 6, 0, 0, 0, 1, 0, 0]),
}


def _with_options(options: bytes, protocol: int = TCP) -> Callable[[Way], bytes]:
    return lambda way: way.packet(protocol, way.syn() if protocol == TCP else bytes(8), options)


def _option6(header: int, kind: int) -> Callable[[Way], bytes]:
    return lambda way: way.packet(header, bytes([UDP, 0, kind, 4, 0, 0, 0, 0]) + way.datagram())


def _fragment6(body: Callable[[Way], bytes], protocol: int) -> Callable[[Way], bytes]:
    def made(way: Way) -> bytes:
        content = body(way)
        content = content[: len(content) // 8 * 8]
        return way.packet(FRAGMENT, struct.pack("!BBHI", protocol, 0, 1, way.number) + content)

    return made


HOST: dict[int, dict[str, Callable[[Way], bytes]]] = {
    4: {
        "lone first fragment (TCP)": lambda way: way.packet(TCP, way.syn() + bytes(4), flags=MORE),
        "lone first fragment (UDP)": lambda way: way.packet(UDP, way.datagram(), flags=MORE),
        **{name: _with_options(options) for name, options in V4_OPTIONS.items()},
        "IGMP, option of length 1": _with_options(V4_OPTIONS["option of length 1"], IGMP),
        "unknown protocol": lambda way: way.packet(UNKNOWN, bytes(8)),
        "closed UDP port": lambda way: way.packet(UDP, way.datagram()),
        "knock port": lambda way: way.packet(UDP, way.datagram(port=KNOCK_PORT)),
        "TCP without a connection": lambda way: way.packet(TCP, way.syn(0x10)),
        "TCP FIN alone": lambda way: way.packet(TCP, way.syn(0x01)),
        "echo request": lambda way: way.packet(ICMP, way.echo()),
    },
    6: {
        "lone first fragment (TCP)": _fragment6(lambda way: way.syn() + bytes(4), TCP),
        "lone first fragment (UDP)": _fragment6(Way.datagram, UDP),
        "fragment of 12 bytes": lambda way: way.packet(
            FRAGMENT, struct.pack("!BBHI", UDP, 0, 1, way.number) + way.datagram(4)
        ),
        **{f"hop-by-hop option {kind:#x}": _option6(HOP_BY_HOP, kind) for kind in (0x80, 0xC0, 0x9E)},
        "destination option 0x80": _option6(DESTINATION, 0x80),
        "unknown routing header": lambda way: way.packet(ROUTING, bytes([UDP, 0, 77, 1, 0, 0, 0, 0]) + way.datagram()),
        "unknown protocol": lambda way: way.packet(UNKNOWN, bytes(8)),
        "closed UDP port": lambda way: way.packet(UDP, way.datagram()),
        "knock port": lambda way: way.packet(UDP, way.datagram(port=KNOCK_PORT)),
        "TCP without a connection": lambda way: way.packet(TCP, way.syn(0x10)),
        "TCP FIN alone": lambda way: way.packet(TCP, way.syn(0x01)),
        "echo request": lambda way: way.packet(ICMP6, way.echo()),
    },
}
"""What every host answers."""


def _elsewhere(way: Way, address: str) -> Way:
    return Way(way.own, ipaddress.ip_address(address).packed, way.number)


def _neighbour(way: Way) -> Way:
    return Way(way.own, way.target[:-1] + bytes([NEIGHBOUR]), way.number)


def _unroutable(way: Way) -> Way:
    return _elsewhere(way, UNROUTABLE[way.version])


GATEWAY: dict[str, Callable[[Way], bytes]] = {
    "hop limit 1": lambda way: _neighbour(way).packet(UDP, _neighbour(way).datagram(), hops=1),
    "no route": lambda way: _unroutable(way).packet(UDP, _unroutable(way).datagram()),
    "a host of the sender's link": lambda way: _neighbour(way).packet(UDP, _neighbour(way).datagram()),
}
"""What a host answers that forwards packets."""


def beyond(address: str) -> dict[str, Callable[[Way], bytes]]:
    """What a gateway answers to packets for an address behind it, whose link takes fewer than BIG bytes."""

    def there(way: Way) -> Way:
        return _elsewhere(way, address)

    return {
        "hop limit 1, to a network behind": lambda way: there(way).packet(UDP, there(way).datagram(), hops=1),
        "too big for a network behind": lambda way: there(way).packet(
            UDP, there(way).datagram(BIG), flags=DO_NOT_FRAGMENT
        ),
        "nobody's address in a network behind": lambda way: there(way).packet(TCP, there(way).syn()),
    }


@dataclass(slots=True)
class Asked:
    """One target, its hardware address and its kinds of packets by their number."""

    target: str
    hardware: bytes
    kinds: dict[int, str]
    answers: dict[str, int]


class Provoker:
    """Asks several targets, with one capture over all of it."""

    def __init__(self, device: str, targets: list[str]) -> None:
        """Find the targets on the link, then open the capture, so that nothing of what comes back is missed."""
        self._found = {target: resolved(target) for target in targets}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.bind((device, ETH_P_ALL))
        self._device = device
        self._number = FIRST
        self._asked: list[Asked] = []

    def ask(self, target: str, behind: list[str], repeat: int) -> None:
        """Send every kind of packet to one target; a kind `repeat` times."""
        address = ipaddress.ip_address(target)
        own, hardware = self._found[target]
        kinds = {**HOST[address.version], **GATEWAY}
        for one in behind:
            kinds |= beyond(one) if ipaddress.ip_address(one).version == address.version else {}
        asked = Asked(target, hardware, {}, dict.fromkeys(kinds, 0))
        self._asked.append(asked)
        for name, kind in kinds.items():
            asked.kinds[self._number] = name
            for _ in range(repeat):
                frame = kind(Way(own, address.packed, self._number))
                self._socket.sendto(frame, (self._device, ETHERNET[address.version], 0, 0, hardware))
                time.sleep(0.01)
            self._number += 1

    def collect(self, seconds: float) -> list[Asked]:
        """Count what comes back until the time is over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                packet, origin = self._socket.recvfrom(4096)
                if origin[2] == PACKET_HOST and origin[1] in ETHERNET.values():
                    self._count(packet, origin[4])
        return self._asked

    def _count(self, packet: bytes, hardware: bytes) -> None:
        version = packet[0] >> 4
        protocol, body = (packet[9], packet[(packet[0] & 15) * 4 :]) if version == 4 else (packet[6], packet[40:])
        if (version, protocol) == (6, ICMP6) and body[0] in RESOLUTION:
            return
        for asked in self._asked:
            if asked.hardware == hardware and (":" in asked.target) == (version == 6):
                named = [asked.kinds[number] for number in numbers(packet) if number in asked.kinds]
                name = named[0] if named else f"protocol {protocol}: {body[:48].hex()}"
                asked.answers[name] = asked.answers.get(name, 0) + 1


def numbers(packet: bytes) -> Iterator[int]:
    """Every two bytes of an answer that could be the number of a question: a port, an identifier, a quoted header."""
    start = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    for place in range(start, len(packet) - 1, 2):
        yield int.from_bytes(packet[place : place + 2], "big")


def resolved(target: str) -> tuple[bytes, bytes]:
    """The own address towards a target, and the target's hardware address, which every host tells."""
    with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as dialler:
        dialler.connect((target, CLOSED))
        own = ipaddress.ip_address(dialler.getsockname()[0]).packed
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                dialler.send(b"")
            time.sleep(0.1)
            shown = subprocess.run(["ip", "-j", "neigh", "show", target], check=True, capture_output=True, text=True)
            for entry in json.loads(shown.stdout):
                if "lladdr" in entry:
                    return own, bytes.fromhex(entry["lladdr"].replace(":", ""))
    text = f"{target} is not on this link"
    raise SystemExit(text)


def main() -> int:
    """The exit code is 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="+")
    parser.add_argument("--device", default="eth0")
    parser.add_argument(
        "--behind", action="append", default=[], metavar="ADDRESS", help="an address behind the targets"
    )
    parser.add_argument("--repeat", type=int, default=2, help="how often each packet is sent")
    parser.add_argument("--wait", type=float, default=WAIT, help="seconds")
    chosen = parser.parse_args()
    provoker = Provoker(chosen.device, chosen.target)
    for target in chosen.target:
        provoker.ask(target, chosen.behind, chosen.repeat)
    json.dump({asked.target: asked.answers for asked in provoker.collect(chosen.wait)}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
