"""Connections to this host that rules of other programs forward (DNAT, REDIRECT), such as Docker's published ports.

Source: linux/netfilter/nf_tables.h, linux/netfilter/nf_nat.h, net/netfilter/nf_nat.h, linux/netfilter/xt_tcpudp.h.
"""

from __future__ import annotations

import ipaddress
import itertools
import shlex
import struct
from typing import TYPE_CHECKING, Final

from doorward.errors import WireError
from doorward.firewall import kernel
from doorward.firewall.kernel import number, value, words
from doorward.frozen import dataclass
from doorward.linux.netlink import attributes
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.linux.netlink import Netlink

    _Content = dict[int, bytes]

_NETWORK, _TRANSPORT = 1, 2  # NFT_PAYLOAD_*_HEADER
_BASE, _OFFSET = 2, 3  # NFTA_PAYLOAD_*
_LOADS: Final = {(_NETWORK, 9): "protocol", (_TRANSPORT, 2): "port"}  # what lies there in IPv4, TCP and UDP
_L4PROTO: Final = 16  # NFT_META_L4PROTO
_OPERATION, _COMPARED = 2, 3  # NFTA_CMP_*; the operation 0 is "equal"
_DESTINATION: Final = 1  # NFT_NAT_DNAT
_NAT_KIND, _NAT_ADDRESS, _NAT_PORT, _REDIRECTED = 1, 3, 5, 1  # NFTA_NAT_*, NFTA_REDIR_REG_PROTO_MIN
_REGISTER, _LOADED = 1, 2  # NFTA_IMMEDIATE_*
_NAME, _REVISION, _INFO = 1, 2, 3  # NFTA_TARGET_*, NFTA_MATCH_*
_PORTS: Final = struct.Struct("=4xHH")  # struct xt_tcp and xt_udp: the range of destination ports
_OLD: Final = struct.Struct("=4xI4s4x2s")  # struct nf_nat_ipv4_multi_range_compat: flags, first address, first port
_NEW: Final = struct.Struct("=I16s16x2s")  # struct nf_nat_range2: the same
_WITH_ADDRESS, _WITH_PORT = 1, 2  # NF_NAT_RANGE_*
_XTABLES: Final = frozenset({"DNAT", "REDIRECT"})
_HERE: Final = "this host"
_MANY: Final = "any of several places"
_IPV4: Final = 4  # bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """One rule; `service` is None where it is not one port of TCP or UDP."""

    service: Service | None
    target: str
    place: str


def of_nft(netlink: Netlink) -> Iterator[Forward]:
    """The rules of nftables, iptables-nft's among them, in chains that packets from outside reach."""
    bases = [chain for chain in kernel.chains(netlink) if chain.hook == "prerouting" and chain.kind == "nat"]
    for base in bases:
        if kernel.is_ours(base.family, base.table):
            continue
        ruled: dict[str, list[dict[int, bytes]]] = {}
        for rule in kernel.rules(netlink, base.family, base.table):
            ruled.setdefault(words(rule[kernel.RULE_CHAIN]), []).append(rule)
        for name in _reached(base.name, ruled):
            place = f"table {base.family} {base.table}, chain {name}"
            yield from (found for rule in ruled.get(name, ()) if (found := read(rule, base.family, place)))


def read(rule: dict[int, bytes], family: str, place: str) -> Forward | None:
    """The forwarding of a rule, if it is one."""
    said = [(name, dict(attributes(content))) for name, content in kernel.expressions(rule)]
    target = next(filter(None, (_target(name, found, family, said) for name, found in said)), None)
    return None if target is None else Forward(_service(said), target, place)


def of_legacy(program: str, listed: str) -> Iterator[Forward]:
    """The rules in the output of `iptables-legacy -t nat -S`."""
    ruled: dict[str, list[list[str]]] = {}
    for line in listed.splitlines():
        option, name, *rest = shlex.split(line)
        if option == "-A":
            ruled.setdefault(name, []).append(rest)
    names, waiting = {"PREROUTING"}, ["PREROUTING"]
    while waiting:
        for rule in ruled.get(waiting.pop(), ()):
            after = dict(itertools.pairwise(rule))
            name = after.get("-j") or after.get("-g", "")
            waiting += [name] if name in ruled and name not in names else []
            names.add(name)
    for name in sorted(names & set(ruled)):
        place = f"{program}, table nat, chain {name}"
        yield from (found for rule in ruled[name] if (found := _of_words(rule, place)))


def _of_words(rule: list[str], place: str) -> Forward | None:
    after = dict(itertools.pairwise(rule))
    if after.get("-j") not in _XTABLES:
        return None
    target = after.get("--to-destination") or f"{_HERE}, port {after.get('--to-ports', 'unchanged')}"
    try:
        service: Service | None = Service.parse(f"{after['-p']}/{after['--dport']}")
    except (KeyError, WireError):
        service = None
    return Forward(service, target, place)


def _reached(base: str, ruled: dict[str, list[dict[int, bytes]]]) -> list[str]:
    """The chains that jumps reach, whatever they match."""
    names = [base]
    for name in names:  # grows
        for rule in ruled.get(name, ()):
            names += [chain for chain in _jumps(rule) if chain not in names]
    return names


def _jumps(rule: dict[int, bytes]) -> Iterator[str]:
    for name, content in kernel.expressions(rule):
        if name == b"immediate":
            verdict = dict(attributes(dict(attributes(dict(attributes(content)).get(_LOADED, b""))).get(2, b"")))
            if 2 in verdict:  # NFTA_VERDICT_CHAIN  # noqa: PLR2004
                yield words(verdict[2])


def _service(said: list[tuple[bytes, _Content]]) -> Service | None:
    """The one port of TCP or UDP that a rule matches."""
    loaded, compared = "", {}
    for name, found in said:
        if name == b"payload":
            loaded = _LOADS.get((number(found.get(_BASE)), number(found.get(_OFFSET))), "")
        elif name == b"meta":
            loaded = "protocol" if number(found.get(kernel.META_KEY)) == _L4PROTO else ""
        elif name == b"cmp" and loaded and number(found.get(_OPERATION)) == 0:
            compared[loaded] = int.from_bytes(value(found.get(_COMPARED, b"")), "big")
        elif name == b"match" and words(found[_NAME]) in {"tcp", "udp"}:
            compared["protocol"] = Protocol[words(found[_NAME]).upper()]
            first, last = _PORTS.unpack_from(found[_INFO])
            compared |= {"port": first} if first == last else {}
    try:
        return Service(Protocol(compared["protocol"]), compared["port"])
    except (KeyError, ValueError, WireError):
        return None


def _target(name: bytes, found: dict[int, bytes], family: str, said: list[tuple[bytes, _Content]]) -> str | None:
    """Where an expression forwards to, if it does."""
    if name == b"target" and words(found[_NAME]) in _XTABLES:
        return _of_xtables(found, family)
    values = {number(one.get(_REGISTER)): value(one.get(_LOADED, b"")) for kind, one in said if kind == b"immediate"}
    if name == b"redir":
        return _written(b"", values.get(number(found.get(_REDIRECTED)), b""), _REDIRECTED in found)
    if name != b"nat" or number(found.get(_NAT_KIND)) != _DESTINATION:
        return None
    address, port = (values.get(number(found.get(one)), b"") for one in (_NAT_ADDRESS, _NAT_PORT))
    if (_NAT_ADDRESS in found and not address) or (_NAT_PORT in found and not port):
        return _MANY
    return _written(address, port, _NAT_PORT in found)


def _of_xtables(found: dict[int, bytes], family: str) -> str:
    shape = _OLD if family == "ip" and not number(found.get(_REVISION)) else _NEW
    flags, address, port = shape.unpack_from(found[_INFO])
    wide = address[:_IPV4] if family == "ip" else address
    return _written(wide if flags & _WITH_ADDRESS else b"", port, bool(flags & _WITH_PORT))


def _written(address: bytes, port: bytes, has_port: bool) -> str:  # noqa: FBT001  part of the place
    where = str(ipaddress.ip_address(address)) if address else _HERE
    return f"{where} port {int.from_bytes(port[:2], 'big')}" if has_port and port else where
