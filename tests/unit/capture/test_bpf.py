from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw

from doorward.capture import bpf
from doorward.capture.frames import parse
from doorward.errors import CaptureError
from doorward.linux.bpf import INSTRUCTION_BYTES
from doorward.values import Carriers
from doorward.wire import doorward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scapy.packet import Packet

KNOCK = bytes(range(160))
MAPPED = bytes(10) + b"\xff\xff"
METADATA = 0xFFFFF000  # SKF_AD_OFF


@dataclass(frozen=True)
class Arrival:
    """A packet with the metadata that the kernel keeps beside it."""

    packet: bytes
    protocol: int = 0x0800
    packet_type: int = 0
    ifindex: int = 2


class OutOfBoundsError(Exception):
    """A load beyond the packet's end, which ends a program with a drop."""


def load(arrival: Arrival, offset: int, size: int) -> int:
    if offset >= METADATA:
        return {0: arrival.protocol, 4: arrival.packet_type, 8: arrival.ifindex}[offset - METADATA]
    if offset + size > len(arrival.packet):
        raise OutOfBoundsError
    return int.from_bytes(arrival.packet[offset : offset + size], "big")


def run(program: bytes, arrival: Arrival) -> int:  # noqa: C901, PLR0912  one branch an opcode of classic BPF
    """Interpret classic BPF as the kernel does (Documentation/networking/filter.rst)."""
    steps = list(struct.iter_unpack("=HBBI", program))
    a = x = place = 0
    memory = [0] * 16
    sizes = {0x00: 4, 0x08: 2, 0x10: 1}
    while True:
        code, true, false, k = steps[place]
        place += 1
        match code:
            case 0x20 | 0x28 | 0x30:
                a = load(arrival, k, sizes[code & 0x18])
            case 0x40 | 0x48 | 0x50:
                a = load(arrival, x + k, sizes[code & 0x18])
            case 0x80:
                a = len(arrival.packet)
            case 0x60:
                a = memory[k]
            case 0x61:
                x = memory[k]
            case 0x01:
                x = k
            case 0xB1:
                x = (load(arrival, k, 1) & 15) * 4
            case 0x02:
                memory[k] = a
            case 0x07:
                x = a
            case 0x87:
                a = x
            case 0x0C:
                a = (a + x) & 0xFFFFFFFF
            case 0x04:
                a = (a + k) & 0xFFFFFFFF
            case 0x1C:
                a = (a - x) & 0xFFFFFFFF
            case 0x14:
                a = (a - k) & 0xFFFFFFFF
            case 0x54:
                a &= k
            case 0x74:
                a >>= k
            case 0x05:
                place += k
            case 0x06:
                return int(k)
            case _:
                other = x if code & 8 else k
                condition = {0x10: a == other, 0x20: a > other, 0x30: a >= other, 0x40: bool(a & other)}[code & 0xF0]
                place += true if condition else false


def program_of(ports: Sequence[range], *arguments: Any, **options: Any) -> bytes:
    return bpf.program(Carriers(udp=tuple(ports)), *arguments, **options)


def accepts(program: bytes, arrival: Arrival) -> bool:
    try:
        return run(program, arrival) > 0
    except OutOfBoundsError:
        return False


def knock(port: int, payload: bytes = KNOCK, options: int = 0) -> bytes:
    return bytes(IP(options=[IPOption_NOP()] * options) / UDP(dport=port) / Raw(payload))


def test_a_port_is_accepted_exactly_where_a_range_holds_it() -> None:
    program = program_of([range(62201, 62202), range(10, 20), range(15, 30), range(1, 2), range(65535, 65536)])
    packet = knock(1)
    edges = {edge + step for edge in (1, 10, 15, 20, 30, 62201, 65535, 0x0A00) for step in (-1, 0, 1)}
    ports = sorted(edges & {*range(65536)} | {*range(0, 65536, 97), 0})
    accepted = [
        port for port in ports if accepts(program, Arrival(packet[:22] + struct.pack("!H", port) + packet[24:]))
    ]
    assert accepted == [port for port in ports if port in {1, *range(10, 30), 62201, 65535}]
    assert len(accepted) >= 9


def test_an_interface_is_accepted_exactly_where_it_is_named() -> None:
    def interfaces(named: list[int] | None) -> list[int]:
        program = program_of([range(9, 10)], named)
        return [index for index in range(1, 20) if accepts(program, Arrival(knock(9), ifindex=index))]

    assert interfaces([3, 7]) == [3, 7]
    assert interfaces([]) == []
    assert interfaces(None) == list(range(1, 20))


def test_only_packets_to_this_host_are_accepted() -> None:
    program = program_of([range(9, 10)])
    assert [kind for kind in range(8) if accepts(program, Arrival(knock(9), packet_type=kind))] == [0]


def test_a_promiscuous_filter_accepts_packets_to_other_hosts_too_and_none_of_our_own() -> None:
    program = program_of([range(9, 10)], promiscuous=True)
    assert [kind for kind in range(8) if accepts(program, Arrival(knock(9), packet_type=kind))] == [0, 3]


def test_a_tagged_filter_reads_behind_the_tag() -> None:
    program = program_of([range(9, 10)], tagged=True)
    packets = {version: HEADERS[version] / UDP(dport=9) / Raw(KNOCK) for version in (4, 6)}
    for version, kind in ((4, b"\x08\x00"), (6, b"\x86\xdd")):
        packet = bytes(packets[version])
        assert accepts(program, Arrival(b"\x00\x05" + kind + packet, 0x8100))
        assert not accepts(program, Arrival(b"\x00\x05\x81\x00" + packet, 0x8100))
        assert not accepts(program, Arrival(packet, 0x0800))
        cut = b"\x00\x05" + kind + packet[:-1]
        assert not accepts(program, Arrival(cut, 0x8100))


def test_only_ip_is_accepted() -> None:
    program = program_of([range(9, 10)])
    protocols = (0x0800, 0x86DD, 0x0806, 0x8100, 0x0003, 0)
    assert [protocol for protocol in protocols if accepts(program, Arrival(knock(9), protocol))] == [0x0800]


@pytest.mark.parametrize(
    ("word", "accepted"), [(0x4000, True), (0x8000, True), (0x2000, False), (1, False), (0x1FFF, False)]
)
def test_no_fragment_is_accepted(word: int, accepted: bool) -> None:  # noqa: FBT001  an expected value
    packet = knock(9)
    packet = packet[:6] + struct.pack("!H", word) + packet[8:]
    assert accepts(program_of([range(9, 10)]), Arrival(packet)) is accepted


def test_without_a_port_nothing_is_accepted() -> None:
    assert accepts(program_of([range(9, 10)]), Arrival(knock(9)))
    assert not accepts(program_of([]), Arrival(knock(9)))
    assert not accepts(program_of([range(9, 9)]), Arrival(knock(9)))


@pytest.mark.parametrize("ports", [[range(1)], [range(65536, 65537)], [range(-5, 3)], [range(22, 70000)]])
def test_a_port_outside_1_to_65535_is_refused(ports: list[range]) -> None:
    with pytest.raises(CaptureError, match="is outside 1 to 65535"):
        program_of(ports)


def test_more_than_the_kernel_takes_is_refused() -> None:
    ports = [range(port, port + 1) for port in range(1, 10000, 2)]
    with pytest.raises(CaptureError, match="more than one BPF program holds"):
        program_of(ports)
    assert len(program_of(ports[:2000])) // INSTRUCTION_BYTES <= bpf.INSTRUCTIONS_MAX
    with pytest.raises(CaptureError, match="5000 interfaces"):
        program_of([range(9, 10)], range(5000))


TAGS = [bytes([number, 200 - number, number, 1, 9, 9, 9, 9]) for number in range(1, 180)]


def tagged_knock(tag: bytes, length: int = bpf.TAGGED) -> bytes:
    return knock(9, (tag + bytes(length))[:length])


def test_a_payload_of_doorward_1_is_accepted_exactly_where_it_begins_like_a_tag() -> None:
    """Each number of tags up to some, and each of the tags: the search goes by halves, and then one by one."""
    strangers = [
        bytes(8),
        b"\xff" * 8,
        *(tag[:3] + b"\0" + tag[4:] for tag in TAGS),
        *(tag[:3] + b"\2" for tag in TAGS),
    ]
    for count in (0, 1, 2, 15, 16, 17, 33, 64, 179):
        for fwknop in (False, True):
            formats = bpf.Formats(fwknop=fwknop, doorward=True)
            program = program_of([range(9, 10)], None, formats.payload, tags=TAGS[:count])
            accepted = [tag for tag in TAGS if accepts(program, Arrival(tagged_knock(tag)))]
            assert accepted == TAGS[:count]
            assert not any(accepts(program, Arrival(tagged_knock(tag))) for tag in strangers)
            others = [length for length in range(130, 200) if accepts(program, Arrival(tagged_knock(TAGS[0], length)))]
            assert others == [one for one in range(140, 200) if (count if one == 164 else fwknop)]


def test_a_configuration_has_the_lengths_of_its_formats() -> None:
    lengths = [bpf.Formats(fwknop, tagged).payload for fwknop in (False, True) for tagged in (False, True)]
    assert lengths == [(140, 1500), (164, 164), (140, 1500), (140, 1500)]
    assert bpf.TAGGED == doorward.PACKET


def test_tags_are_found_over_every_carrier_and_behind_a_vlan_tag() -> None:
    for carriers in CARRIERS.values():
        for version in (4, 6):
            for nested in (False, True):
                program = bpf.program(carriers, payload=(164, 164), tagged=nested, tags=TAGS)
                for tag, is_known in ((TAGS[7], True), (bytes(8), False)):
                    for segment in segments(carriers, version, tag + bytes(156)):
                        packet = bytes(HEADERS[version] / segment)
                        head = b"\x00\x05" + TYPES[version].to_bytes(2, "big")
                        arrival = Arrival(head + packet, 0x8100) if nested else Arrival(packet, TYPES[version])
                        assert accepts(program, arrival) is is_known


def segments(carriers: Carriers, version: int, payload: bytes) -> list[Packet]:
    """A packet of each protocol that carriers have, as it is accepted."""
    echo = ICMP() if version == 4 else ICMPv6EchoRequest()
    return [
        *([UDP(dport=carriers.udp[0].start) / Raw(payload)] if carriers.udp else []),
        *([TCP(dport=carriers.tcp[0].start, options=[("NOP", None)] * 4) / Raw(payload)] if carriers.tcp else []),
        *([echo / Raw(payload)] if carriers.icmp or carriers.echo else []),
    ]


def test_more_tags_than_the_kernel_takes_are_refused() -> None:
    tags = [number.to_bytes(4, "big") + bytes(4) for number in range(4096)]
    with pytest.raises(CaptureError, match="and 4096 tags are more than one BPF program holds"):
        program_of([range(9, 10)], tags=tags)
    assert len(program_of([range(9, 10)], tags=tags[:1600])) // INSTRUCTION_BYTES <= bpf.INSTRUCTIONS_MAX


HEADERS: dict[int, Packet] = {4: IP(), 6: IPv6()}
TYPES = {4: 0x0800, 6: 0x86DD}
CARRIERS = {
    "tcp": Carriers(tcp=(range(1000, 40000),)),
    "syn": Carriers(syn=(range(1000, 40000),)),
    "tcp and syn": Carriers(tcp=(range(2000, 3000),), syn=(range(1000, 2000), range(5000, 5001))),
    "icmp": Carriers(icmp=True),
    "echo": Carriers(echo=True),
    "everything": Carriers((range(1000, 40000),), (range(1000, 40000),), icmp=True),
    "nothing": Carriers(),
}
EXTENDED = {name: bpf.program(carriers, payload=(10, 300)) for name, carriers in CARRIERS.items()}
NESTED = {name: bpf.program(carriers, payload=(10, 300), tagged=True) for name, carriers in CARRIERS.items()}


def wanted(carriers: Carriers, packet: bytes) -> bool:
    """Say what the filter should do, by way of the parser."""
    datagram = parse(packet)
    if datagram is None or not bpf.admits(carriers, datagram, (10, 300)):
        return False
    start = 40 if packet[0] >= 0x60 else (packet[0] & 15) * 4
    plain = any(datagram.destination_port in span for span in carriers.tcp)
    return datagram.protocol != 6 or plain or bool(packet[start + 13] & 2)


@settings(max_examples=800)
@given(
    st.sampled_from([4, 6]),
    st.sampled_from([*CARRIERS]),
    st.sampled_from(["tcp", "icmp", "udp"]),
    st.sampled_from([999, 1000, 1999, 2000, 2999, 3000, 5000, 39999, 40000]),
    st.binary(max_size=320),
    st.data(),
)  # fmt: skip  one line a group
def test_the_kernels_filter_and_the_parser_agree_on_every_carrier(  # noqa: PLR0913, PLR0917  one argument a choice
    version: int, name: str, kind: str, port: int, payload: bytes, data: st.DataObject
) -> None:
    options = [("NOP", None)] * 4 * data.draw(st.integers(0, 10))
    icmp = bytes([data.draw(st.sampled_from([0, 3, 8, 128, 129, 135])), data.draw(st.integers(0, 1))]) + bytes(6)
    layers: dict[str, Packet] = {
        "tcp": TCP(dport=port, flags=data.draw(st.sampled_from([0x02, 0x10, 0x18, 0x12])), options=options),
        "udp": UDP(dport=port),
        "icmp": Raw(icmp),
    }
    number = {"tcp": 6, "udp": 17, "icmp": 1 if version == 4 else 58}[kind]
    header = IP(proto=number) if version == 4 else IPv6(nh=number)
    packet = bytes(header / layers[kind] / Raw(payload))
    for _ in range(data.draw(st.integers(0, 2))):
        offset = data.draw(st.integers(0, min(80, len(packet)) - 1))
        packet = packet[:offset] + bytes([data.draw(st.integers(0, 255))]) + packet[offset + 1 :]
    packet = packet[: data.draw(st.sampled_from([len(packet), len(packet) - 1, 27, 40, 41, 60]))]
    mapped = version == 6 and MAPPED in {packet[8:20], packet[24:36]}  # the filter leaves these to the parser
    kernels = accepts(EXTENDED[name], Arrival(packet, TYPES[version]))
    assert mapped or kernels == (packet[:1] != b"" and packet[0] >> 4 == version and wanted(CARRIERS[name], packet))
    tagged = Arrival(b"\x00\x05" + struct.pack("!H", TYPES[version]) + packet, 0x8100)
    assert accepts(NESTED[name], tagged) == kernels


def test_the_agreement_is_about_accepted_packets_too() -> None:
    segment = bytes(IP() / TCP(dport=1000, flags="S") / Raw(bytes(100)))
    echo = bytes(IP() / ICMP() / Raw(bytes(100)))
    error = bytes(IP() / ICMP(type=3) / Raw(bytes(100)))
    pong = bytes(IPv6() / ICMPv6EchoReply(data=bytes(100)))
    late = bytes(IP() / TCP(dport=1000, flags="PA") / Raw(bytes(100)))

    def seen(name: str) -> list[bool]:
        packets = [segment, late, echo, error]
        return [accepts(EXTENDED[name], Arrival(packet)) for packet in packets] + [
            accepts(EXTENDED[name], Arrival(pong, 0x86DD))
        ]

    assert seen("tcp") == [True, True, False, False, False]
    assert seen("syn") == [True, False, False, False, False]
    assert seen("tcp and syn") == [True, False, False, False, False]
    assert seen("icmp") == [False, False, True, True, True]
    assert seen("echo") == [False, False, True, False, True]
    assert seen("everything") == [True, True, True, True, True]
    assert seen("nothing") == [False, False, False, False, False]


PROGRAM = program_of([range(1000, 40000)], payload=(10, 300))


@settings(max_examples=400)
@given(
    st.sampled_from([4, 6]),
    st.integers(0, 65535),
    st.binary(max_size=320),
    st.integers(0, 40),
    st.data(),
)  # fmt: skip  one line a group
def test_the_kernels_filter_and_the_parser_agree(
    version: int, port: int, payload: bytes, options: int, data: st.DataObject
) -> None:
    packet = knock(port, payload, options) if version == 4 else bytes(IPv6() / UDP(dport=port) / Raw(payload))
    for _ in range(data.draw(st.integers(0, 2))):
        offset = data.draw(st.integers(0, len(packet) - 1))
        packet = packet[:offset] + bytes([data.draw(st.integers(0, 255))]) + packet[offset + 1 :]
    packet = packet[: data.draw(st.sampled_from([len(packet), len(packet) - 1, 27, 40]))]
    datagram = parse(packet)
    mapped = version == 6 and MAPPED in {packet[8:20], packet[24:36]}  # the filter leaves these to the parser
    wanted = datagram is not None and 1000 <= datagram.destination_port < 40000 and 10 <= len(datagram.payload) <= 300
    accepted = accepts(PROGRAM, Arrival(packet, 0x0800 if version == 4 else 0x86DD))
    assert mapped or accepted == wanted
