"""The plaintext of the format `doorward 1`: 128 bytes, each of them with one meaning. Pure: bytes in, values out.

A message has one spelling: parse() takes only what serialize() makes. Source: docs/packet-formats.md.
"""

from __future__ import annotations

import enum
import ipaddress
import itertools
import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.frozen import dataclass
from doorward.values import (
    PORT_MAX,
    PREFIXES,
    IPAddress,
    Protocol,
    Service,
    has_bits_behind,
    is_broadcast,
    is_link_local,
)
from doorward.wire import wish as wishes
from doorward.wire.fwknop import Field, FieldError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKET: Final = 164  # bytes: tag, nonce, plaintext and authentication tag. No packet of fwknop has this length
PLAINTEXT: Final = 128  # bytes
EPOCH_MS: Final = 64_000  # milliseconds: a tag's time
SKEW_SECONDS: Final = 64  # the greatest difference between a packet's time and the host's
SERVICES_MAX: Final = 8  # ranges in one message
RANGE_MAX: Final = 256  # ports in one range
SECONDS_MAX: Final = 65_535
TIME_MAX: Final = (1 << 64) - 1  # milliseconds
COMMAND: Final = re.compile(r"[a-z0-9-]{1,16}", re.ASCII)
CODE_MAX: Final = 999_999
CODE_STEP: Final = 30  # seconds for which an app shows a one-time code (RFC 6238)
_FORM: Final = struct.Struct(">BBHQ16s16s32s20s16sBBI10s")
_ENTRY: Final = struct.Struct(">BBH")
_NAT: Final = struct.Struct(">BBH16s")
_MAPPED: Final = bytes(10) + b"\xff\xff"
_NOWHERE: Final = bytes(16)
_RESERVED: Final = ipaddress.IPv6Network("::/64")  # mapped and compatible forms, loopback, and the rest of the block


class Kind(enum.IntEnum):
    """What a message asks for, under its number on the wire."""

    ACCESS = 1
    COMMAND = 2


class _NatKind(enum.IntEnum):
    NONE = 0
    FORWARD = 1
    LOCAL = 2


class Ports(NamedTuple):
    """Ports of one protocol, both ends included."""

    protocol: Protocol
    first: int
    last: int

    def __str__(self) -> str:
        """`tcp/22`, or `udp/60000-60010`."""
        return f"{self.protocol}/{self.first}" + (f"-{self.last}" if self.last > self.first else "")


class Forward(NamedTuple):
    """Where connections are led: to `target`, None being the host itself, and its `port`."""

    target: IPAddress | None
    port: int


@dataclass(frozen=True, slots=True)
class Message:
    """One plaintext; an invalid message cannot be made. `time` in Unix ms; `seconds` 0 is the stanza's window.

    `source` None is the packet's origin. `prefix` and `second_prefix` are the lengths of networks to be let in, None
    is the address alone. No `services` are all that the stanza's OPEN_PORTS names. `code` is a one-time code.
    """

    kind: Kind
    time: int
    source: IPAddress | None = None
    services: tuple[Ports, ...] = ()
    seconds: int = 0
    second: IPAddress | None = None
    nat: Forward | None = None
    command: str | None = None
    prefix: int | None = None
    second_prefix: int | None = None
    code: int | None = None

    def __post_init__(self) -> None:
        """Refuse a message that the format cannot carry."""
        _require(Field.TIME, 0 <= self.time <= TIME_MAX, "the time is outside 64 bits")
        _require(Field.TIMEOUT, 0 <= self.seconds <= SECONDS_MAX, f"the window is outside 0 to {SECONDS_MAX} s")
        _require(Field.MESSAGE, self.code is None or 0 <= self.code <= CODE_MAX, "the code has more than six digits")
        self._check_sources()
        if self.kind is Kind.COMMAND:
            self._check_command()
            return
        _require(Field.MESSAGE, self.command is None, "a command in a request for services")
        _check_services(self.services)
        if self.nat is not None:
            one = len(self.services) == 1 and self.services[0].first == self.services[0].last
            _require(Field.NAT_ACCESS, one, "NAT leads one service")
            _check_nat(self.nat)

    def _check_sources(self) -> None:
        for source, prefix in ((self.source, self.prefix), (self.second, self.second_prefix)):
            if source is not None:
                _require(Field.MESSAGE, _is_from_elsewhere(source), f"{source} is no source from elsewhere")
            if prefix is not None:
                _check_prefix(source, prefix)
        if self.second is not None:
            fits = self.source is not None and self.source.version != self.second.version
            _require(Field.MESSAGE, fits, "a second source needs a first one of the other family")

    def _check_command(self) -> None:
        named = self.command is not None and COMMAND.fullmatch(self.command)
        _require(Field.MESSAGE, named, "the command is no name of up to 16 of a-z, 0-9 and -")
        others = (self.services, self.nat, self.seconds, self.prefix, self.second_prefix)
        _require(Field.MESSAGE, not any(others), "a command beside services, NAT, a window or a prefix")


def serialize(message: Message) -> bytes:
    """The plaintext of a message."""
    entries = (_ENTRY.pack(one.protocol, one.last - one.first, one.first) for one in message.services)
    return _FORM.pack(
        message.kind,
        0,
        message.seconds,
        message.time,
        _packed(message.source),
        _packed(message.second),
        b"".join(entries),
        _serialize_nat(message.nat),
        (message.command or "").encode("ascii"),
        message.prefix or 0,
        message.second_prefix or 0,
        0 if message.code is None else message.code + 1,
        b"",
    )


def parse(plaintext: bytes) -> Message:
    """The message of a plaintext.

    Raises:
        FieldError: a field breaks the format, or a byte without a meaning is not zero.
    """
    _require(Field.PLAINTEXT, len(plaintext) == PLAINTEXT, f"the plaintext has not {PLAINTEXT} bytes")
    kind, _, seconds, time, source, second, services, nat, command, *rest = _FORM.unpack(plaintext)
    prefix, second_prefix, code, _ = rest
    _require(Field.TYPE, kind in set(Kind), f"kind {kind} does not exist")
    message = Message(
        kind=Kind(kind),
        time=time,
        source=_address(source),
        services=tuple(_services(services)),
        seconds=seconds,
        second=_address(second),
        nat=_parse_nat(nat),
        command=command.rstrip(b"\0").decode("latin-1") or None,
        prefix=prefix or None,
        second_prefix=second_prefix or None,
        code=code - 1 if code else None,
    )
    _require(Field.PLAINTEXT, serialize(message) == plaintext, "a byte that must be zero is not")
    return message


def epoch_of(time: int) -> int:
    """The epoch of a time in Unix milliseconds."""
    return time // EPOCH_MS


def ranges(services: tuple[Service, ...]) -> tuple[Ports, ...]:
    """Services as ascending ranges, each once."""
    found: list[Ports] = []
    for one in sorted(set(services)):
        last = found[-1] if found else None
        if (
            last is not None
            and (last.protocol, last.last + 1) == (one.protocol, one.port)
            and _length(last) < RANGE_MAX
        ):
            found[-1] = last._replace(last=one.port)
        else:
            found.append(Ports(one.protocol, one.port, one.port))
    return tuple(found)


def wish(message: Message) -> wishes.Wish:
    """What a message asks for."""
    kind = wishes.Kind.ACCESS if message.kind is Kind.ACCESS else wishes.Kind.NAMED_COMMAND
    if message.nat is not None:
        kind = wishes.Kind.LOCAL_NAT if message.nat.target is None else wishes.Kind.FORWARD
    named = tuple(Service(one.protocol, port) for one in message.services for port in range(one.first, one.last + 1))
    return wishes.Wish(
        kind=kind,
        made=message.time / 1000,
        source=message.source,
        services=named if named or message.command is not None else None,
        seconds=message.seconds,
        target=None if message.nat is None else wishes.NatTarget(str(message.nat.target or ""), message.nat.port),
        command=message.command,
        second=message.second,
        exact=True,
        prefix=message.prefix,
        second_prefix=message.second_prefix,
        code=message.code,
    )


def _length(ports: Ports) -> int:
    return ports.last - ports.first + 1


def _check_services(services: tuple[Ports, ...]) -> None:
    _require(Field.MESSAGE, len(services) <= SERVICES_MAX, f"more than {SERVICES_MAX} services")
    for one in services:
        fits = 1 <= one.first <= one.last <= PORT_MAX and _length(one) <= RANGE_MAX
        _require(Field.MESSAGE, fits, f"{one} is no range of 1 to {RANGE_MAX} ports")
    ordered = sorted(services)
    for one, other in itertools.pairwise(ordered):
        apart = one.protocol != other.protocol or one.last < other.first
        _require(Field.MESSAGE, apart, f"{one} and {other} overlap")


def _check_nat(nat: Forward) -> None:
    _require(Field.NAT_ACCESS, 1 <= nat.port <= PORT_MAX, "the NAT port is outside 1 to 65535")
    plain = nat.target is None or not (nat.target.is_unspecified or _is_mapped(nat.target))
    _require(Field.NAT_ACCESS, plain, "the NAT target is no address")


def _check_prefix(source: IPAddress | None, prefix: int) -> None:
    _require(Field.MESSAGE, source is not None and prefix in PREFIXES[source.version], "the prefix has no such length")
    assert source is not None  # noqa: S101  _require() has refused it
    _require(Field.MESSAGE, not has_bits_behind(source, prefix), "bits behind the prefix are set")


def _is_from_elsewhere(source: IPAddress) -> bool:
    """Whether a packet from another host can have this source."""
    if source.is_unspecified or source.is_multicast or source.is_loopback or is_link_local(source):
        return False
    if isinstance(source, ipaddress.IPv4Address):
        return not is_broadcast(source)
    return source.scope_id is None and source not in _RESERVED


def _is_mapped(one: IPAddress) -> bool:
    return isinstance(one, ipaddress.IPv6Address) and one.ipv4_mapped is not None


def _services(entries: bytes) -> Iterator[Ports]:
    """The services up to the first empty place; what stands behind it is refused with the other bytes."""
    for protocol, further, first in _ENTRY.iter_unpack(entries):
        if not protocol:
            return
        _require(Field.MESSAGE, protocol in set(Protocol), f"protocol {protocol} is neither tcp nor udp")
        yield Ports(Protocol(protocol), first, first + further)


def _serialize_nat(nat: Forward | None) -> bytes:
    if nat is None:
        return b""
    kind = _NatKind.LOCAL if nat.target is None else _NatKind.FORWARD
    return _NAT.pack(kind, 0, nat.port, _packed(nat.target))


def _parse_nat(packed: bytes) -> Forward | None:
    kind, _, port, target = _NAT.unpack(packed)
    _require(Field.NAT_ACCESS, kind in set(_NatKind), f"NAT of kind {kind} does not exist")
    if kind == _NatKind.NONE:
        return None
    named = _address(target)
    _require(
        Field.NAT_ACCESS, (named is not None) == (kind == _NatKind.FORWARD), "the NAT target does not fit its kind"
    )
    return Forward(named, port)


def _packed(one: IPAddress | None) -> bytes:
    if one is None:
        return _NOWHERE
    return one.packed if isinstance(one, ipaddress.IPv6Address) else _MAPPED + one.packed


def _address(packed: bytes) -> IPAddress | None:
    if packed == _NOWHERE:
        return None
    if packed.startswith(_MAPPED):
        return ipaddress.IPv4Address(packed[12:])
    return ipaddress.IPv6Address(packed)


def _require(field: Field, condition: object, text: str) -> None:
    if not condition:
        raise FieldError(field, text)
