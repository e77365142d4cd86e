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

PAYLOAD_MIN: Final = 140  # bytes; fwknop's MIN_SPA_DATA_SIZE (lib/fko_limits.h)
PAYLOAD_MAX: Final = 1500  # bytes; fwknop's MAX_SPA_PACKET_LEN
INSTRUCTIONS_MAX: Final = 4096  # BPF_MAXINSNS
INSTRUCTION_BYTES: Final = 8  # struct sock_filter: code, jump if true, jump if false, k
ACCEPT: Final = 0xFFFF  # bytes of the packet to keep: all of it

_SOCK_FILTER: Final = struct.Struct("=HBBI")
_AD: Final = 0xFFFFF000  # SKF_AD_OFF: loads from here on read the packet's metadata
_PROTOCOL, _PACKET_TYPE, _INTERFACE = _AD, _AD + 4, _AD + 8
_PACKET_HOST: Final = 0
_IPV4, _IPV6, _UDP = 0x0800, 0x86DD, 17
_MORE_FRAGMENTS_OR_OFFSET: Final = 0x3FFF  # RFC 791: bits 2 and 3 to 15 of the fragment word
_UDP_HEADER, _IPV4_HEADER, _IPV6_HEADER = 8, 20, 40  # bytes

# linux/bpf_common.h
_LD_W, _LD_H, _LD_B, _LD_LEN, _LD_H_X, _LD_MEM = 0x20, 0x28, 0x30, 0x80, 0x48, 0x60
_LDX_IMM, _LDX_MEM, _LDX_IHL = 0x01, 0x61, 0xB1
_ST, _TAX, _TXA, _ADD_X, _ADD_K, _AND_K = 0x02, 0x07, 0x87, 0x0C, 0x04, 0x54
_JA, _JEQ, _JGT, _JGE, _JSET, _JEQ_X, _JGE_X, _RET = 0x05, 0x15, 0x25, 0x35, 0x45, 0x1D, 0x3D, 0x06
_IP_END, _UDP_END, _PORT = 0, 1, 2  # scratch cells: the ends in bytes from the packet's start, the port


class _Step(NamedTuple):
    """One instruction. A jump has a label; a condition jumps there where it turns out as `when` says."""

    code: int
    k: int = 0
    label: str = ""
    when: bool = True


_Source = list[_Step | str]  # a string marks the place of a label
_DROP: Final = _Step(_JA, label="drop")


def program(
    ports: Sequence[range],
    ifindexes: Sequence[int] | None = None,
    payload: tuple[int, int] = (PAYLOAD_MIN, PAYLOAD_MAX),
) -> bytes:
    """Return the struct sock_filter array for UDP to `ports` with a payload of `payload` bytes, both ends included.

    `ifindexes` None accepts every interface, an empty sequence none. Let in are packets to this host only, in one
    piece, without IPv6 extension headers, whose IP and UDP lengths agree and lie within what arrived. UDP checksums
    are not looked at: a tap sees them before the hardware or the peer's offload has filled them in.

    Raises:
        CaptureError: a port outside 1 to 65535, or more of them or of interfaces than the kernel takes.
    """
    source = [
        *_to_this_host(),
        *_on_interfaces(ifindexes),
        *_ip_header(),
        *_udp_header(*payload),
        *_to_ports(ports),
        *("drop", _Step(_RET, 0)),
        *("accept", _Step(_RET, ACCEPT)),
    ]
    if sum(map(_size, source)) > INSTRUCTIONS_MAX:
        msg = f"{len(ports)} port ranges on {len(ifindexes or ())} interfaces are more than one BPF program holds"
        raise CaptureError(msg)
    return _assemble(source)


def _need(code: int, k: int = 0) -> _Step:
    """Return the condition without which the packet is dropped."""
    return _Step(code, k, "drop", when=False)


def _to_this_host() -> _Source:
    """Return the steps that drop what is sent by this host or addressed to another's hardware, or to all."""
    return [_Step(_LD_W, _PACKET_TYPE), _need(_JEQ, _PACKET_HOST)]


def _on_interfaces(ifindexes: Sequence[int] | None) -> _Source:
    """Return the steps that drop what came in on another interface."""
    if ifindexes is None:
        return []
    fits = [_Step(_JEQ, index, "interface") for index in ifindexes]
    return [_Step(_LD_W, _INTERFACE), *fits, _DROP, "interface"]


def _ip_header() -> _Source:
    """Return the steps that leave the end of the IP packet in _IP_END and the UDP header's offset in X."""
    return [
        _Step(_LD_H, _PROTOCOL),
        _Step(_JEQ, _IPV6, "ipv6"),
        _need(_JEQ, _IPV4),
        *(_Step(_LD_B, 0), _Step(_AND_K, 0xF0), _need(_JEQ, 0x40)),
        *(_Step(_LD_B, 9), _need(_JEQ, _UDP)),
        *(_Step(_LD_H, 6), _Step(_JSET, _MORE_FRAGMENTS_OR_OFFSET, "drop")),
        *(_Step(_LD_H, 2), _Step(_ST, _IP_END)),
        *(_Step(_LDX_IHL, 0), _Step(_TXA), _need(_JGE, _IPV4_HEADER)),
        _Step(_JA, label="udp"),
        "ipv6",
        *(_Step(_LD_B, 0), _Step(_AND_K, 0xF0), _need(_JEQ, 0x60)),
        *(_Step(_LD_B, 6), _need(_JEQ, _UDP)),
        *(_Step(_LD_H, 4), _Step(_ADD_K, _IPV6_HEADER), _Step(_ST, _IP_END)),
        _Step(_LDX_IMM, _IPV6_HEADER),
        "udp",
    ]


def _udp_header(payload_min: int, payload_max: int) -> _Source:
    """Return the steps that drop what has another length than the UDP header says; they leave the port in A."""
    return [
        _Step(_LD_H_X, 4),
        _need(_JGE, payload_min + _UDP_HEADER),
        _Step(_JGT, payload_max + _UDP_HEADER, "drop"),
        *(_Step(_ADD_X), _Step(_ST, _UDP_END), _Step(_LD_H_X, 2), _Step(_ST, _PORT)),
        *(_Step(_LD_MEM, _UDP_END), _Step(_LDX_MEM, _IP_END), _need(_JEQ_X)),
        *(_Step(_LD_LEN), _need(_JGE_X)),
        _Step(_LD_MEM, _PORT),
    ]


def _to_ports(ports: Sequence[range]) -> _Source:
    """Return the steps that accept the port in A where a range holds it, and drop it elsewhere."""
    steps: _Source = []
    for number, (first, last) in enumerate(_merged(ports)):
        if first == last:
            steps += [_Step(_JEQ, first, "accept")]
        else:
            steps += [_Step(_JGE, first, f"above{number}"), _DROP, f"above{number}"]
            steps += [_Step(_JGT, last, "accept", when=False)]
    return steps


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
