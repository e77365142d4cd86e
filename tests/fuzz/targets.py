"""Every parser of doorward as a function of bytes that raises when the parser breaks a promise; shared by all runs."""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from doorward.capture import frames
from doorward.client import host
from doorward.config import access, daemon, fwknoprc
from doorward.crypto import symmetric
from doorward.errors import AuthenticationError, ConfigError, FirewallError, HelperError, Problem, WireError
from doorward.firewall import ruleset
from doorward.gate import Gate
from doorward.privsep import messages
from doorward.values import (
    GRANT_SECONDS_MAX,
    Datagram,
    DigestType,
    EncryptionMode,
    Grant,
    Protocol,
    Reason,
    Service,
    SymmetricKeys,
    address,
)
from doorward.wire import fwknop
from unit.making import KEYS, NOW, Door, Memory, datagram, payload, stanza
from vectors.packets import CLIENT, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doorward.privsep.messages import Reply, Request
    from doorward.values import IPAddress

T = TypeVar("T")
SALT: Final = bytes(8)
PATH: Final = "the file"
LONGEST_PROBLEM: Final = 600  # characters
BARE_KEYS: Final = tuple(SymmetricKeys(KEYS.key, None, mode=mode) for mode in EncryptionMode)
NEVER_AUTHENTIC: Final = frozenset({Reason.MALFORMED, Reason.HMAC, Reason.DECRYPTION, Reason.DECODE})


@dataclass(frozen=True, slots=True)
class Target:
    """One parser: `run` raises when its promise is broken. `words` are what a generator would hardly guess."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...] = ()


def any_payload(content: bytes) -> None:
    """Whatever arrives gets a verdict, and without the keys nothing opens."""
    for keys in (KEYS, *BARE_KEYS):
        door = Door()
        verdict = Gate((stanza(keys=keys),), Memory(), door.open, 120).judge(datagram(content), NOW)
        assert not door.grants
        assert verdict.reason in NEVER_AUTHENTIC, verdict


def any_blob(content: bytes) -> None:
    """Base64 that is taken has one spelling."""
    try:
        blob = fwknop.decode_blob(content)
    except WireError:
        return
    assert fwknop.encode_blob(blob) == content


def any_unseal(content: bytes) -> None:
    """Unsealing raises its two errors, or returns what begins as a plaintext does; nobody holds the HMAC key."""
    for keys in (KEYS, *BARE_KEYS):
        try:
            plaintext = symmetric.unseal(content, keys)
        except (WireError, AuthenticationError):
            continue
        assert keys.hmac_key is None
        assert fwknop.is_plaintext(plaintext)


def any_sealed(content: bytes) -> None:
    """Whatever is sealed comes out again unless it is no plaintext, in every mode; then it is read."""
    for keys in BARE_KEYS:
        try:
            sealed = symmetric.seal(content, keys, SALT)
            plaintext = symmetric.unseal(sealed, keys)
        except (WireError, AuthenticationError):
            continue
        assert plaintext == content
        any_plaintext(plaintext)


def any_plaintext(content: bytes) -> None:
    """A plaintext raises WireError or is a message that survives being written and read, and can be judged."""
    try:
        made = fwknop.parse(content)
    except WireError:
        return
    again = fwknop.serialize(made)
    assert fwknop.parse(again) == made
    assert fwknop.serialize(fwknop.parse(again)) == again
    verdict = Gate((stanza(),), Memory(), Door().open, None).judge(datagram(_sealed(content)), NOW)
    assert verdict.reason not in {Reason.INTERNAL, Reason.DECODE, Reason.HMAC, Reason.DECRYPTION}, verdict


def _sealed(plaintext: bytes) -> bytes:
    """Return a payload, or one that is malformed where the plaintext is too long for any."""
    try:
        return symmetric.seal(plaintext, KEYS, SALT)
    except WireError:
        return b""


def any_fields(content: bytes) -> None:
    """Any fields behind a digest that fits: what an authentic but hostile client can send."""
    kinds = tuple(DigestType)
    kind = kinds[content[0] % len(kinds)] if content else kinds[0]
    body = b"0123456789012345:" + content[1:]
    any_plaintext(body + b":" + fwknop.digest_text(kind, body))


def any_frame(content: bytes) -> None:
    """A frame is read as scapy reads its headers."""
    assert frames.parse(content) == read_by_scapy(content)


def read_by_scapy(packet: bytes) -> Datagram | None:
    """Return what the headers say to scapy: RFC 791, 8200 and 768 for whole datagrams, without link padding."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return _ipv4_by_scapy(packet)
    return _ipv6_by_scapy(packet) if version == 6 and len(packet) >= 40 else None


def _ipv4_by_scapy(packet: bytes) -> Datagram | None:
    header = IP(packet[:20])
    whole = not header.flags.MF and header.frag == 0 and header.proto == 17 and header.ihl >= 5
    if not whole or header.len > len(packet):
        return None
    return _udp_by_scapy(packet[: header.len], header.ihl * 4, address(packet[12:16]), header)


def _ipv6_by_scapy(packet: bytes) -> Datagram | None:
    header = IPv6(packet[:40])
    mapped = [address(packet[8:24]), address(packet[24:40])]
    if header.nh != 17 or 40 + header.plen > len(packet) or any(getattr(ip, "ipv4_mapped", None) for ip in mapped):
        return None
    return _udp_by_scapy(packet[: 40 + header.plen], 40, mapped[0], header)


def _udp_by_scapy(packet: bytes, offset: int, origin: IPAddress, header: IP | IPv6) -> Datagram | None:
    if len(packet) < offset + 8:
        return None
    udp = UDP(packet[offset : offset + 8])
    if udp.len != len(packet) - offset:
        return None
    # As bytes: an IPv4-compatible address (::1.2.3.4) has two texts.
    assert origin.packed == _packed(header.src)
    ends = (address(_packed(header.src)), address(_packed(header.dst)))
    return Datagram(packet[offset + 8 :], ends[0].packed, ends[1].packed, udp.sport, udp.dport)


def _packed(text: str) -> bytes:
    """Return the packed address of scapy's text."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def any_access(content: bytes) -> None:
    """An access.conf gives stanzas or problems."""
    _loads_or_complains(lambda: access.parse(Path(PATH), content), content)


def any_daemon(content: bytes) -> None:
    """A doorwardd.conf gives settings or problems."""
    _loads_or_complains(lambda: daemon.parse(Path(PATH), content), content)


def any_fwknoprc(content: bytes) -> None:
    """A client's file gives profiles or problems."""
    _loads_or_complains(lambda: fwknoprc.parse(content, PATH).profile(), content)
    try:
        stanzas = fwknoprc.parse(content, PATH)
    except ConfigError:
        return
    for name in stanzas.names[:20]:
        _loads_or_complains(partial(stanzas.profile, name), content)


def _loads_or_complains(load: Callable[[], object], content: bytes) -> None:
    """Every problem has a line of the file, in order, and a text that is safe in a log."""
    problems = _problems(load)
    for problem in problems:
        assert 0 <= problem.line <= content.count(b"\n") + 1, problem
        assert problem.text.isprintable(), problem
        assert len(problem.text) < LONGEST_PROBLEM, problem
    assert all(one.line <= two.line for one, two in pairwise(problems)), problems


def _problems(load: Callable[[], object]) -> tuple[Problem, ...]:
    try:
        load()
    except ConfigError as error:
        return error.problems
    return ()


def any_request(content: bytes) -> None:
    """What the helper reads is a request whose bytes say it once, or an error."""
    _decodes_exactly(messages.decode_request, content)


def any_reply(content: bytes) -> None:
    """What the listener reads is a reply whose bytes say it once, or an error."""
    _decodes_exactly(messages.decode_reply, content)


def _decodes_exactly(decode: Callable[[bytes], Request | Reply], content: bytes) -> None:
    try:
        message = decode(content)
    except HelperError:
        return
    assert messages.encode(message) == content


def any_table_text(content: bytes) -> None:
    """A table text is refused with its line, or taken together with what a swap puts before it."""
    text = content.decode("utf-8", "replace")
    assert set(ruleset.normalised(text).splitlines()) <= set(text.splitlines())
    assert ruleset.swap(ruleset.swap(text)) == ruleset.swap(text)
    refusal = _refusal(text)
    assert refusal.startswith("line ") or not refusal, refusal
    assert bool(_refusal(ruleset.swap(text))) == bool(refusal)


def _refusal(text: str) -> str:
    """Return why a table text is refused, or nothing."""
    try:
        ruleset.refuse_foreign(text)
    except FirewallError as error:
        return str(error)
    return ""


def any_words(content: bytes) -> None:
    """What stands on the host's command line is refused as argparse wants it, or within its bounds."""
    text = os.fsdecode(content)
    seconds = _argument(host.duration, text)
    assert seconds is None or 1 <= seconds <= GRANT_SECONDS_MAX
    source = _argument(host.address, text)
    assert source is None or not source.is_unspecified
    service = _argument(host.service, text)
    assert service is None or Service.parse(str(service)) == service


def _argument(read: Callable[[str], T], text: str) -> T | None:
    try:
        return read(text)
    except argparse.ArgumentTypeError:
        return None


KEY_LINES: Final = b"KEY_BASE64 " + b"QUFB" * 8 + b"\nHMAC_KEY_BASE64 " + b"QkJC" * 16 + b"\n"
ACCESS: Final = b"SOURCE ANY\nOPEN_PORTS tcp/22, udp/53\n" + KEY_LINES
GRANT: Final = Grant(address(bytes([192, 0, 2, 7])), (Service(Protocol.TCP, 22), Service(Protocol.UDP, 53)), 30)
GRANT6: Final = Grant(address(b"\x20\x01" + bytes(13) + b"\x01"), (Service(Protocol.TCP, 22),), 30)
TIMED: Final = b"""table inet doorward {
\tset open4 {
\t\ttype ipv4_addr . inet_proto . inet_service
\t\tflags timeout
\t\telements = { 1.2.3.4 . tcp . 22 timeout 30s,
\t\t\t     1.2.3.5 . tcp . 22 timeout 30s }
\t}
\tset fixed { type ipv4_addr; flags interval; comment "x"; elements = { 10.0.0.0/8 }; }
}
"""


def _plaintexts() -> Iterable[bytes]:
    return (packet.plaintext for packet in CLIENT)


def _frames() -> Iterable[bytes]:
    for made in (IP(src="192.0.2.1", dst="192.0.2.2"), IP(options=b"\1" * 8), IPv6(src="2001:db8::1")):
        yield bytes(made / UDP(sport=1, dport=62201) / Raw(payload()))


def _body(plaintext: bytes) -> bytes:
    """Return the seed of any_fields for a plaintext: a byte for the digest, the fields behind the random value."""
    return b"\2" + plaintext[17:].rpartition(b":")[0]


TARGETS: Final = {
    "payload": Target(any_payload, (*(case.payload for case in CLIENT), *(case.payload for case in VERDICTS))),
    "blob": Target(any_blob, tuple(case.payload for case in CLIENT)),
    "unseal": Target(any_unseal, (*(case.payload for case in CLIENT), payload(keys=BARE_KEYS[0]))),
    "sealed": Target(any_sealed, tuple(_plaintexts())),
    "plaintext": Target(any_plaintext, tuple(_plaintexts())),
    "fields": Target(any_fields, tuple(map(_body, _plaintexts()))),
    "frame": Target(any_frame, tuple(_frames())),
    "access": Target(any_access, (ACCESS, ACCESS * 2), (*access.SETTINGS, *access.UNSERVED, "__CHANGEME__", "ANY")),
    "daemon": Target(
        any_daemon,
        (b"VERBOSE 1;\nFWKNOP_RUN_DIR /run/x;\nDIGEST_DB_FILE $FWKNOP_RUN_DIR/d;\n", b"PCAP_FILTER udp port 62201;\n"),
        (*daemon.SETTINGS, *daemon.UNSERVED, *daemon.INERT),
    ),
    "fwknoprc": Target(
        any_fwknoprc,
        (b"[default]\n" + KEY_LINES, b"ACCESS tcp/22\n[one]\nSPA_SERVER x\nALLOW_IP source\n" + KEY_LINES),
        (*fwknoprc._SETTINGS, "[default]"),  # noqa: SLF001  the names are what a generator cannot guess
    ),
    "request": Target(any_request, tuple(map(messages.encode, (messages.Open(GRANT), messages.Open(GRANT6))))),
    "reply": Target(any_reply, (b"c", b"d", b"pa:1: x", b"rno")),
    "table": Target(
        any_table_text,
        (TIMED, ruleset.swap(ruleset.guard(GRANT.services)).encode()),
        ("define", "include", "flush ruleset", "table inet doorward {", '"', "\\\n"),
    ),
    "words": Target(any_words, (b"15m", b"tcp/22", b"2001:db8::1")),
}
