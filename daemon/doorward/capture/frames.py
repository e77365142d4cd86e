"""Cooked IP packets to datagrams. Pure, and the hot path of a flood: written out by hand, measured in bench/."""

from __future__ import annotations

from typing import Final

from doorward.values import Datagram

_UDP: Final = 17
_SHORTEST: Final = 28  # bytes: an IPv4 header without options and a UDP header
_IPV6_UDP: Final = 48  # bytes: an IPv6 header and a UDP header
_FRAGMENT: Final = 0x3F  # RFC 791: the upper byte's part of More Fragments and offset
_MAPPED: Final = bytes(10) + b"\xff\xff"


def parse(packet: bytes) -> Datagram | None:
    """Return the datagram that an IP packet, from its first header byte on, carries whole; else None.

    Bytes behind the end that the IP header states are link padding and are left out. An IPv6 packet with a mapped IPv4
    address is no datagram: the kernel drops such (ip6_rcv_core), and it would lend anybody an IPv4 origin.
    """
    if len(packet) < _SHORTEST:
        return None
    return _parse_ipv4(packet) if packet[0] < 0x60 else _parse_ipv6(packet)  # noqa: PLR2004  6 = IPv6, in the upper half


def _parse_ipv4(packet: bytes) -> Datagram | None:
    """Return the datagram of an IPv4 packet of at least 28 bytes."""
    first = packet[0]
    udp = (first & 15) << 2
    end = packet[2] << 8 | packet[3]
    if (
        not 0x45 <= first <= 0x4F  # noqa: PLR2004  version 4, header of 20 to 60 bytes
        or packet[9] != _UDP
        or packet[6] & _FRAGMENT
        or packet[7]
        or not udp + 8 <= end <= len(packet)
        or packet[udp + 4] << 8 | packet[udp + 5] != end - udp
    ):
        return None
    return Datagram(
        packet[udp + 8 : end],
        packet[12:16],
        packet[16:20],
        packet[udp] << 8 | packet[udp + 1],
        packet[udp + 2] << 8 | packet[udp + 3],
    )


def _parse_ipv6(packet: bytes) -> Datagram | None:
    """Return the datagram of an IPv6 packet that starts with UDP at once."""
    length = packet[4] << 8 | packet[5]
    end = length + 40
    if (
        packet[0] >> 4 != 6  # noqa: PLR2004  the version
        or packet[6] != _UDP
        or not _IPV6_UDP <= end <= len(packet)
        or packet[44] << 8 | packet[45] != length
        or packet[8:20] == _MAPPED
        or packet[24:36] == _MAPPED
    ):
        return None
    return Datagram(
        packet[48:end], packet[8:24], packet[24:40], packet[40] << 8 | packet[41], packet[42] << 8 | packet[43]
    )
