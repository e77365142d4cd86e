"""Converters from the text of one setting to its value. Each raises ValueError or WireError with the problem."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ipaddress
import re
from typing import TYPE_CHECKING, Final, TypeVar

from doorward.values import (
    ANYWHERE,
    GRANT_SECONDS_MAX,
    DigestType,
    EncryptionMode,
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
_PORTS: Final = re.compile(r"udp(?:\s+dst)?\s+port(?:range)?\s+(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_PORT_MAX: Final = 65535


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
    """Read ANY, or addresses, CIDR networks and dotted masks, separated by commas or blanks (server/access.c)."""
    entries = value.replace(",", " ").split()
    if any(entry.upper() == "ANY" for entry in entries):
        return ANYWHERE
    if not entries:
        msg = "names no network"
        raise ValueError(msg)
    return Networks.of(_network(entry) for entry in entries)


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


def services(value: str) -> tuple[Service, ...]:
    """Read `tcp/22, udp/53`; lower case, no duplicates."""
    entries = tuple(Service.parse(entry.strip()) for entry in value.split(","))
    if len(set(entries)) != len(entries):
        msg = "names a service twice"
        raise ValueError(msg)
    return entries


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


def capture_ports(value: str) -> range:
    """Read `udp port N`, `udp dst port N` or `udp dst portrange N-M`: the filters a knock needs.

    The kernel filter is made by doorward from the ports; other pcap expressions have no meaning for it.
    """
    match = _PORTS.fullmatch(value.strip())
    if match is None:
        msg = f"{value[:60]!r} is not 'udp port N' or 'udp dst portrange N-M'"
        raise ValueError(msg)
    low = port(match[1])
    high = port(match[2]) if match[2] else low
    if high < low:
        msg = f"{value[:60]!r} is an empty range"
        raise ValueError(msg)
    return range(low, high + 1)
