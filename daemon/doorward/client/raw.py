"""Packets with headers of our own making: UDP, a TCP SYN or ICMP that carry the payload, from any source.

scapy writes the headers, the kernel finds the way. Values as in fwknop client/spa_comm.c, but for the checksums, which
fwknop leaves out: routers may drop such packets.
"""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

from doorward.client.address import own_address
from doorward.client.nat import random_port
from doorward.config.profile import Carrier
from doorward.errors import ClientError, RootError

if TYPE_CHECKING:
    from doorward.client.address import Endpoint
    from doorward.client.send import Transport

PACKAGE: Final = "scapy (Debian: python3-scapy)"
_TTL: Final = 255  # RAW_SPA_TTL, common/common.h
_WINDOW: Final = 32_767
_ECHO_REQUEST: Final = 8
_ECHO_REPLY: Final = 0
_IN_ICMPV6: Final = {_ECHO_REQUEST: 128, _ECHO_REPLY: 129}  # the same words in RFC 4443


def send(payload: bytes, to: Endpoint, transport: Transport) -> int:
    """Send one packet and return its length with headers.

    Raises:
        RootError: the kernel lets only root do so.
        ClientError: scapy is missing, or source and host are of two families.
        OSError: no route.
    """
    if transport.spoofed is not None and transport.spoofed.version != to.host.version:
        msg = f"{transport.spoofed} cannot be the source of a packet to {to.host}: -Q names one of the same family"
        raise ClientError(msg)
    try:
        sender = socket.socket(to.family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    except PermissionError as error:
        msg = f"-P {transport.carrier.value} makes its own headers, which needs root"
        raise RootError(msg) from error
    with sender:
        content = packet(payload, to, transport)
        return sender.sendto(content, (str(to.host), 0, 0, to.scope) if to.host.version == 6 else (str(to.host), 0))  # noqa: PLR2004  IPv6


def packet(payload: bytes, to: Endpoint, transport: Transport) -> bytes:
    """Return the whole packet, from the IP header on."""
    inet, inet6, checksum = _scapy()
    source = str(transport.spoofed or own_address(to))
    port = transport.source_port or random_port(secrets.token_bytes)
    if to.host.version == 4:  # noqa: PLR2004  IPv4
        network = inet.IP(src=source, dst=str(to.host), ttl=_TTL, id=secrets.randbelow(65_536))
    else:
        network = inet6.IPv6(src=source, dst=str(to.host), hlim=_TTL)
    if transport.carrier is Carrier.UDPRAW:
        return bytes(network / inet.UDP(sport=port, dport=to.port) / payload)
    if transport.carrier is Carrier.TCPRAW:
        return bytes(network / inet.TCP(sport=port, dport=to.port, flags="S", seq=1, window=_WINDOW) / payload)
    kind, rest = _icmp(transport)
    if to.host.version == 6:  # noqa: PLR2004  IPv6
        kind = _IN_ICMPV6.get(kind, kind)
        return bytes(network / inet6.ICMPv6Unknown(type=kind, code=transport.icmp_code, msgbody=rest + payload))
    network.proto = socket.IPPROTO_ICMP
    header = bytes([kind, transport.icmp_code])
    return bytes(network / (header + checksum(header + bytes(2) + rest + payload).to_bytes(2, "big") + rest + payload))


def _icmp(transport: Transport) -> tuple[int, bytes]:
    """Return type and the four bytes after the checksum: of an echo request an identifier and the number 1."""
    kind = _ECHO_REPLY if transport.icmp_type is None else transport.icmp_type
    is_request = kind == _ECHO_REQUEST and transport.icmp_code == 0
    return kind, secrets.token_bytes(2) + b"\0\1" if is_request else bytes(4)


def _scapy() -> tuple[Any, Any, Any]:
    """Return scapy's modules of headers and its checksum (RFC 1071)."""
    try:
        from scapy.layers import inet, inet6  # noqa: PLC0415  0.8 s and 80 MB, only for raw packets
        from scapy.utils import checksum  # noqa: PLC0415
    except ImportError as error:
        msg = f"raw packets need the Python package {PACKAGE}"
        raise ClientError(msg) from error
    return inet, inet6, checksum
