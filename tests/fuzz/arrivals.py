"""What arrives from others in ways of its own: frames, HTTP requests, capture files, OpenPGP messages, DNS answers."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from contextlib import closing
from typing import Final

from dns.message import make_query
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from doorward.capture import frames, http
from doorward.capture.pcap import FileCapture
from doorward.client import dns
from doorward.errors import CaptureError, ClientError, WireError
from doorward.values import Carriers, Datagram, IPAddress, Networks, address
from doorward.wire import fwknop, openpgp
from fuzz.target import Target
from unit.making import ORIGIN, datagram, payload

_PORTS: Final = Carriers(udp=(range(62201, 62202),), tcp=(range(62201, 62202),), icmp=True)
_PROXIES: Final = Networks.of([ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")])
_RULES: Final = (http.Rules(), http.Rules(any_agent=True), http.Rules(any_agent=True, proxies=_PROXIES))
_LINK: Final = "02:00:00:00:00:01"
_MAPPED: Final = bytes(10) + b"\xff\xff"
_QUERY: Final = make_query("myip.opendns.com", "A", id=4711)


def any_frame(content: bytes) -> None:
    """A frame is read as scapy reads its headers."""
    assert frames.parse(content) == read_by_scapy(content)


def read_by_scapy(packet: bytes) -> Datagram | None:
    """Return what the headers say to scapy: whole packets of RFC 791 and 8200 with UDP, TCP or ICMP."""
    version = packet[0] >> 4 if packet else 0
    if len(packet) < 28:
        return None
    if version == 4:
        return _ipv4_by_scapy(packet)
    return _ipv6_by_scapy(packet) if version == 6 and len(packet) >= 40 else None


def _ipv4_by_scapy(packet: bytes) -> Datagram | None:
    header = IP(packet[:20])
    whole = not header.flags.MF and header.frag == 0 and header.ihl >= 5
    if not whole or header.len > len(packet):
        return None
    return _inside_by_scapy(packet[: header.len], header.ihl * 4, header, header.proto)


def _ipv6_by_scapy(packet: bytes) -> Datagram | None:
    header = IPv6(packet[:40])
    if 40 + header.plen > len(packet) or any(part == _MAPPED for part in (packet[8:20], packet[24:36])):
        return None
    return _inside_by_scapy(packet[: 40 + header.plen], 40, header, header.nh)


def _inside_by_scapy(packet: bytes, start: int, header: Packet, number: int) -> Datagram | None:
    # As bytes: an IPv4-compatible address (::1.2.3.4) has two texts.
    ends = (_packed(header.src), _packed(header.dst))
    content = packet[start:]
    if len(content) < 8:
        return None
    if number == 17:
        udp = UDP(content[:8])
        return Datagram(content[8:], *ends, udp.sport, udp.dport) if udp.len == len(content) else None
    if number == {4: 1, 6: 58}[header.version]:  # each family has its own ICMP, with the same first bytes
        return Datagram(content[8:], *ends, 0, int.from_bytes(content[:2], "big"), number)  # scapy wants more of some
    if number != 6 or len(content) < 20:
        return None
    tcp = TCP(content[:20])
    if tcp.dataofs < 5 or tcp.dataofs * 4 > len(content):
        return None
    return Datagram(content[tcp.dataofs * 4 :], *ends, tcp.sport, tcp.dport, 6)


def _packed(text: str) -> bytes:
    """Return the packed address of scapy's text."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def any_http(content: bytes) -> None:
    """A request is left as it is, or gives a shorter text without a blank; only a trusted proxy speaks for others."""
    sent = datagram(content)
    for rules in _RULES:
        for origin in (ORIGIN, bytes([198, 51, 100, 9])):
            found = http.read(sent._replace(origin=origin), rules)
            assert found.origin == origin
            assert found.payload == content or (len(found.payload) < len(content) and not found.payload.split()[1:])
            believed = rules.proxies is not None and origin in rules.proxies
            if found.forwarded is not None:
                assert believed
                assert any(address(found.forwarded).packed)
    assert http.is_whole(content) or http.read(sent, _RULES[0]).forwarded is None


def any_capture(content: bytes) -> None:
    """A capture file gives datagrams that some carrier admits, to its end or to where it is damaged."""
    descriptor = os.memfd_create("capture")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        source = FileCapture(descriptor, _PORTS)
    except CaptureError:
        return
    with closing(source):
        for _ in range(2 + len(content) // 16):  # no record is shorter than its head
            try:
                found = source.receive()
            except CaptureError:
                break
            assert found is None or fwknop.PAYLOAD_MIN <= len(found.payload) <= fwknop.PAYLOAD_MAX
            if source.ended:
                break
        assert source.ended


def any_openpgp(content: bytes) -> None:
    """An OpenPGP message names its recipients, or is none that fwknop sends."""
    try:
        named, block = openpgp.parse(content)
    except WireError:
        return
    assert len(block) < len(content)
    assert 1 <= len(named) <= openpgp.RECIPIENTS_MAX
    assert all(len(one) == 16 and set(one) <= set("0123456789ABCDEF") for one in named)


def any_dns(content: bytes) -> None:
    """A DNS answer gives addresses, an error or nothing, after any question."""
    wire = _QUERY.to_wire()
    for answer in (content, wire[:2] + b"\x84\x00\x00\x01\x00\x04\x00\x00\x00\x00" + wire[12:] + content):
        try:
            found = dns.addresses(_QUERY, answer) or set()
        except ClientError:
            continue
        assert all(_address(text).version == 4 for text in found)


def _address(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def _packets() -> list[bytes]:
    carriers = (
        UDP(sport=1, dport=62201),
        TCP(sport=1, dport=62201, flags="S"),
        TCP(sport=1, dport=62201, options=[("NOP", None)] * 4),
        ICMP(type=8),
    )
    over4 = [IP(src="192.0.2.1", dst="192.0.2.2") / carrier for carrier in carriers]
    over4 += [IP(src="192.0.2.1", dst="192.0.2.2", options=b"\1" * 8) / carriers[0]]
    sources = ("2001:db8::1", "::1.2.3.4")  # the second one has two texts, which once misled the oracle
    over6 = [
        IPv6(src=source, dst="2001:db8::2") / carrier
        for source in sources
        for carrier in (*carriers[:3], ICMPv6EchoRequest())
    ]
    return [bytes(made / Raw(payload())) for made in (*over4, *over6)]


def _files() -> list[bytes]:
    ethernet = [
        bytes(Ether(src=_LINK, dst=_LINK, type=0x0800 if one[0] >> 4 == 4 else 0x86DD) / Raw(one)) for one in _packets()
    ]
    return [_pcap(1, ethernet), _pcap(101, _packets()), _pcap(1, []), b"\x0a\x0d\x0d\x0a" + bytes(24)]


def _pcap(link: int, records: list[bytes]) -> bytes:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack("<IIII", 1, 0, len(one), len(one)) + one for one in records)


def _requests() -> list[bytes]:
    agent, forwarded = b"User-Agent: Fwknop/2.6.10\r\n", b"X-Forwarded-For: 10.1.1.1, 192.0.2.9\r\n"
    line = b"GET /" + payload().translate(bytes.maketrans(b"+/", b"-_")) + b" HTTP/1.0\r\n"
    return [line + agent + b"\r\n", line + agent + forwarded + b"\r\n", line + b"\r\n", line]


def _messages() -> list[bytes]:
    key = b"\x03" + bytes(range(8)) + b"\x01" + bytes(20)
    return [
        b"\x85" + struct.pack("!H", len(key)) + key + b"\xd2" + bytes([20]) + bytes(20),
        b"\x85" + struct.pack("!H", len(key)) + key + b"\xd2\xe1\x01\x02" + bytes([3]) + bytes(3),
    ]


TARGETS: Final = {
    "frame": Target(any_frame, tuple(_packets())),
    "http": Target(any_http, tuple(_requests()), ("X-Forwarded-For: ", "User-Agent: Fwknop", "GET /", "2001:db8::1")),
    "capture": Target(any_capture, tuple(_files())),
    "openpgp": Target(any_openpgp, tuple(_messages())),
    "dns": Target(any_dns, (b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x01\x02\x03\x04",)),
}
