"""Converters from the text of one setting to its value. Each raises ValueError or WireError with the problem."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ipaddress
import re
from typing import TYPE_CHECKING, Final, TypeVar

from doorward.config.stanza import Target
from doorward.errors import WireError
from doorward.values import (
    ANYWHERE,
    GRANT_SECONDS_MAX,
    Carriers,
    DigestType,
    EncryptionMode,
    IPAddress,
    IPNetwork,
    Networks,
    Secret,
    Service,
)

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable

    E = TypeVar("E", bound=enum.Enum)

CHANGE_ME: Final = "__CHANGEME__"  # the placeholder of fwknop's templates
_YES_NO: Final = {"y": True, "yes": True, "n": False, "no": False}
_DIGITS: Final = re.compile(r"\d{1,12}", re.ASCII)
_DATE: Final = re.compile(r"(\d{2})/(\d{2})/(\d{4})", re.ASCII)
_PORTS: Final = re.compile(r"(udp|tcp)(?:\s+dst)?\s+port(?:range)?\s+(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_PORT_MAX: Final = 65535
_TARGET: Final = re.compile(r"(?:\[([^\]\s]{2,60})\]|([^\s\[\]:]{1,253})):(\d{1,5}|\*)", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
_DIGITS_AND_DOTS: Final = re.compile(r"[0-9.]+", re.ASCII)
_SYSTEM: Final = re.compile(r"[A-Za-z0-9@+-]{1,15}", re.ASCII)
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\$?", re.ASCII)


def boolean(text: str) -> bool:
    """Read Y or N; fwknopd takes everything that does not begin with Y for N, `true` included: refused here."""
    try:
        return _YES_NO[text.lower()]
    except KeyError:
        msg = f"{text[:40]!r} is neither Y nor N"
        raise ValueError(msg) from None


def number(low: int, high: int) -> Callable[[str], int]:
    """Return a converter of decimal numbers from `low` to `high`."""

    def convert(text: str) -> int:
        if _DIGITS.fullmatch(text) is None or not low <= int(text) <= high:
            msg = f"{text[:40]!r} is not a number from {low} to {high}"
            raise ValueError(msg)
        return int(text)

    return convert


window = number(1, GRANT_SECONDS_MAX)
port = number(1, _PORT_MAX)


def text(value: str) -> str:
    """Read any text but the placeholder of the templates."""
    if value == CHANGE_ME:
        msg = f"still has the placeholder {CHANGE_ME}"
        raise ValueError(msg)
    return value


def key_text(value: str) -> Secret:
    """Read a key written as it is."""
    return Secret(text(value).encode("utf-8"))


def key_base64(value: str) -> Secret:
    """Read a key in base64, with or without padding; the text never stands in the error."""
    text(value)
    bare = value.rstrip("=")
    try:
        key = binascii.a2b_base64(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        key = b""
    if not key or base64.b64encode(key).decode("ascii").rstrip("=") != bare:
        msg = "is not base64"
        raise ValueError(msg)
    return Secret(key)


def networks(value: str) -> Networks:
    """Read ANY, or addresses, CIDR networks and dotted masks, separated by commas or blanks (server/access.c).

    What stands beside ANY is read too: `ANY # but` would else mean everybody, whatever the author meant.
    """
    entries = value.replace(",", " ").split()
    if not entries:
        msg = "names no network"
        raise ValueError(msg)
    named = [_network(entry) for entry in entries if entry.upper() != "ANY"]
    return Networks.of(named) if len(named) == len(entries) else ANYWHERE


def _network(entry: str) -> IPNetwork:
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        msg = f"{entry[:60]!r} is not an address or a network"
        raise ValueError(msg) from None
    if network.prefixlen == 0:
        msg = f"{entry[:60]!r} is every address: write ANY"
        raise ValueError(msg)
    return network


def address(value: str) -> IPAddress:
    """Read one IPv4 or IPv6 address."""
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        msg = f"{value[:60]!r} is not an address"
        raise ValueError(msg) from None


def address_and_port(value: str) -> tuple[IPAddress, int]:
    """Read `ADDRESS PORT`."""
    words = value.split()
    if len(words) != 2:  # noqa: PLR2004  an address and a port
        msg = f"{value[:60]!r} is not ADDRESS PORT"
        raise ValueError(msg)
    return address(words[0]), port(words[1])


def targets(value: str) -> tuple[Target, ...]:
    """Read `10.0.0.5:22, 10.1.0.0/24:443, [2001:db8::5]:22, web1:443, 10.0.0.9:*`; names are not resolved here."""
    return tuple(_target(entry.strip()) for entry in value.split(","))


def _target(entry: str) -> Target:
    match = _TARGET.fullmatch(entry)
    if match is None:
        msg = f"{entry[:80]!r} is not HOST:PORT, NETWORK:PORT or [IPV6]:PORT, with * for every port"
        raise ValueError(msg)
    host, wanted = match[1] or match[2], None if match[3] == "*" else port(match[3])
    if match[1] is None and _HOST.fullmatch(host) and not _DIGITS_AND_DOTS.fullmatch(host):
        return Target(Networks.of(()), wanted, host.lower())
    return Target(Networks.of([_network(host)]), wanted)


def system(value: str) -> str:
    """Read the name of an operating system as nftables' fingerprints have it."""
    if _SYSTEM.fullmatch(value) is None:
        msg = f"{value[:40]!r} is no name of an operating system"
        raise ValueError(msg)
    return value


def key_ids(value: str) -> frozenset[str]:
    """Read OpenPGP key IDs: 8 or 16 hex digits each, separated by commas or blanks."""
    return frozenset(_hex(entry, (8, 16), "a key ID of 8 or 16") for entry in value.replace(",", " ").split())


def fingerprints(value: str) -> frozenset[str]:
    """Read OpenPGP fingerprints of 40 hex digits, separated by commas; blanks within one are left out."""
    return frozenset(_hex("".join(entry.split()), (40,), "a fingerprint of 40") for entry in value.split(","))


def _hex(entry: str, lengths: tuple[int, ...], wanted: str) -> str:
    digits = entry.removeprefix("0x").upper()
    if len(digits) not in lengths or not set(digits) <= set("0123456789ABCDEF"):
        msg = f"{entry[:60]!r} is not {wanted} hex digits"
        raise ValueError(msg)
    return digits


def account(value: str) -> str:
    """Read the name of a user or a group."""
    if _ACCOUNT.fullmatch(value) is None:
        msg = f"{value[:40]!r} is no name of an account"
        raise ValueError(msg)
    return value


def services(value: str) -> tuple[Service, ...]:
    """Read `tcp/22, udp/53`; lower case, no duplicates. The problem names every entry that is none."""
    read = [_service(entry.strip()) for entry in value.split(",")]
    entries = tuple(entry for entry in read if isinstance(entry, Service))
    problems = [entry for entry in read if isinstance(entry, str)]
    if len(set(entries)) != len(entries):
        problems.append("names a service twice")
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))
    return entries


def _service(entry: str) -> Service | str:
    """Return a service, or what is wrong with it."""
    try:
        return Service.parse(entry)
    except WireError as error:
        return str(error)


def digest_type(value: str) -> DigestType:
    """Read `sha256` and its like, in any case."""
    return _member(DigestType, value)


def encryption_mode(value: str) -> EncryptionMode:
    """Read `CBC` and its like, in any case."""
    return _member(EncryptionMode, value)


def _member(kind: type[E], value: str) -> E:
    try:
        return kind[value.upper() if value.isascii() else ""]  # the upper case of a long s is S
    except KeyError:
        names = ", ".join(member.name.lower() for member in kind)
        msg = f"{value[:40]!r} is none of {names}"
        raise ValueError(msg) from None


def expiry_date(value: str) -> int:
    """Read MM/DD/YYYY as the start of that day in UTC, in Unix seconds; fwknopd rolls 13/45/2020 over, refused here."""
    match = _DATE.fullmatch(value)
    if match is None:
        msg = f"{value[:40]!r} is not MM/DD/YYYY"
        raise ValueError(msg)
    month, day, year = map(int, match.groups())
    return int(dt.datetime(year, month, day, tzinfo=dt.timezone.utc).timestamp())


def carriers(value: str) -> Carriers:
    """Read what of pcap-filter(7) a knock needs: `udp port N`, `tcp dst portrange N-M`, `icmp`, joined by `or`.

    The kernel's filter is made by doorward from this; other expressions have no meaning for it.
    """
    ports: dict[str, list[range]] = {"udp": [], "tcp": []}
    icmp = False
    for term in re.split(r"\s+or\s+", value.strip()):
        match = _PORTS.fullmatch(term)
        if match is not None:
            ports[match[1]].append(_span(term, match[2], match[3] or match[2]))
        elif term in {"icmp", "icmp6"}:
            icmp = True
        else:
            msg = f"{term[:60]!r} is none of 'udp port N', 'tcp port N', 'udp dst portrange N-M', 'icmp'"
            raise ValueError(msg)
    return Carriers(tuple(ports["udp"]), tuple(ports["tcp"]), icmp=icmp)


def _span(term: str, first: str, last: str) -> range:
    low, high = port(first), port(last)
    if high < low:
        msg = f"{term[:60]!r} is an empty range"
        raise ValueError(msg)
    return range(low, high + 1)
