"""The classic BPF program that decides in the kernel which packets doorwardd ever sees. Pure.

It runs on cooked AF_PACKET sockets (SOCK_DGRAM), where offset 0 is the first byte of the IP header. A load beyond the
packet's end drops it (Linux Documentation/networking/filter.rst), so a truncated header needs no check of its own.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.errors import CaptureError
from doorward.values import PORT_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doorward.values import Carriers, Datagram

PAYLOAD_MIN: Final = 140  # bytes; fwknop's MIN_SPA_DATA_SIZE (lib/fko_limits.h)
PAYLOAD_MAX: Final = 1500  # bytes; fwknop's MAX_SPA_PACKET_LEN
INSTRUCTIONS_MAX: Final = 4096  # BPF_MAXINSNS
VLAN_TAG: Final = 4  # bytes: a tag's control word and the type of what follows (IEEE 802.1Q)
INSTRUCTION_BYTES: Final = 8  # struct sock_filter: code, jump if true, jump if false, k
ACCEPT: Final = 0xFFFF  # bytes of the packet to keep: all of it

_SOCK_FILTER: Final = struct.Struct("=HBBI")
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
_LDX_IMM, _LDX_MEM, _LDX_IHL = 0x01, 0x61, 0xB1
_ST, _TAX, _TXA, _ADD_X, _ADD_K, _SUB_X, _AND_K, _RSH_K = 0x02, 0x07, 0x87, 0x0C, 0x04, 0x1C, 0x54, 0x74
_JA, _JEQ, _JGT, _JGE, _JSET, _JEQ_X, _JGE_X, _RET = 0x05, 0x15, 0x25, 0x35, 0x45, 0x1D, 0x3D, 0x06
_IP_END, _UDP_END, _PORT, _NEXT, _HEADER = range(5)  # scratch cells: ends in bytes, port, next header, TCP's length


class _Step(NamedTuple):
    """One instruction. A jump has a label; a condition jumps there where it turns out as `when` says."""

    code: int
    k: int = 0
    label: str = ""
    when: bool = True


_Source = list[_Step | str]  # a string marks the place of a label
_DROP: Final = _Step(_JA, label="drop")


def program(
    carriers: Carriers,
    ifindexes: Sequence[int] | None = None,
    payload: tuple[int, int] = (PAYLOAD_MIN, PAYLOAD_MAX),
    *,
    promiscuous: bool = False,
    tagged: bool = False,
) -> bytes:
    """Return the struct sock_filter array for `carriers` with a payload of `payload` bytes, both ends included.

    `ifindexes` None accepts every interface, an empty sequence none. Let in are packets to this host only, with
    `promiscuous` also those to another's hardware: in one piece, without IPv6 extension headers, whose lengths agree
    and lie within what arrived. Checksums are not looked at: a tap sees them before the hardware or the peer's offload
    has filled them in. Where `tagged`, a second VLAN tag stands before the IP header.

    Raises:
        CaptureError: a port outside 1 to 65535, or more of them or of interfaces than the kernel takes.
    """
    source = [
        *_to_this_host(promiscuous=promiscuous),
        *_on_interfaces(ifindexes),
        *((_Step(_LD_H, 2),) if tagged else (_Step(_LD_H, _PROTOCOL),)),
        *_ip_header(carriers, VLAN_TAG if tagged else 0),
        *_udp(carriers, *payload),
        *_tcp(carriers, *payload),
        *_icmp(carriers, *payload),
        *("drop", _Step(_RET, 0)),
        *("accept", _Step(_RET, ACCEPT)),
    ]
    if sum(map(_size, source)) > INSTRUCTIONS_MAX:
        count = sum(map(len, (carriers.udp, carriers.tcp, carriers.syn)))
        msg = f"{count} port ranges on {len(ifindexes or ())} interfaces are more than one BPF program holds"
        raise CaptureError(msg)
    return _assemble(source)


def datagrams(payload: tuple[int, int] = (PAYLOAD_MIN, PAYLOAD_MAX)) -> bytes:
    """Return the filter of a UDP server's socket: what is sent to this host alone, with a payload of these bytes.

    There offset 0 is the first byte of the UDP header, and the kernel has checked it.
    """
    low, high = (length + _UDP_HEADER for length in payload)
    source = [
        *_to_this_host(promiscuous=False),
        *(_Step(_LD_LEN), _need(_JGE, low), _Step(_JGT, high, "drop"), _Step(_RET, ACCEPT)),
        *("drop", _Step(_RET, 0)),
    ]
    return _assemble(source)


def admits(carriers: Carriers, datagram: Datagram, payload: tuple[int, int] = (PAYLOAD_MIN, PAYLOAD_MAX)) -> bool:
    """Say whether the filter lets a datagram in that did not come through a kernel; interfaces and flags aside."""
    if not payload[0] <= len(datagram.payload) <= payload[1]:
        return False
    if datagram.protocol in {_UDP, _TCP}:
        spans = carriers.udp if datagram.protocol == _UDP else (*carriers.tcp, *carriers.syn)
        return any(datagram.destination_port in span for span in spans)
    echoes = _ECHO["icmp4" if datagram.protocol == _ICMP else "icmp6"]
    return carriers.icmp or (carriers.echo and datagram.destination_port in echoes)


def _need(code: int, k: int = 0) -> _Step:
    """Return the condition without which the packet is dropped."""
    return _Step(code, k, "drop", when=False)


def _to_this_host(*, promiscuous: bool) -> _Source:
    """Return the steps that drop what is sent by this host or to all, and what is addressed to another's hardware.

    A frame of a VLAN that has no interface here is another's for the kernel too (__netif_receive_skb_core).
    """
    others = [_Step(_JEQ, _PACKET_OTHERHOST, "ours")] if promiscuous else []
    return [_Step(_LD_W, _PACKET_TYPE), *others, _need(_JEQ, _PACKET_HOST), "ours"]


def _on_interfaces(ifindexes: Sequence[int] | None) -> _Source:
    """Return the steps that drop what came in on another interface."""
    if ifindexes is None:
        return []
    fits = [_Step(_JEQ, index, "interface") for index in ifindexes]
    return [_Step(_LD_W, _INTERFACE), *fits, _DROP, "interface"]


def _ip_header(carriers: Carriers, at: int) -> _Source:
    """Return the steps that leave the end of the IP packet in _IP_END and the next header's offset in X.

    Its type is in A, and it begins `at` so many bytes.
    """
    return [
        _Step(_JEQ, _IPV6, "ipv6"),
        _need(_JEQ, _IPV4),
        *(_Step(_LD_B, at), _Step(_AND_K, 0xF0), _need(_JEQ, 0x40)),
        *(_Step(_LD_H, at + 6), _Step(_JSET, _MORE_FRAGMENTS_OR_OFFSET, "drop")),
        *(_Step(_LD_H, at + 2), _Step(_ADD_K, at), _Step(_ST, _IP_END)),
        *(_Step(_LDX_IHL, at), _Step(_TXA), _need(_JGE, _IPV4_HEADER), _Step(_ADD_K, at), _Step(_TAX)),
        *(_Step(_LD_B, at + 9), *_dispatch(carriers, _ICMP, "icmp4")),
        "ipv6",
        *(_Step(_LD_B, at), _Step(_AND_K, 0xF0), _need(_JEQ, 0x60)),
        *(_Step(_LD_H, at + 4), _Step(_ADD_K, at + _IPV6_HEADER), _Step(_ST, _IP_END)),
        _Step(_LDX_IMM, at + _IPV6_HEADER),
        *(_Step(_LD_B, at + 6), *_dispatch(carriers, _ICMPV6, "icmp6")),
    ]


def _dispatch(carriers: Carriers, icmp: int, label: str) -> _Source:
    """Return the steps that go where the protocol in A is looked at, and drop one that carries no knock here."""
    steps: _Source = []
    if carriers.udp:
        steps += [_Step(_JEQ, _UDP, "udp")]
    if carriers.tcp or carriers.syn:
        steps += [_Step(_JEQ, _TCP, "tcp")]
    if carriers.icmp or carriers.echo:
        steps += [_Step(_JEQ, icmp, label)]
    return [*steps, _DROP]


def _udp(carriers: Carriers, payload_min: int, payload_max: int) -> _Source:
    """Return the steps that drop what has another length than the UDP header says, or another port."""
    if not carriers.udp:
        return []
    return [
        "udp",
        _Step(_LD_H_X, 4),
        _need(_JGE, payload_min + _UDP_HEADER),
        _Step(_JGT, payload_max + _UDP_HEADER, "drop"),
        *(_Step(_ADD_X), _Step(_ST, _UDP_END), _Step(_LD_H_X, 2), _Step(_ST, _PORT)),
        *(_Step(_LD_MEM, _UDP_END), _Step(_LDX_MEM, _IP_END), _need(_JEQ_X)),
        *(_Step(_LD_LEN), _need(_JGE_X)),
        _Step(_LD_MEM, _PORT),
        *_to_ports(carriers.udp, "udp"),
    ]


def _tcp(carriers: Carriers, payload_min: int, payload_max: int) -> _Source:
    """Return the steps for one segment with a payload; the data offset says where that begins (RFC 9293)."""
    if not carriers.tcp and not carriers.syn:
        return []
    first = [_Step(_LD_B_X, 13), _need(_JSET, _SYN), _Step(_LD_H_X, 2), *_to_ports(carriers.syn, "syn")]
    return [
        "tcp",
        *(_Step(_LD_B_X, 12), _Step(_AND_K, 0xF0), _Step(_RSH_K, 2), _need(_JGE, _TCP_HEADER), _Step(_ST, _HEADER)),
        *(_Step(_TXA), _Step(_ST, _NEXT)),
        *(_Step(_LDX_MEM, _HEADER), _Step(_ADD_X), _Step(_TAX)),
        *_payload(payload_min, payload_max),
        *(_Step(_LDX_MEM, _NEXT), _Step(_LD_H_X, 2)),
        *_to_ports(carriers.tcp, "tcp", "first segments" if carriers.syn else "drop"),
        *(["first segments", *first] if carriers.syn else []),
    ]


def _icmp(carriers: Carriers, payload_min: int, payload_max: int) -> _Source:
    """Return the steps for ICMP and ICMPv6 messages with a payload behind their 8 bytes."""
    if not carriers.icmp and not carriers.echo:
        return []
    steps: _Source = []
    for label, kinds in _ECHO.items():
        fits = [_Step(_LD_H_X, 0), *(_Step(_JEQ, kind, "icmp") for kind in kinds), _DROP]
        steps += [label, *([_Step(_JA, label="icmp")] if carriers.icmp else fits)]
    return [
        *steps,
        *("icmp", _Step(_TXA), _Step(_ADD_K, _ICMP_HEADER), _Step(_TAX)),
        *_payload(payload_min, payload_max),
        _Step(_JA, label="accept"),
    ]


def _payload(payload_min: int, payload_max: int) -> _Source:
    """Return the steps that drop where from the offset in X to _IP_END is no payload; one before X is a huge one."""
    return [
        *(_Step(_LD_MEM, _IP_END), _Step(_SUB_X), _need(_JGE, payload_min), _Step(_JGT, payload_max, "drop")),
        *(_Step(_LD_LEN), _Step(_LDX_MEM, _IP_END), _need(_JGE_X)),
    ]


def _to_ports(ports: Sequence[range], name: str, otherwise: str = "drop") -> _Source:
    """Return the steps that accept the port in A where a range holds it, and go elsewhere with any other."""
    steps: _Source = []
    for number, (first, last) in enumerate(_merged(ports)):
        if first == last:
            steps += [_Step(_JEQ, first, "accept")]
        else:
            above = f"{name} above {number}"
            steps += [_Step(_JGE, first, above), _Step(_JA, label=otherwise), above]
            steps += [_Step(_JGT, last, "accept", when=False)]
    return [*steps, _Step(_JA, label=otherwise)]


def _merged(ports: Sequence[range]) -> list[tuple[int, int]]:
    """Return the ranges as ascending pairs of first and last port, none touching another."""
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


def _size(step: _Step | str) -> int:
    """Return how many instructions a line of the source becomes."""
    if isinstance(step, str):
        return 0
    return 2 if step.label and step.code != _JA else 1


def _assemble(source: _Source) -> bytes:
    """Return the instructions. A condition steps over an unconditional jump, whose reach is not 8 but 32 bits."""
    labels: dict[str, int] = {}
    end = 0
    for step in source:
        if isinstance(step, str):
            labels[step] = end
        end += _size(step)
    encoded = b""
    for step in source:
        if isinstance(step, str):
            continue
        if _size(step) > 1:
            encoded += _SOCK_FILTER.pack(step.code, 0 if step.when else 1, 1 if step.when else 0, step.k)
        place = len(encoded) // INSTRUCTION_BYTES + 1
        jump = _SOCK_FILTER.pack(_JA, 0, 0, labels[step.label] - place) if step.label else b""
        encoded += jump or _SOCK_FILTER.pack(step.code, 0, 0, step.k)
    return encoded
