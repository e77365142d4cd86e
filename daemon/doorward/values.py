"""The values that pass between the layers: frozen, and checked when made."""

from __future__ import annotations

import binascii
import enum
import functools
import hashlib
import hmac
import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.errors import WireError
from doorward.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

PORT_MAX = 65535
KEY_MAX: Final = 32  # bytes, lib/fko_limits.h RIJNDAEL_MAX_KEYSIZE
HMAC_KEY_MAX: Final = 128  # bytes, lib/fko_limits.h
COMMAND_MAX: Final = 255  # bytes, as a packet's whole message (MAX_SPA_MESSAGE_SIZE, lib/fko_limits.h)
PUBLIC_KEY_WORD: Final = "doorward1"
PUBLIC_KEY_BYTES: Final = 32
GRANT_SECONDS_MAX = 8_388_608  # fwknop's RCHK_MAX_FW_TIMEOUT (server/fwknopd_common.h), 97 days
_V4_MAPPED = bytes(10) + b"\xff\xff"
_BROADCAST: Final = b"\xff\xff\xff\xff"
EVERY_ADDRESS: Final[dict[int, IPAddress]] = {4: ipaddress.IPv4Address(0), 6: ipaddress.IPv6Address(0)}  # by version
_SERVICE = re.compile(r"(tcp|udp)/(\d{1,5})", re.ASCII)
NAME_MAX: Final = 100  # characters; nft takes comments of up to 128 bytes
_CLIENT = re.compile(rf"[A-Za-z0-9_.@:+%\[\]-]{{1,{NAME_MAX}}}", re.ASCII)  # one word of a line of the log
_OS = re.compile(r"[A-Za-z0-9@+-]{1,15}", re.ASCII)  # IFNAMSIZ - 1, as the kernel's fingerprints have it


class _Word(str, enum.Enum):
    """A word of a closed set, written as itself."""

    def __str__(self) -> str:
        """The word itself."""
        return str.__str__(self)


class Reason(_Word):
    """Why a packet got its verdict: one word for logs, counters, explain and tests.

    The order is the order of the checks: of several stanzas' refusals the one that came furthest is reported.
    """

    MALFORMED = "malformed"  # not a packet of any format that is spoken here
    NO_STANZA = "no_stanza"  # no stanza's SOURCE and DESTINATION fit
    EXPIRED = "expired"  # the stanza's ACCESS_EXPIRE has passed
    TAG = "tag"  # of a doorward 1 packet: it names no client of this host at this time
    HMAC = "hmac"  # no stanza's HMAC key made it, nor the key of the client that its tag names
    DECRYPTION = "decryption"  # authentic, but the encryption key does not fit
    BUSY = "busy"  # more OpenPGP packets than gpg can take just now: not looked at
    SIGNATURE = "signature"  # decrypted, but no good signature of a key that the stanza names
    DECODE = "decode"  # the digest or a field inside is not what the format allows
    REPLAY = "replay"  # authentic, and seen before
    CLOCK = "clock"  # made so long ago or ahead that a clock must be wrong: this host's or the client's
    STALE = "stale"  # made longer ago than MAX_SPA_PACKET_AGE
    FUTURE = "future"  # made further in the future than MAX_SPA_PACKET_AGE
    USERNAME = "username"  # not the user that REQUIRE_USERNAME names
    SOURCE_REQUIRED = "source_required"  # 0.0.0.0 where REQUIRE_SOURCE_ADDRESS wants an address
    SOURCE = "source"  # the address to be let in lies outside the stanza's SOURCE
    UNSUPPORTED = "unsupported"  # a kind of request that the stanza or this daemon does not serve
    SERVICES = "services"  # a requested service is not allowed
    TARGET = "target"  # the stanza does not forward connections to where the packet wants them
    CODE = "code"  # the one-time code is missing, wrong or used
    STORE = "store"  # the replay store failed: nothing may be granted
    FIREWALL = "firewall"  # decided, but the packet filter refused
    COMMAND = "command"  # decided, but the command could not be started
    INTERNAL = "internal"  # a bug of ours; nothing opened
    GRANTED = "granted"  # the door is open


class Protocol(enum.IntEnum):
    """A transport protocol by its IANA number."""

    TCP = 6
    UDP = 17

    def __str__(self) -> str:
        """The name, `tcp` or `udp`."""
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        """The name, or with a specification such as `d` the number: Python 3.10 formats the name with it."""
        return format(int(self), spec) if spec else str(self)


MARK: Final = 0x40000000  # FIREWALL_MARK: the bit of a packet's mark that says that a grant let it in


class FirewallMode(_Word):
    """What doorwardd loads where no table is there yet and no FIREWALL_FILE was confirmed."""

    GUARD = "guard"  # new connections to the services of OPEN_PORTS are dropped unless granted
    OBSERVE = "observe"  # grants are recorded, nothing is closed


class ForeignFirewall(_Word):
    """How other firewalls of the host are treated that could drop what a grant lets in."""

    ADMIT = "admit"  # each of their chains that can drop gets one rule that accepts our mark
    REPORT = "report"  # each of them is named, and nothing of theirs is touched


class ShareFailure(_Word):
    """What becomes of knocks while REPLAY_SHARE cannot be asked."""

    REFUSE = "refuse"  # none is granted
    LOCAL = "local"  # this host's own store decides


@dataclass(frozen=True, slots=True)
class Permissions:
    """Requests that doorwardd.conf allows stanzas to serve beyond a plain grant."""

    forwarding: bool = False  # ENABLE_IPT_FORWARDING
    local_nat: bool = False  # ENABLE_IPT_LOCAL_NAT
    snat: bool = False  # ENABLE_IPT_SNAT
    snat_source: IPAddress | None = None  # SNAT_TRANSLATE_IP
    destination_rule: bool = False  # ENABLE_DESTINATION_RULE


NO_PERMISSIONS: Final = Permissions()


class LogStyle(_Word):
    """Which lines a verdict has in the log."""

    DOORWARD = "doorward"  # one line of ours
    FWKNOP = "fwknop"  # the lines that fwknopd would have written
    BOTH = "both"


class LogFormat(_Word):
    """How our own line of a verdict is written in the log."""

    LINE = "line"  # key=value
    JSON = "json"  # an object


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """A transport protocol and a port from 1 to 65535, written `tcp/22`."""

    protocol: Protocol
    port: int

    def __post_init__(self) -> None:
        """Refuse ports outside 1 to 65535."""
        if not 1 <= self.port <= PORT_MAX:
            msg = f"port {self.port} is outside 1 to {PORT_MAX}"
            raise WireError(msg)

    @staticmethod
    @functools.lru_cache(maxsize=256)  # of all that knocks ask for, a few
    def parse(text: str) -> Service:
        """Read `tcp/22`: lower case, at most five digits, leading zeros allowed (fwknop lib/fko_message.c).

        Raises:
            WireError: not of this form, or the port is out of range.
        """
        match = _SERVICE.fullmatch(text)
        if match is None:
            msg = f"{text[:40]!r} is not tcp/PORT or udp/PORT"
            raise WireError(msg)
        return Service(Protocol[match[1].upper()], int(match[2]))

    def __str__(self) -> str:
        """The form that parse() reads."""
        return f"{self.protocol}/{self.port}"


def check_name(name: str) -> str:
    """A stanza's name: one word that no line of a log, and no comment of nftables, has to quote.

    Raises:
        WireError: it is none.
    """
    if _CLIENT.fullmatch(name) is None:
        msg = f"{name[:40]!r} is no name: 1 to {NAME_MAX} letters, digits and . _ @ : + % [ ] -"
        raise WireError(msg)
    return name


class Datagram(NamedTuple):
    """One received payload with the facts of its headers. Addresses are packed: 4 or 16 bytes, never IPv4-mapped.

    `protocol` is the IANA number of what carried it. ICMP has no ports: `origin_port` is 0 there, `destination_port`
    256 times the type and the code, as NetFlow has it. `forwarded` is the client that a trusted proxy names.

    A named tuple, not a dataclass: one is made for every packet of a flood, and this costs a third.
    """

    payload: bytes
    origin: bytes
    destination: bytes
    origin_port: int
    destination_port: int
    protocol: int = 17
    forwarded: bytes | None = None


class Completed(Datagram):
    """The last step of a sequence of ports that the kernel saw complete; the payload is the sequence's mark."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Carriers:
    """What passive capture takes for knocks: ports of UDP and TCP, ICMP of both families.

    `icmp` is every type, `echo` only echo requests and replies. Of `syn`, TCP ports that a server of ours reads, only a
    first segment counts: the server reads the rest.
    """

    udp: tuple[range, ...] = ()
    tcp: tuple[range, ...] = ()
    syn: tuple[range, ...] = ()
    icmp: bool = False
    echo: bool = False

    def __str__(self) -> str:
        """The carriers in words: `udp 62201, tcp 80-90, icmp`."""
        ports = [f"{name} {_ports(span)}" for name in ("udp", "tcp") for span in getattr(self, name)]
        ports += [f"tcp {_ports(span)} (first segments)" for span in self.syn]
        return ", ".join([*ports, *(["icmp"] if self.icmp else ["icmp echo"] if self.echo else [])]) or "nothing"


def _ports(ports: range) -> str:
    return str(ports.start) if len(ports) == 1 else f"{ports.start}-{ports.stop - 1}"


@dataclass(frozen=True, slots=True)
class Nat:
    """Where the connections of a grant are forwarded (fwknop's NAT access).

    `target` None is this host under another port's number, a ghost service: `port` is where it listens. With a
    `target` connections to the granted service go through this host to `target`:`port`. `everything` (FORWARD_ALL)
    forwards every protocol and port of the source, `port` is then None. `rewrite` False (DISABLE_DNAT) rewrites nothing
    and lets through only connections to the target's own address. On their way connections get `snat` as their source,
    or with `masquerade` the address of the interface they leave by. `everywhere` is everything to every address.
    """

    target: IPAddress | None
    port: int | None
    everything: bool = False
    rewrite: bool = True
    snat: IPAddress | None = None
    masquerade: bool = False

    @classmethod
    def to_everywhere(cls, version: int, *, snat: IPAddress | None = None, masquerade: bool = False) -> Nat:
        """What passes through this host to any address of a family, without rewriting."""
        return cls(EVERY_ADDRESS[version], None, everything=True, rewrite=False, snat=snat, masquerade=masquerade)

    @property
    def everywhere(self) -> bool:
        """Whether connections pass to every address: the unspecified target stands for it."""
        return self.target is not None and self.target.is_unspecified

    def __post_init__(self) -> None:
        """Refuse a target that is none, or two at once."""
        if (self.port is None) != self.everything:
            msg = "a NAT target has a port, unless everything is forwarded"
            raise WireError(msg)
        if self.port is not None and not 1 <= self.port <= PORT_MAX:
            msg = f"port {self.port} is outside 1 to {PORT_MAX}"
            raise WireError(msg)
        if self.target is None and (self.everything or not self.rewrite or self.snat is not None or self.masquerade):
            msg = "connections that stay on this host are neither forwarded nor given another source"
            raise WireError(msg)
        nowhere = self.everywhere and (self.rewrite or not self.everything)
        if self.target is not None and (nowhere or self.target.is_multicast):
            msg = f"{self.target} is no address to forward connections to"
            raise WireError(msg)
        if self.snat is not None and (self.snat.is_unspecified or self.snat.is_multicast):
            msg = f"{self.snat} is no source that a connection could have"
            raise WireError(msg)
        if self.snat is not None and self.masquerade:
            msg = "a connection gets one source"
            raise WireError(msg)
        ends = tuple(one for one in (self.target, self.snat) if one is not None)
        if any(one.version == 6 and (one.ipv4_mapped or one.scope_id) for one in ends):  # noqa: PLR2004  6 = IPv6
            msg = "an IPv4-mapped address, or one of a single link, is no address to forward connections to"
            raise WireError(msg)
        versions = {one.version for one in ends}
        if len(versions) > 1:
            msg = "NAT stays within one family of addresses"
            raise WireError(msg)


@dataclass(frozen=True, slots=True)
class Grant:
    """An opening: `source` may start new connections to `services` for `seconds` from now.

    With `nat` they are forwarded; with `os` only those count whose first packet looks like that system's (a genre
    of nftables' fingerprints); with `destination` only those to that address of this host. `name` is the stanza's, or
    that of the client whose public key is `key`.
    With `prefix` the source is the network of this length that begins there.
    """

    source: IPAddress
    services: tuple[Service, ...]
    seconds: int
    nat: Nat | None = None
    os: str | None = None
    destination: IPAddress | None = None
    name: str | None = None
    key: PublicKey | None = None
    prefix: int | None = None

    def __post_init__(self) -> None:
        """Refuse a grant that no firewall could express."""
        self._check_conditions()
        self._check_prefix()
        if self.name is not None:
            check_name(self.name)
        if not self.services:
            msg = "a grant opens at least one service"
            raise WireError(msg)
        if not 1 <= self.seconds <= GRANT_SECONDS_MAX:
            msg = f"a window of {self.seconds} s is outside 1 to {GRANT_SECONDS_MAX}"
            raise WireError(msg)
        refuse_nobody(self.source)
        refuse_link_local(self.source)

    @property
    def whence(self) -> str:
        """The address or the network that is let in."""
        return _whence(self.source, self.prefix)

    def _check_prefix(self) -> None:
        if self.prefix is None:
            return
        if self.nat is not None or self.destination is not None or self.os is not None:
            msg = "a network is let in without NAT, and without another condition"
            raise WireError(msg)
        refuse_prefix(self.source, self.prefix)

    def _check_conditions(self) -> None:
        if self.nat is None and self.destination is None and self.os is None:
            return
        others = (self.nat.target if self.nat is not None else None, self.destination)
        if any(other is not None and other.version != self.source.version for other in others):
            msg = "source, destination and NAT target are of one family of addresses"
            raise WireError(msg)
        if self.os is not None and _OS.fullmatch(self.os) is None:
            msg = f"{self.os[:40]!r} is no name of an operating system"
            raise WireError(msg)


@dataclass(frozen=True, slots=True)
class Execution:
    """What doorward-exec is asked to do for one stanza: run its command cycle, or a command.

    `command` None is the cycle; it closes after `seconds`, and is for no service where a sequence of ports asked. A
    command is the client's own text, or with `named` the name of one of the stanza's. `service` is the first one
    asked for. `made` is the packet's own time in Unix seconds, `client_timeout` the window that it asked for, in
    seconds.
    """

    stanza: int
    source: IPAddress
    origin: IPAddress
    destination: IPAddress
    seconds: int
    made: int
    service: Service | None = None
    client_timeout: int = 0
    command: str | None = None
    named: bool = False

    def __post_init__(self) -> None:
        """Refuse an execution that no stanza could ask for."""
        if self.stanza < 1 or not 1 <= self.seconds <= GRANT_SECONDS_MAX:
            msg = f"no execution for stanza {self.stanza} and {self.seconds} s"
            raise WireError(msg)
        refuse_nobody(self.source)
        refuse_link_local(self.source)
        refuse_nobody(self.origin)
        if self.made < 0 or not 0 <= self.client_timeout <= GRANT_SECONDS_MAX:
            msg = f"no execution was made at {self.made} for {self.client_timeout} s"
            raise WireError(msg)
        if self.command is not None and (self.service is not None or not self.command):
            msg = "an execution is for a service, or has a command"
            raise WireError(msg)
        if self.named and self.command is None:
            msg = "a named command has a name"
            raise WireError(msg)
        if self.command is not None and len(self.command.encode("utf-8", "replace")) > COMMAND_MAX:
            msg = f"the command is longer than {COMMAND_MAX} bytes"
            raise WireError(msg)


@dataclass(frozen=True, slots=True)
class LiveGrant:
    """One service of a grant that the packet filter holds now; `remaining` in seconds.

    A network that is let in may be held in parts of any `prefix`.

    `service` None stands for all of them, where `nat` leads everything to one target.
    """

    source: IPAddress
    service: Service | None
    remaining: float
    nat: Nat | None = None
    os: str | None = None
    destination: IPAddress | None = None
    name: str | None = None
    prefix: int | None = None

    @classmethod
    def of(cls, grant: Grant) -> tuple[LiveGrant, ...]:
        """The services that a grant opens, one each."""
        everything = grant.nat is not None and grant.nat.everything
        services = (None,) if everything else tuple(dict.fromkeys(grant.services))
        return tuple(
            cls(grant.source, service, grant.seconds, grant.nat, grant.os, grant.destination, grant.name, grant.prefix)
            for service in services
        )

    @property
    def place(self) -> tuple[Service | None, str | None, IPAddress | None, bool, int | None]:
        """The key of a grant: a source has one grant for it, and the next replaces it."""
        return self.service, self.os, self.destination, self.nat is not None, self.prefix

    @property
    def network(self) -> IPNetwork:
        """The addresses that are let in."""
        return ipaddress.ip_network((self.source, self.source.max_prefixlen if self.prefix is None else self.prefix))

    @property
    def whence(self) -> str:
        """The address or the network that is let in."""
        return _whence(self.source, self.prefix)


def _whence(source: IPAddress, prefix: int | None) -> str:
    return str(source) if prefix is None else f"{source}/{prefix}"


class Secret:
    """Key bytes that never show themselves: not in repr, str, format, pickle or a traceback's locals."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Keep a copy of `key`."""
        self._key = bytes(key)

    def reveal(self) -> bytes:
        """The key; call it where it is used and keep no copy."""
        return self._key

    def __repr__(self) -> str:
        """A mask."""
        return "Secret(***)"

    __str__ = __repr__

    def __len__(self) -> int:
        """The number of key bytes."""
        return len(self._key)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        return isinstance(other, Secret) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        """Refuse: a hash would be a fingerprint of the key."""
        msg = "a Secret is not hashable"
        raise TypeError(msg)

    def __reduce__(self) -> str:
        """Refuse: a pickled key is a leaked key."""
        msg = "a Secret cannot be pickled"
        raise TypeError(msg)


def exact_base64(text: str) -> bytes | None:
    """The bytes of a text that is base64 as an encoder writes it; None for any other spelling."""
    try:
        raw = binascii.a2b_base64(text.encode("ascii"))
    except (binascii.Error, UnicodeEncodeError):
        return None
    return raw if binascii.b2a_base64(raw, newline=False).decode("ascii") == text else None


_CURVE_PRIME: Final = (1 << 255) - 19
# The u-coordinates that X25519 maps to zero, whatever the private key: points of order 1, 2, 4 and 8, twist included.
_LOW_ORDER: Final = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _CURVE_PRIME - 1,
    }
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An X25519 public key (RFC 7748) of the format doorward 1, written `doorward1 BASE64`.

    It has one spelling: X25519 ignores the top bit and reduces the rest, so another spelling would be the same client
    under a second name, which outlives the removal of the first.
    """

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse other lengths, other spellings, and keys with which everybody shares the same secret."""
        number = int.from_bytes(self.raw, "little")
        if len(self.raw) != PUBLIC_KEY_BYTES:
            msg = f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(self.raw)}"
            raise WireError(msg)
        if number >= _CURVE_PRIME:
            msg = "the public key is not canonical: another spelling of a key"
            raise WireError(msg)
        if number in _LOW_ORDER:
            msg = "the public key is of low order: everybody would share its secret"
            raise WireError(msg)

    @staticmethod
    def parse(text: str) -> PublicKey:
        """Read `doorward1 BASE64`.

        Raises:
            WireError: something else, or no good key.
        """
        kind, _, encoded = text.partition(" ")
        if kind != PUBLIC_KEY_WORD:
            msg = f"is no public key: {PUBLIC_KEY_WORD} BASE64"
            raise WireError(msg)
        raw = exact_base64(encoded)
        if raw is None:
            msg = "the public key is not base64, or was cut"
            raise WireError(msg)
        return PublicKey(raw)

    def __str__(self) -> str:
        """The form that parse() reads."""
        return f"{PUBLIC_KEY_WORD} {binascii.b2a_base64(self.raw, newline=False).decode('ascii')}"


class DigestType(enum.Enum):
    """A hash function under fwknop's number; the same numbers name the HMAC types (lib/fko.h)."""

    MD5 = 1
    SHA1 = 2
    SHA256 = 3
    SHA384 = 4
    SHA512 = 5
    SHA3_256 = 6
    SHA3_512 = 7

    @functools.cached_property
    def label(self) -> str:
        """The name in configuration files and for hashlib: `sha256`."""
        return self.name.lower()

    @functools.cached_property
    def text_length(self) -> int:
        """The number of characters of a digest in base64 without padding."""
        return -(-hashlib.new(self.label, usedforsecurity=False).digest_size * 4 // 3)


class EncryptionMode(enum.Enum):
    """An AES-256 mode under fwknop's number; never signalled on the wire (lib/fko.h)."""

    ECB = 1
    CBC = 2
    CFB = 3
    OFB = 5
    CTR = 6
    LEGACY = 8


@dataclass(frozen=True, slots=True)
class SymmetricKeys:
    """The two keys of one stanza and how they are used; `hmac_key` None means packets without HMAC."""

    key: Secret
    hmac_key: Secret | None
    hmac_digest: DigestType = DigestType.SHA256
    mode: EncryptionMode = EncryptionMode.CBC

    def __post_init__(self) -> None:
        """Refuse key lengths that fwknop cannot use."""
        if not 1 <= len(self.key) <= KEY_MAX:
            msg = f"an encryption key has 1 to {KEY_MAX} bytes, not {len(self.key)}"
            raise WireError(msg)
        if self.hmac_key is not None and not 1 <= len(self.hmac_key) <= HMAC_KEY_MAX:
            msg = f"an HMAC key has 1 to {HMAC_KEY_MAX} bytes, not {len(self.hmac_key)}"
            raise WireError(msg)

    @property
    def tag_length(self) -> int:
        """The number of characters of the HMAC in a packet."""
        return self.hmac_digest.text_length if self.hmac_key is not None else 0


def unmap(packed: bytes) -> bytes:
    """An IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) as its 4 bytes, any other as it is."""
    return packed[12:] if len(packed) == 16 and packed.startswith(_V4_MAPPED) else packed  # noqa: PLR2004  16 = IPv6


def refuse_nobody(source: IPAddress) -> None:
    """Refuse an address that no connection comes from: the unspecified one, multicast, IPv4's limited broadcast.

    Raises:
        WireError: it is one of these, IPv4-mapped or not.
    """
    packed = unmap(source.packed)
    multicast = packed[0] >> 4 == 0xE if len(packed) == 4 else packed[0] == 0xFF  # noqa: PLR2004  RFC 5771, RFC 4291 §2.7
    if multicast or packed == _BROADCAST or not any(packed):
        msg = f"{source} is no address that a connection could come from"
        raise WireError(msg)


def refuse_link_local(source: IPAddress) -> None:
    """Refuse an address that is another host on each link: a packet filter would let all of them in.

    Raises:
        WireError: it is one.
    """
    if is_link_local(source):
        msg = f"{source} is another host on each link, and would be let in on all of them"
        raise WireError(msg)


PREFIXES: Final = {4: range(8, 32), 6: range(32, 128)}  # by version: the lengths of networks that can be let in
_LINK_LOCAL: Final = ipaddress.IPv4Network("169.254.0.0/16")  # no IPv6 network from /32 on has others beside these


def has_bits_behind(source: IPAddress, prefix: int) -> bool:
    """Whether a network of this length begins elsewhere."""
    return bool(int(source) & ((1 << source.max_prefixlen - prefix) - 1))


def refuse_prefix(source: IPAddress, prefix: int) -> None:
    """Refuse a network that cannot be let in: of no such length, beginning elsewhere, or with link-local addresses.

    Raises:
        WireError: it is one of these.
    """
    if prefix not in PREFIXES[source.version]:
        msg = f"no network of IPv{source.version} with a prefix of {prefix} is let in"
        raise WireError(msg)
    if has_bits_behind(source, prefix):
        msg = f"{source}/{prefix} has bits behind the prefix"
        raise WireError(msg)
    if isinstance(source, ipaddress.IPv4Address) and _LINK_LOCAL.subnet_of(ipaddress.IPv4Network((source, prefix))):
        msg = f"{source}/{prefix} has addresses that are another host on each link"
        raise WireError(msg)


def is_link_local(one: IPAddress) -> bool:
    """Whether an address is of 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291 §2.5.6)."""
    packed = unmap(one.packed)
    return packed[:2] == b"\xa9\xfe" if len(packed) == 4 else packed[0] == 0xFE and packed[1] & 0xC0 == 0x80  # noqa: PLR2004


def is_broadcast(one: IPAddress) -> bool:
    """Whether an address is IPv4's limited broadcast."""
    return unmap(one.packed) == _BROADCAST


def address(packed: bytes) -> IPAddress:
    """The address object of 4 or 16 packed bytes."""
    return ipaddress.IPv4Address(packed) if len(packed) == 4 else ipaddress.IPv6Address(packed)  # noqa: PLR2004  bytes of IPv4


@dataclass(frozen=True, slots=True)
class Networks:
    """A set of networks, of both families; `everywhere` holds every address.

    Membership is tested on packed addresses, since it is asked for every packet before anything is computed for it.
    """

    everywhere: bool
    v4: tuple[tuple[int, int], ...] = ()  # (network, mask)
    v6: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, networks: Iterable[IPNetwork]) -> Networks:
        """The set of the given networks."""
        chosen = tuple(networks)
        return cls(
            everywhere=False,
            v4=tuple((int(n.network_address), int(n.netmask)) for n in chosen if n.version == 4),  # noqa: PLR2004
            v6=tuple((int(n.network_address), int(n.netmask)) for n in chosen if n.version == 6),  # noqa: PLR2004
        )

    def __contains__(self, packed: bytes) -> bool:
        """Whether a packed address (4 or 16 bytes) lies in one of the networks."""
        if self.everywhere:
            return True
        number = int.from_bytes(packed, "big")
        pairs = self.v4 if len(packed) == 4 else self.v6  # noqa: PLR2004  4 bytes = IPv4
        return any(number & mask == network for network, mask in pairs)

    def covers(self, packed: bytes, prefix: int) -> bool:
        """Whether one of the networks has all addresses of this one."""
        number, bits = int.from_bytes(packed, "big"), 8 * len(packed)
        wide = ((1 << bits) - 1) ^ ((1 << bits - prefix) - 1)
        pairs = self.v4 if len(packed) == 4 else self.v6  # noqa: PLR2004  4 bytes = IPv4
        return self.everywhere or any(mask & wide == mask and number & mask == network for network, mask in pairs)

    def __str__(self) -> str:
        """The networks as SOURCE in access.conf has them."""
        if self.everywhere:
            return "ANY"
        v4 = (ipaddress.IPv4Network((n, _prefix(m, 32))) for n, m in self.v4)
        v6 = (ipaddress.IPv6Network((n, _prefix(m, 128))) for n, m in self.v6)
        return ", ".join([*map(str, v4), *map(str, v6)])


ANYWHERE = Networks(everywhere=True)


def _prefix(mask: int, bits: int) -> int:
    return bits - (mask ^ ((1 << bits) - 1)).bit_length()
