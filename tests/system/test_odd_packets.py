"""Odd packets of every kind against a hidden host: none is answered, none reaches a program, none gets a later one in.

Each kind of lab/provoke.py is sent as it is and changed in a few bytes, by a seed. DOORWARD_ODD_PACKETS is how many of
a kind and host there are; 212 make 7 420 of 35 kinds.
"""

from __future__ import annotations

import ipaddress
import os
import random
import select
import socket
import time
from typing import TYPE_CHECKING, Final

import pytest

from lab import provoke
from system.doorwardd import is_open, listener
from unit.collection.test_firewall_table import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

EACH: Final = int(os.environ.get("DOORWARD_ODD_PACKETS", "8"))
SEED: Final = 20
ROOM: Final = 64 << 20  # bytes: every answer is kept until it is counted
SO_RCVBUFFORCE, SOL_PACKET, PACKET_IGNORE_OUTGOING = 33, 263, 23  # asm-generic/socket.h, linux/if_packet.h


def odd(version: int, way: provoke.Way) -> Iterator[bytes]:
    """Yield every kind, first as it is, then with one to four bytes changed; the version and addresses stay."""
    chosen = random.Random(SEED + version)  # noqa: S311  to be repeated, no secret
    for kind in {**provoke.HOST[version], **provoke.GATEWAY}.values():
        made = kind(way)
        yield made
        free = [place for place in range(1, len(made)) if place not in addresses(version)]
        for _ in range(EACH - 1):
            changed = bytearray(made)
            for place in chosen.sample(free, chosen.randint(1, 4)):
                changed[place] = chosen.randrange(256)
            yield summed(version, bytes(changed))


def addresses(version: int) -> range:
    return range(12, 20) if version == 4 else range(8, 40)


def summed(version: int, packet: bytes) -> bytes:
    """The packet with a good checksum in its IPv4 header, which is what a router would let through."""
    if version == 6:
        return packet
    size = min(max(20, (packet[0] & 15) * 4), len(packet))
    head = packet[:10] + b"\0\0" + packet[12:size]
    return packet[:10] + provoke.checksum(head).to_bytes(2, "big") + packet[12:]


class Wire:
    """Sends frames to one host, and hears what it sends."""

    def __init__(self, client: Namespace, host: Namespace, version: int) -> None:
        self.version = version
        address = host.ipv6 if version == 6 else host.ipv4
        with client.inside():
            own, self._hardware = provoke.resolved(address)
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(provoke.ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind(("eth0", provoke.ETH_P_ALL))
        self._way = provoke.Way(own, ipaddress.ip_address(address).packed, provoke.FIRST)

    def send(self) -> int:
        """Send all, and return how many."""
        count = 0
        for count, frame in enumerate(odd(self.version, self._way), 1):  # noqa: B007  the last number is the count
            self._socket.sendto(frame, ("eth0", provoke.ETHERNET[self.version], 0, 0, self._hardware))
            time.sleep(0.001)  # a kernel sends some thousand ICMP errors a second, whoever asks for them
        return count

    def answers(self, seconds: float) -> int:
        """Count what the host sends to this one; its neighbour discovery is none."""
        end, count = time.monotonic() + seconds, 0
        while select.select([self._socket], [], [], max(0.0, end - time.monotonic()))[0]:
            packet, origin = self._socket.recvfrom(65535)
            discovery = packet[0] >> 4 == 6 and packet[6] == provoke.ICMP6 and packet[40] in provoke.RESOLUTION
            ours = origin[1] in provoke.ETHERNET.values() and origin[4] == self._hardware
            count += ours and origin[2] == provoke.PACKET_HOST and not discovery
        return count

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_no_odd_packet_is_answered_or_gets_anybody_in(
    trio: tuple[Namespace, Namespace, Namespace], version: int
) -> None:
    hidden, opened, outsider = trio
    short = (
        "net.ipv4.ipfrag_time=1",
        "net.ipv6.ip6frag_time=1",
        "net.ipv4.icmp_ratelimit=0",
        "net.ipv6.icmp.ratelimit=0",
    )
    for host in (hidden, opened):
        host.run("sysctl", "-q", "-w", *short)
    hidden.nft(render())
    hidden.run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_frag6_timeout=1")
    target = hidden.ipv6 if version == 6 else hidden.ipv4
    wires = [Wire(outsider, host, version) for host in (hidden, opened)]
    with listener(hidden) as accepting, listener(opened):
        sent = [wire.send() for wire in wires]
        assert sent == 2 * [EACH * len({**provoke.HOST[version], **provoke.GATEWAY})]
        silence, words = (wire.answers(3) for wire in wires)
        assert silence == 0
        assert words > min(sent[1] // 4, 500), f"an open host answers many of them, here {words}"
        assert not is_open(outsider, target, within=0.3)
        assert select.select([accepting], [], [], 0)[0] == [], "nobody was let in"
        grant = f"open{version} {{ {outsider.ipv6 if version == 6 else outsider.ipv4} . 6 . 22 timeout 60s }}"
        hidden.nft(f"add element inet doorward {grant}")
        assert is_open(outsider, target)
    for wire in wires:
        wire.close()
