"""The classic BPF program that decides in the kernel which packets doorwardd ever sees. Pure.

It runs on cooked AF_PACKET sockets (SOCK_DGRAM), where offset 0 is the first byte of the IP header. A load beyond the
packet's end drops it (Linux Documentation/networking/filter.rst), so a truncated header needs no check of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.errors import CaptureError
from doorward.frozen import dataclass
from doorward.linux.bpf import JA, JEQ, JEQ_X, JGE, JGE_X, JGT, JSET, RET, Source, Step, assemble, size
from doorward.values import PORT_MAX

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from doorward.values import Carriers, Datagram

PAYLOAD_MIN: Final = 140  # bytes; fwknop's MIN_SPA_DATA_SIZE (lib/fko_limits.h)
PAYLOAD_MAX: Final = 1500  # bytes; fwknop's MAX_SPA_PACKET_LEN
TAGGED: Final = 164  # bytes of every packet of the format doorward 1, and of none of fwknop's
MAGIC: Final = 106  # bytes of every magic packet, and of no other format's
INSTRUCTIONS_MAX: Final = 4096  # BPF_MAXINSNS
VLAN_TAG: Final = 4  # bytes: a tag's control word and the next type (IEEE 802.1Q)
ACCEPT: Final = 0xFFFF  # bytes of the packet to keep: all of it

_AD: Final = 0xFFFFF000  # SKF_AD_OFF: loads from here on read the packet's metadata
_PROTOCOL, _PACKET_TYPE, _INTERFACE = _AD, _AD + 4, _AD + 8
_PACKET_HOST, _PACKET_OTHERHOST = 0, 3  # linux/if_packet.h
_IPV4, _IPV6 = 0x0800, 0x86DD
_ICMP, _TCP, _UDP, _ICMPV6 = 1, 6, 17, 58
_SYN: Final = 0x02  # RFC 9293
_MORE_FRAGMENTS_OR_OFFSET: Final = 0x3FFF  # RFC 791: bits 2 and 3 to 15 of the fragment word
_ICMP_HEADER, _UDP_HEADER, _IPV4_HEADER, _TCP_HEADER, _IPV6_HEADER = 8, 8, 20, 20, 40  # bytes
_ECHO: Final = {"icmp4": (0x0000, 0x0800), "icmp6": (0x8000, 0x8100)}  # type and code of echo replies and requests

# linux/bpf_common.h
_LD_W, _LD_H, _LD_B, _LD_LEN, _LD_H_X, _LD_B_X, _LD_MEM = 0x20, 0x28, 0x30, 0x80, 0x48, 0x50, 0x60
_LD_W_X: Final = 0x40
_LDX_IMM, _LDX_MEM, _LDX_IHL = 0x01, 0x61, 0xB1
_ST, _TAX, _TXA, _ADD_X, _ADD_K, _SUB_X, _SUB_K, _AND_K, _RSH_K = 0x02, 0x07, 0x87, 0x0C, 0x04, 0x1C, 0x14, 0x54, 0x74
# scratch cells: ends in bytes, port, next header, TCP's length; beginning and length of the payload
_IP_END, _UDP_END, _PORT, _NEXT, _HEADER, _PAYLOAD, _LENGTH = range(7)
_HEAD: Final = 4  # bytes of a tag that are compared; the listener compares all of them
_LEAF: Final = 16  # tags that are compared one after the other

_DROP: Final = Step(JA, label="drop")


@dataclass(frozen=True, slots=True)
class Formats:
    """The formats for whose packets a configuration has keys."""

    fwknop: bool = True
    doorward: bool = False
    magic: bool = False  # of them alone: they have a filter of their own

    @property
    def payload(self) -> tuple[int, int]:
        """The shortest and the longest payload."""
        if self.magic:
            return MAGIC, MAGIC
        return (PAYLOAD_MIN, PAYLOAD_MAX) if self.fwknop or not self.doorward else (TAGGED, TAGGED)


def program(  # noqa: PLR0913  what a packet is asked, each named
    carriers: Carriers,
    ifindexes: Sequence[int] | None = None,
    payload: tuple[int, int] = (PAYLOAD_MIN, PAYLOAD_MAX),
    *,
    promiscuous: bool = False,
    tagged: bool = False,
    tags: Collection[bytes] | None = None,
) -> bytes:
    """The struct sock_filter array for `carriers` with a payload of `payload` bytes, both ends included.

    `ifindexes` None accepts every interface, an empty sequence none. The program accepts packets to this host, with
    `promiscuous` also those to other hardware addresses: unfragmented, without IPv6 extension headers, with lengths
    that agree and lie within the frame. It ignores checksums: a tap sees them before the hardware or the peer's offload
    has filled them in. With `tagged`, a second VLAN tag precedes the IP header. With `tags`, a payload of TAGGED bytes
    passes only where it begins like one of them.

    Raises:
        CaptureError: a port outside 1 to 65535, or more of them, of interfaces or of tags than the kernel takes.
    """
    source = [
        *_to_this_host(promiscuous=promiscuous),
        *_on_interfaces(ifindexes),
        *((Step(_LD_H, 2),) if tagged else (Step(_LD_H, _PROTOCOL),)),
        *_ip_header(carriers, VLAN_TAG if tagged else 0),
        *_udp(carriers, *payload),
        *_tcp(carriers, *payload),
        *_icmp(carriers, *payload),
        "accept",
        *_by_tag(tags),
        *("tagged", Step(RET, ACCEPT)),
        *("drop", Step(RET, 0)),
    ]
    if sum(map(size, source)) > INSTRUCTIONS_MAX:
        count = sum(map(len, (carriers.udp, carriers.tcp, carriers.syn)))
        known = "" if tags is None else f" and {len(tags)} tags"
        msg = f"{count} port ranges on {len(ifindexes or ())} interfaces{known} are more than one BPF program holds"
        raise CaptureError(msg)
    return assemble(source)


def _by_tag(tags: Collection[bytes] | None) -> Source:
    """The steps that drop a payload of TAGGED bytes that begins like none of these; None drops none."""
    if tags is None:
        return []
    heads = sorted({int.from_bytes(tag[:_HEAD], "big") for tag in tags})
    return [
        *(Step(_LD_MEM, _LENGTH), Step(JEQ, TAGGED, "tagged", when=False)),
        *(Step(_LDX_MEM, _PAYLOAD), Step(_LD_W_X, 0)),
        *_search(heads, "head"),
    ]


def _search(heads: Sequence[int], name: str) -> Source:
    """The steps that look for A among ascending numbers: by halves, and at the end one by one."""
    if len(heads) <= _LEAF:
        return [*(Step(JEQ, head, "tagged") for head in heads), _DROP]
    middle, above = len(heads) // 2, f"{name} above"
    return [
        Step(JGE, heads[middle], above),
        *_search(heads[:middle], f"{name} below"),
        above,
        *_search(heads[middle:], above),
    ]


def datagrams(payload: tuple[int, int] = (PAYLOAD_MIN, PAYLOAD_MAX)) -> bytes:
    """The filter of a UDP server's socket: packets to this host alone, with a payload of these lengths.

    Offset 0 is the first byte of the UDP header there, and the kernel has checked it.
    """
    low, high = (length + _UDP_HEADER for length in payload)
    source = [
        *_to_this_host(promiscuous=False),
        *(Step(_LD_LEN), _need(JGE, low), Step(JGT, high, "drop"), Step(RET, ACCEPT)),
        *("drop", Step(RET, 0)),
    ]
    return assemble(source)


def nothing() -> bytes:
    """The filter of a socket that nobody reads: no packet waits in it."""
    return assemble([Step(RET, 0)])


def admits(carriers: Carriers, datagram: Datagram, payload: tuple[int, int] = (PAYLOAD_MIN, PAYLOAD_MAX)) -> bool:
    """Whether the filter would accept a datagram of a capture file, by its length, protocol and port."""
    if not payload[0] <= len(datagram.payload) <= payload[1]:
        return False
    if datagram.protocol in {_UDP, _TCP}:
        spans = carriers.udp if datagram.protocol == _UDP else (*carriers.tcp, *carriers.syn)
        return any(datagram.destination_port in span for span in spans)
    echoes = _ECHO["icmp4" if datagram.protocol == _ICMP else "icmp6"]
    return carriers.icmp or (carriers.echo and datagram.destination_port in echoes)


def _need(code: int, k: int = 0) -> Step:
    """A condition; the packet is dropped where it does not hold."""
    return Step(code, k, "drop", when=False)


def _to_this_host(*, promiscuous: bool) -> Source:
    """The steps that drop packets sent by this host, broadcasts, and packets to other hardware addresses.

    To the kernel a frame of a VLAN without an interface here is for another host too (__netif_receive_skb_core).
    """
    others = [Step(JEQ, _PACKET_OTHERHOST, "ours")] if promiscuous else []
    return [Step(_LD_W, _PACKET_TYPE), *others, _need(JEQ, _PACKET_HOST), "ours"]


def _on_interfaces(ifindexes: Sequence[int] | None) -> Source:
    """The steps that drop packets from other interfaces."""
    if ifindexes is None:
        return []
    fits = [Step(JEQ, index, "interface") for index in ifindexes]
    return [Step(_LD_W, _INTERFACE), *fits, _DROP, "interface"]


def _ip_header(carriers: Carriers, at: int) -> Source:
    """The steps that put the end of the IP packet into _IP_END and the next header's offset into X.

    A holds the Ethernet type; the IP header begins at offset `at`.
    """
    return [
        Step(JEQ, _IPV6, "ipv6"),
        _need(JEQ, _IPV4),
        *(Step(_LD_B, at), Step(_AND_K, 0xF0), _need(JEQ, 0x40)),
        *(Step(_LD_H, at + 6), Step(JSET, _MORE_FRAGMENTS_OR_OFFSET, "drop")),
        *(Step(_LD_H, at + 2), Step(_ADD_K, at), Step(_ST, _IP_END)),
        *(Step(_LDX_IHL, at), Step(_TXA), _need(JGE, _IPV4_HEADER), Step(_ADD_K, at), Step(_TAX)),
        *(Step(_LD_B, at + 9), *_dispatch(carriers, _ICMP, "icmp4")),
        "ipv6",
        *(Step(_LD_B, at), Step(_AND_K, 0xF0), _need(JEQ, 0x60)),
        *(Step(_LD_H, at + 4), Step(_ADD_K, at + _IPV6_HEADER), Step(_ST, _IP_END)),
        Step(_LDX_IMM, at + _IPV6_HEADER),
        *(Step(_LD_B, at + 6), *_dispatch(carriers, _ICMPV6, "icmp6")),
    ]


def _dispatch(carriers: Carriers, icmp: int, label: str) -> Source:
    """The steps that jump to the tests of the protocol in A, and drop protocols that carry no knock here."""
    steps: Source = []
    if carriers.udp:
        steps += [Step(JEQ, _UDP, "udp")]
    if carriers.tcp or carriers.syn:
        steps += [Step(JEQ, _TCP, "tcp")]
    if carriers.icmp or carriers.echo:
        steps += [Step(JEQ, icmp, label)]
    return [*steps, _DROP]


def _udp(carriers: Carriers, payload_min: int, payload_max: int) -> Source:
    """The steps that drop packets of another length than the UDP header says, or to another port."""
    if not carriers.udp:
        return []
    return [
        "udp",
        *(Step(_TXA), Step(_ADD_K, _UDP_HEADER), Step(_ST, _PAYLOAD)),
        *(Step(_LD_H_X, 4), Step(_SUB_K, _UDP_HEADER), Step(_ST, _LENGTH)),
        Step(_LD_H_X, 4),
        _need(JGE, payload_min + _UDP_HEADER),
        Step(JGT, payload_max + _UDP_HEADER, "drop"),
        *(Step(_ADD_X), Step(_ST, _UDP_END), Step(_LD_H_X, 2), Step(_ST, _PORT)),
        *(Step(_LD_MEM, _UDP_END), Step(_LDX_MEM, _IP_END), _need(JEQ_X)),
        *(Step(_LD_LEN), _need(JGE_X)),
        Step(_LD_MEM, _PORT),
        *_to_ports(carriers.udp, "udp"),
    ]


def _tcp(carriers: Carriers, payload_min: int, payload_max: int) -> Source:
    """The steps for one segment with a payload; the data offset says where that begins (RFC 9293)."""
    if not carriers.tcp and not carriers.syn:
        return []
    first = [Step(_LD_B_X, 13), _need(JSET, _SYN), Step(_LD_H_X, 2), *_to_ports(carriers.syn, "syn")]
    return [
        "tcp",
        *(Step(_LD_B_X, 12), Step(_AND_K, 0xF0), Step(_RSH_K, 2), _need(JGE, _TCP_HEADER), Step(_ST, _HEADER)),
        *(Step(_TXA), Step(_ST, _NEXT)),
        *(Step(_LDX_MEM, _HEADER), Step(_ADD_X), Step(_TAX)),
        *_payload(payload_min, payload_max),
        *(Step(_LDX_MEM, _NEXT), Step(_LD_H_X, 2)),
        *_to_ports(carriers.tcp, "tcp", "first segments" if carriers.syn else "drop"),
        *(["first segments", *first] if carriers.syn else []),
    ]


def _icmp(carriers: Carriers, payload_min: int, payload_max: int) -> Source:
    """The steps for ICMP and ICMPv6 messages with a payload behind their 8 bytes."""
    if not carriers.icmp and not carriers.echo:
        return []
    steps: Source = []
    for label, kinds in _ECHO.items():
        fits = [Step(_LD_H_X, 0), *(Step(JEQ, kind, "icmp") for kind in kinds), _DROP]
        steps += [label, *([Step(JA, label="icmp")] if carriers.icmp else fits)]
    return [
        *steps,
        *("icmp", Step(_TXA), Step(_ADD_K, _ICMP_HEADER), Step(_TAX)),
        *_payload(payload_min, payload_max),
        Step(JA, label="accept"),
    ]


def _payload(payload_min: int, payload_max: int) -> Source:
    """The steps that drop packets without a payload from X to _IP_END; an end before X wraps to a huge length."""
    return [
        *(Step(_LD_MEM, _IP_END), Step(_SUB_X), _need(JGE, payload_min), Step(JGT, payload_max, "drop")),
        *(Step(_ST, _LENGTH), Step(_TXA), Step(_ST, _PAYLOAD)),
        *(Step(_LD_LEN), Step(_LDX_MEM, _IP_END), _need(JGE_X)),
    ]


def _to_ports(ports: Sequence[range], name: str, otherwise: str = "drop") -> Source:
    """The steps that accept the port in A if a range holds it, and otherwise jump to `otherwise`."""
    steps: Source = []
    for number, (first, last) in enumerate(_merged(ports)):
        if first == last:
            steps += [Step(JEQ, first, "accept")]
        else:
            above = f"{name} above {number}"
            steps += [Step(JGE, first, above), Step(JA, label=otherwise), above]
            steps += [Step(JGT, last, "accept", when=False)]
    return [*steps, Step(JA, label=otherwise)]


def _merged(ports: Sequence[range]) -> list[tuple[int, int]]:
    """The ranges as ascending pairs of first and last port, none touching another."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted((min(span), max(span)) for span in ports if span):
        if not 1 <= first <= last <= PORT_MAX:
            msg = f"port {first if first < 1 else last} is outside 1 to {PORT_MAX}"
            raise CaptureError(msg)
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
