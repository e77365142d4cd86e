from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6Unknown, IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

from doorward.capture.frames import parse
from doorward.values import Datagram

PORTS = st.integers(0, 65535)
PAYLOADS = st.binary(max_size=600)
V4 = st.ip_addresses(v=4)
V6 = st.integers(0, 2**128 - 1).filter(lambda number: number >> 32 != 0xFFFF).map(ipaddress.IPv6Address)
KNOCK = bytes(range(160))
FRAME4 = bytes(IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=62201) / Raw(KNOCK))
FRAME6 = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=62201) / Raw(KNOCK))


@given(V4, V4, PORTS, PORTS, PAYLOADS, st.integers(0, 40), st.binary(max_size=9))
def test_an_ipv4_datagram_is_read_as_scapy_wrote_it(  # noqa: PLR0913, PLR0917  one argument a header field
    origin: ipaddress.IPv4Address,
    destination: ipaddress.IPv4Address,
    sport: int,
    dport: int,
    payload: bytes,
    options: int,
    padding: bytes,
) -> None:
    header = IP(src=str(origin), dst=str(destination), options=[IPOption_NOP()] * options)
    packet = bytes(header / UDP(sport=sport, dport=dport) / Raw(payload)) + padding
    assert parse(packet) == Datagram(payload, origin.packed, destination.packed, sport, dport)


@given(V6, V6, PORTS, PORTS, PAYLOADS, st.integers(0, 255), st.integers(0, 0xFFFFF), st.binary(max_size=9))
def test_an_ipv6_datagram_is_read_as_scapy_wrote_it(  # noqa: PLR0913, PLR0917  one argument a header field
    origin: ipaddress.IPv6Address,
    destination: ipaddress.IPv6Address,
    sport: int,
    dport: int,
    payload: bytes,
    traffic_class: int,
    flow: int,
    padding: bytes,
) -> None:
    header = IPv6(src=str(origin), dst=str(destination), tc=traffic_class, fl=flow)
    packet = bytes(header / UDP(sport=sport, dport=dport) / Raw(payload)) + padding
    assert parse(packet) == Datagram(payload, origin.packed, destination.packed, sport, dport)


@pytest.mark.parametrize("frame", [FRAME4, FRAME6])
def test_a_frame_cut_at_any_byte_is_no_datagram(frame: bytes) -> None:
    assert parse(frame) is not None
    assert [parse(frame[:length]) for length in range(len(frame))] == [None] * len(frame)


def lying(frame: bytes, offset: int, form: str, *values: int) -> bytes:
    return frame[:offset] + struct.pack(form, *values) + frame[offset + struct.calcsize(form) :]


@pytest.mark.parametrize("length", [*range(20, 40), 186, 187, 189, 190, 65535, 0])
def test_an_ipv4_total_length_that_lies_is_no_datagram(length: int) -> None:
    assert parse(lying(FRAME4, 2, "!H", length)) is None


@pytest.mark.parametrize("length", [0, 7, 8, 167, 169, 188, 65535])
def test_a_udp_length_that_lies_is_no_datagram(length: int) -> None:
    assert parse(lying(FRAME4, 24, "!H", length)) is None
    assert parse(lying(FRAME6, 44, "!H", length)) is None


@pytest.mark.parametrize("length", [0, 7, 8, 167, 169, 208, 65535])
def test_an_ipv6_payload_length_that_lies_is_no_datagram(length: int) -> None:
    assert parse(lying(FRAME6, 4, "!H", length)) is None


@pytest.mark.parametrize("first", [*range(0x45), *range(0x50, 0x100)])
def test_another_version_or_a_short_header_is_no_ipv4_datagram(first: int) -> None:
    assert parse(lying(FRAME4, 0, "!B", first)) is None


@pytest.mark.parametrize("protocol", [number for number in range(256) if number not in {1, 6, 17, 58}])
def test_another_protocol_is_no_datagram(protocol: int) -> None:
    assert parse(lying(FRAME4, 9, "!B", protocol)) is None
    assert parse(lying(FRAME6, 6, "!B", protocol)) is None


def test_the_other_familys_icmp_is_no_datagram() -> None:
    assert parse(lying(FRAME4, 9, "!B", 58)) is None
    assert parse(lying(FRAME6, 6, "!B", 1)) is None
    assert parse(lying(FRAME4, 9, "!B", 1)) is not None
    assert parse(lying(FRAME6, 6, "!B", 58)) is not None


ORIGIN4, HOST4 = ipaddress.ip_address("192.0.2.1").packed, ipaddress.ip_address("192.0.2.2").packed
ORIGIN6, HOST6 = ipaddress.ip_address("2001:db8::1").packed, ipaddress.ip_address("2001:db8::2").packed
HEADER4 = IP(src="192.0.2.1", dst="192.0.2.2")
HEADER6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
ENDS = {4: (HEADER4, ORIGIN4, HOST4), 6: (HEADER6, ORIGIN6, HOST6)}


@given(st.sampled_from([4, 6]), PORTS, PORTS, PAYLOADS, st.integers(0, 10), st.integers(0, 511), st.binary(max_size=9))
def test_a_tcp_segment_is_read_as_scapy_wrote_it(  # noqa: PLR0913, PLR0917  one argument a header field
    version: int, sport: int, dport: int, payload: bytes, options: int, flags: int, padding: bytes
) -> None:
    header, origin, destination = ENDS[version]
    segment = TCP(sport=sport, dport=dport, flags=flags, options=[("NOP", None)] * 4 * options)
    packet = bytes(header / segment / Raw(payload)) + padding
    assert parse(packet) == Datagram(payload, origin, destination, sport, dport, 6)


@given(st.integers(0, 255), st.integers(0, 255), PAYLOADS, st.binary(max_size=9))
def test_an_icmp_message_is_read_as_scapy_wrote_it(kind: int, code: int, payload: bytes, padding: bytes) -> None:
    message = bytes(ICMP(type=8, code=0, id=7, seq=1))
    packet = bytes(HEADER4.copy() / Raw(bytes([kind, code]) + message[2:] + payload))
    packet = lying(packet, 9, "!B", 1)
    assert IP(packet).proto == 1
    assert parse(packet + padding) == Datagram(payload, ORIGIN4, HOST4, 0, kind << 8 | code, 1)


@given(st.integers(0, 255), st.integers(0, 255), PAYLOADS, st.binary(max_size=9))
def test_an_icmpv6_message_is_read_as_scapy_wrote_it(kind: int, code: int, payload: bytes, padding: bytes) -> None:
    packet = bytes(HEADER6 / ICMPv6Unknown(type=kind, code=code, msgbody=bytes(4) + payload)) + padding
    assert parse(packet) == Datagram(payload, ORIGIN6, HOST6, 0, kind << 8 | code, 58)


@pytest.mark.parametrize(
    "packet",
    [
        bytes(HEADER4 / TCP(options=[("NOP", None)] * 4) / Raw(KNOCK)),
        bytes(HEADER6 / TCP() / Raw(KNOCK)),
        bytes(HEADER4 / ICMP() / Raw(KNOCK)),
        bytes(HEADER6 / ICMPv6EchoRequest(data=KNOCK)),
    ],
)
def test_a_segment_or_message_cut_at_any_byte_is_no_datagram(packet: bytes) -> None:
    found = parse(packet)
    assert found is not None
    assert found.payload == KNOCK
    assert [parse(packet[:length]) for length in range(len(packet))] == [None] * len(packet)


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_a_tcp_data_offset_below_its_header_is_no_datagram(offset: int) -> None:
    packet = bytes(HEADER4 / TCP() / Raw(KNOCK))
    assert parse(lying(packet, 32, "!B", offset << 4)) is None


def test_a_tcp_data_offset_beyond_the_packet_is_no_datagram() -> None:
    packet = bytes(HEADER4 / TCP() / Raw(b"x" * 39))
    assert parse(lying(packet, 32, "!B", 0xE0)) is not None
    assert parse(lying(packet, 32, "!B", 0xF0)) is None


@pytest.mark.parametrize("word", [0x2000, 0x0001, 0x0100, 0x1FFF, 0x3FFF, 0x6001])
def test_a_fragment_is_no_datagram(word: int) -> None:
    assert parse(lying(FRAME4, 6, "!H", word)) is None


@pytest.mark.parametrize("word", [0x4000, 0x8000])
def test_do_not_fragment_and_the_reserved_bit_change_nothing(word: int) -> None:
    assert parse(lying(FRAME4, 6, "!H", word)) == parse(FRAME4)


def test_an_extension_header_is_no_datagram() -> None:
    assert parse(bytes(IPv6() / IPv6ExtHdrDestOpt() / UDP() / Raw(KNOCK))) is None


@pytest.mark.parametrize("offset", [8, 24])
def test_a_mapped_ipv4_address_in_an_ipv6_header_is_no_datagram(offset: int) -> None:
    assert parse(lying(FRAME6, offset, "!10x6B", 255, 255, 192, 0, 2, 1)) is None


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x45" * 28)
@example(b"\x60" * 47)
def test_any_bytes_are_a_datagram_within_them_or_none(packet: bytes) -> None:
    datagram = parse(packet)
    assert datagram is None or datagram.payload in packet


@given(st.sampled_from([FRAME4, FRAME6]), st.data())
def test_a_changed_frame_never_gives_bytes_that_are_not_in_it(frame: bytes, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, 59))
    changed = lying(frame, offset, "!B", data.draw(st.integers(0, 255)))
    datagram = parse(changed)
    assert datagram is None or datagram.payload == changed[-len(KNOCK) :]
