"""Every format that fwknop speaks: modes, digests, HMACs, message types and carriers, with the files of both ends.

A *way* is what both ends must agree on beforehand: encryption mode and HMAC. Each has a stanza, keys and a road of its
own: packets come from 10.78.1.WAY and go to 10.78.0.WAY. What a packet chooses by itself is its digest, its message
type and its carrier; the address that it wants to have let in is its number among all combinations.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import itertools
from dataclasses import dataclass
from typing import Final

from doorward.values import DigestType, EncryptionMode, Grant, Nat, Protocol, Secret, Service, SymmetricKeys
from doorward.wire.fwknop import WITH_NAT, WITH_TIMEOUT, MessageType

USER: Final = "someone"
SERVICE: Final = Service(Protocol.TCP, 22)
COMMAND: Final = "id"
TARGET: Final = "192.168.1.2"
INNER: Final = 2222  # the port behind NAT
WISH: Final = 60  # seconds that a client asks for
WINDOW: Final = 30  # seconds that the stanza gives
CARRIERS: Final = ("udp", "tcp", "http", "udpraw", "tcpraw", "icmp")
PORT: Final = 62201

_LOCAL: Final = ("--nat-local", "-N", f"127.0.0.1,{INNER}")
_FORWARD: Final = ("-N", f"{TARGET},{INNER}")
_ACCESS: Final = ("-A", str(SERVICE))
_TIMEOUT: Final = ("-f", str(WISH))
OPTIONS: Final = {
    MessageType.COMMAND: ("-C", COMMAND),
    MessageType.ACCESS: _ACCESS,
    MessageType.NAT: (*_ACCESS, *_FORWARD),
    MessageType.ACCESS_TIMEOUT: (*_ACCESS, *_TIMEOUT),
    MessageType.NAT_TIMEOUT: (*_ACCESS, *_FORWARD, *_TIMEOUT),
    MessageType.LOCAL_NAT: (*_ACCESS, *_LOCAL),
    MessageType.LOCAL_NAT_TIMEOUT: (*_ACCESS, *_LOCAL, *_TIMEOUT),
}


@dataclass(frozen=True, slots=True)
class Way:
    """One encryption mode with one HMAC or none; `number` from 1."""

    number: int
    mode: EncryptionMode
    hmac: DigestType | None

    @property
    def name(self) -> str:
        """Its name in test ids and in the client's file."""
        return f"{self.mode.name.lower()}-{f'hmac_{self.hmac.label}' if self.hmac else 'no_hmac'}"

    @property
    def origin(self) -> str:
        """The address that its packets come from."""
        return f"10.78.1.{self.number}"

    @property
    def destination(self) -> str:
        """The address that its packets go to."""
        return f"10.78.0.{self.number}"

    def symmetric_keys(self) -> SymmetricKeys:
        """Return its keys; a legacy key is a short one, which is filled up."""
        digest = hashlib.sha512(self.name.encode()).digest()
        key = Secret(digest[:10] if self.mode is EncryptionMode.LEGACY else digest[:32])
        if self.hmac is None:
            return SymmetricKeys(key, None, mode=self.mode)
        return SymmetricKeys(key, Secret(digest[::-1]), self.hmac, self.mode)

    def lines(self) -> str:
        """Return the lines that are alike in both ends' files."""
        keys = self.symmetric_keys()
        text = f"KEY_BASE64 {_base64(keys.key)}\nENCRYPTION_MODE {self.mode.name.lower()}\n"
        if keys.hmac_key:
            text += f"HMAC_KEY_BASE64 {_base64(keys.hmac_key)}\nHMAC_DIGEST_TYPE {keys.hmac_digest.label}\n"
        return text


@dataclass(frozen=True, slots=True)
class Combination:
    """One packet of one format in one carrier; `number` from 0."""

    number: int
    way: Way
    digest: DigestType
    type: MessageType
    carrier: str

    @property
    def name(self) -> str:
        """Its name in test ids."""
        way, _, hmac = self.way.name.partition("-")
        return f"{way}-{self.digest.label}-{hmac}-{self.type.name.lower()}-{self.carrier}"

    @property
    def source(self) -> ipaddress.IPv4Address:
        """The address that it asks for, which no other does."""
        return ipaddress.IPv4Address("10.128.0.0") + self.number

    @property
    def options(self) -> tuple[str, ...]:
        """What both clients are told beside the file."""
        words = ("-n", self.way.name, "-m", self.digest.label, "-a", str(self.source), "-P", self.carrier)
        return (*words, *OPTIONS[self.type])

    @property
    def nat(self) -> Nat | None:
        """Where its connections are led."""
        if self.type not in WITH_NAT:
            return None
        local = self.type in {MessageType.LOCAL_NAT, MessageType.LOCAL_NAT_TIMEOUT}
        return Nat(None if local else ipaddress.ip_address(TARGET), INNER)

    @property
    def nat_text(self) -> str | None:
        """Where its connections are led, as the packet says it."""
        return None if self.nat is None else f"{self.nat.target or '127.0.0.1'},{INNER}"

    @property
    def text(self) -> str:
        """The message in the packet."""
        return f"{self.source},{COMMAND if self.type is MessageType.COMMAND else SERVICE}"

    @property
    def granted(self) -> Grant | None:
        """What it opens; None for a command."""
        if self.type is MessageType.COMMAND:
            return None
        return Grant(self.source, (SERVICE,), self.timeout or WINDOW, self.nat)

    @property
    def timeout(self) -> int | None:
        """The seconds that it asks for."""
        return WISH if self.type in WITH_TIMEOUT else None


def _base64(key: Secret) -> str:
    return base64.b64encode(key.reveal()).decode()


def _ways() -> tuple[Way, ...]:
    pairs = itertools.product(EncryptionMode, (None, *DigestType))
    # fwknop's client refuses an HMAC in legacy mode
    possible = [(mode, hmac) for mode, hmac in pairs if not (mode is EncryptionMode.LEGACY and hmac)]
    return tuple(Way(number, mode, hmac) for number, (mode, hmac) in enumerate(possible, 1))


WAYS: Final = _ways()
COMBINATIONS: Final = tuple(
    Combination(number, *axes) for number, axes in enumerate(itertools.product(WAYS, DigestType, MessageType, CARRIERS))
)


def client_file() -> str:
    """Return a .fwknoprc with a stanza for each way, for both clients."""
    head = f"[default]\nSPOOF_USER {USER}\nNO_SAVE_ARGS Y\n"
    stanzas = [f"[{way.name}]\nSPA_SERVER {way.destination}\n{way.lines()}" for way in WAYS]
    return head + "".join(text + ("USE_HMAC Y\n" if way.hmac else "") for way, text in zip(WAYS, stanzas, strict=True))


def access_file() -> str:
    """Return an access.conf with a stanza for each way, for both daemons."""
    return "".join(
        f"SOURCE {way.origin}/32, 10.128.0.0/16\nDESTINATION {way.destination}/32\n{way.lines()}"
        f"FW_ACCESS_TIMEOUT {WINDOW}\nENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody\n\n"
        for way in WAYS
    )


DAEMON_FILE: Final = """\
PCAP_INTF eth0;
PCAP_FILTER udp port 62201 or tcp port 62201 or icmp;
PCAP_DISPATCH_COUNT 1000;
PCAP_LOOP_SLEEP 1000;
ENABLE_SPA_OVER_HTTP Y;
ENABLE_IPT_FORWARDING Y;
ENABLE_IPT_LOCAL_NAT Y;
ENABLE_IPT_COMMENT_CHECK N;
"""
