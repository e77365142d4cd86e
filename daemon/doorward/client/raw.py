"""Packets with their own headers: UDP, a TCP SYN or ICMP with the payload, from any source.

scapy writes the headers, the kernel routes. Values as in fwknop client/spa_comm.c, except for the checksums: fwknop
leaves them out, and routers may drop such packets.
"""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

from doorward.client.address import own_address
from doorward.client.nat import random_port
from doorward.client.profile import Carrier
from doorward.errors import ClientError, RootError

if TYPE_CHECKING:
    from doorward.client.address import Endpoint
    from doorward.client.profile import Profile

PACKAGE: Final = "scapy (Debian: python3-scapy)"
_TTL: Final = 255  # RAW_SPA_TTL, common/common.h
_WINDOW: Final = 32_767
_ECHO_REQUEST: Final = 8
_ECHO_REPLY: Final = 0
_IN_ICMPV6: Final = {_ECHO_REQUEST: 128, _ECHO_REPLY: 129}  # the same types in RFC 4443


def send(payload: bytes, to: Endpoint, profile: Profile) -> int:
    """Send one packet and return its length with headers.

    Raises:
        RootError: the kernel requires root.
        ClientError: scapy is missing, or source and host differ in family.
        OSError: no route.
    """
    if profile.spoofed is not None and profile.spoofed.version != to.host.version:
        msg = f"{profile.spoofed} cannot be the source of a packet to {to.host}: -Q names one of the same family"
        raise ClientError(msg)
    try:
        sender = socket.socket(to.family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except PermissionError as error:
        msg = f"-P {profile.transport.value} makes its own headers, which needs root"
        raise RootError(msg) from error
    with sender:
        content = packet(payload, to, profile)
        return sender.sendto(content, (str(to.host), 0, 0, to.scope) if to.host.version == 6 else (str(to.host), 0))  # noqa: PLR2004  IPv6


def packet(payload: bytes, to: Endpoint, profile: Profile) -> bytes:
    """The packet from the IP header on."""
    inet, inet6, checksum = _scapy()
    source = str(profile.spoofed or own_address(to))
    port = profile.source_port or random_port(secrets.token_bytes)
    if to.host.version == 4:  # noqa: PLR2004  IPv4
        network = inet.IP(src=source, dst=str(to.host), ttl=_TTL, id=secrets.randbelow(65_536))
    else:
        network = inet6.IPv6(src=source, dst=str(to.host), hlim=_TTL)
    if profile.transport is Carrier.UDPRAW:
        return bytes(network / inet.UDP(sport=port, dport=to.port) / payload)
    if profile.transport is Carrier.TCPRAW:
        return bytes(network / inet.TCP(sport=port, dport=to.port, flags="S", seq=1, window=_WINDOW) / payload)
    code = profile.icmp_code or 0
    kind, rest = _icmp(profile.icmp_type, code)
    if to.host.version == 6:  # noqa: PLR2004  IPv6
        kind = _IN_ICMPV6.get(kind, kind)
        return bytes(network / inet6.ICMPv6Unknown(type=kind, code=code, msgbody=rest + payload))
    network.proto = socket.IPPROTO_ICMP
    header = bytes([kind, code])
    return bytes(network / (header + checksum(header + bytes(2) + rest + payload).to_bytes(2, "big") + rest + payload))


def _icmp(named: int | None, code: int) -> tuple[int, bytes]:
    """Type and the four bytes after the checksum: for an echo request an identifier and the number 1."""
    kind = _ECHO_REPLY if named is None else named
    is_request = kind == _ECHO_REQUEST and code == 0
    return kind, secrets.token_bytes(2) + b"\0\1" if is_request else bytes(4)


def _scapy() -> tuple[Any, Any, Any]:
    """The modules of scapy's headers, and its checksum (RFC 1071)."""
    try:
        from scapy.layers import inet, inet6  # noqa: PLC0415  0.8 s and 80 MB, only for raw packets
        from scapy.utils import checksum  # noqa: PLC0415
    except ImportError as error:
        msg = f"raw packets need the Python package {PACKAGE}"
        raise ClientError(msg) from error
    return inet, inet6, checksum
