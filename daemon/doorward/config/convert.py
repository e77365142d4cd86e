"""Converters from the text of one setting to its value. Each raises ValueError or WireError with the problem."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from doorward.errors import WireError
from doorward.values import (
    ANYWHERE,
    GRANT_SECONDS_MAX,
    PORT_MAX,
    Carriers,
    DigestType,
    EncryptionMode,
    IPAddress,
    IPNetwork,
    Networks,
    Protocol,
    PublicKey,
    Secret,
    Service,
    check_name,
)

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Mapping

    from doorward.config.stanza import Client, Target

    E = TypeVar("E", bound=enum.Enum)
    T = TypeVar("T")

PSK_BYTES: Final = 32
ONE_TIME_BYTES: Final = (16, 64)
CHANGE_ME: Final = "__CHANGEME__"  # the placeholder of fwknop's templates
_DIGITS: Final = re.compile(r"\d{1,12}", re.ASCII)
_DATE: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})", re.ASCII)
_CENTURY: Final = 2000  # of a year of two digits, as fwknopd has it
_PORTS: Final = re.compile(
    r"(?:(udp|tcp)(?:\s+and)?\s+)?(?:dst\s+)?port(?:range)?\s+(\d{1,5})(?:-(\d{1,5}))?", re.ASCII
)
_TARGET: Final = re.compile(r"(?:\[([^\]\s]{2,60})\]|([^\s\[\]:]{1,253})):(\d{1,5}|\*)", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
_DIGITS_AND_DOTS: Final = re.compile(r"[0-9.]+", re.ASCII)
_RANGE: Final = re.compile(r"(tcp|udp)/(\d{1,5})-(\d{1,5})", re.ASCII)
SERVICES_MAX: Final = 1024
_COMMAND_NAME: Final = re.compile(r"[a-z0-9-]{1,16}", re.ASCII)  # as packets carry it
_SYSTEM: Final = re.compile(r"[A-Za-z0-9@+-]{1,15}", re.ASCII)
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\$?", re.ASCII)


def one_of(values: Mapping[str, T], complaint: str) -> Callable[[str], T]:
    """A converter of words in any case; `values` has them in lower case."""

    def convert(text: str) -> T:
        try:
            return values[text.lower() if text.isascii() else ""]  # the lower case of the Kelvin sign is k
        except KeyError:
            msg = f"{text[:40]!r} {complaint}"
            raise ValueError(msg) from None

    return convert


# Anything else is refused; fwknopd reads what does not begin with Y as N, `true` included.
boolean = one_of({"y": True, "yes": True, "n": False, "no": False}, "is neither Y nor N")


def number(low: int, high: int) -> Callable[[str], int]:
    """A converter of decimal numbers from `low` to `high`."""

    def convert(text: str) -> int:
        if _DIGITS.fullmatch(text) is None or not low <= int(text) <= high:
            msg = f"{text[:40]!r} is not a number from {low} to {high}"
            raise ValueError(msg)
        return int(text)

    return convert


window = number(1, GRANT_SECONDS_MAX)
port = number(1, PORT_MAX)


def magic_carrier(value: str) -> int | None:
    """Read where magic packets come: a UDP port, or None for `icmp`."""
    if value == "icmp":
        return None
    try:
        found = Service.parse(value)
    except WireError:
        found = None
    if found is None or found.protocol is not Protocol.UDP:
        msg = f"{value[:40]!r} is neither udp/PORT nor icmp"
        raise ValueError(msg)
    return found.port


def text(value: str) -> str:
    """Read any text but the placeholder of the templates."""
    if value == CHANGE_ME:
        msg = f"still has the placeholder {CHANGE_ME}"
        raise ValueError(msg)
    return value


def path(value: str) -> Path:
    """Read an absolute path."""
    read = Path(text(value))
    if not read.is_absolute():
        msg = f"{value[:60]!r} is not an absolute path"
        raise ValueError(msg)
    return read


def key_text(value: str) -> Secret:
    """Read a key given as text."""
    return Secret(text(value).encode("utf-8"))


def key_base64(value: str) -> Secret:
    """Read a key in base64, with or without padding; the error never contains the text."""
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


def psk_base64(value: str) -> Secret:
    """Read a pre-shared key of the format doorward 1 in base64."""
    key = key_base64(value)
    if len(key) != PSK_BYTES or not any(key.reveal()):
        msg = f"is no pre-shared key: {PSK_BYTES} random bytes in base64"
        raise ValueError(msg)
    return key


def one_time_secret(value: str) -> Secret:
    """Read the secret of an authenticator app in base32 (RFC 4648), as apps show it: blanks and lower case count not.

    RFC 4226 wants 128 bits at least.
    """
    bare = text("".join(value.split())).upper().rstrip("=")
    try:
        key = base64.b32decode(bare + "=" * (-len(bare) % 8))
    except binascii.Error:
        key = b""
    if not ONE_TIME_BYTES[0] <= len(key) <= ONE_TIME_BYTES[1]:
        msg = "is no secret for one-time codes: {} to {} bytes in base32".format(*ONE_TIME_BYTES)
        raise ValueError(msg)
    return Secret(key)


def public_line(value: str) -> tuple[PublicKey, str | None]:
    """Read `doorward1 BASE64`, with a comment of one word behind it or without."""
    words = value.split()
    if len(words) > 3:  # noqa: PLR2004  the kind of key, the key, the comment
        msg = "the comment behind a public key is one word, such as alice@laptop"
        raise ValueError(msg)
    return PublicKey.parse(" ".join(words[:2])), check_name(words[2]) if words[2:] else None


def client(value: str) -> Client:
    """Read the value of CLIENT: a public key, and the client's name behind it."""
    from doorward.config.stanza import Client  # noqa: PLC0415  `doorward connect`, before every ssh, needs no stanzas

    return Client(*public_line(value))


def named_command(value: str) -> tuple[str, str]:
    """Read the value of COMMANDS, `restart-web=/usr/bin/systemctl restart nginx`: a name, and the command behind it."""
    name, separator, command = value.partition("=")
    name, command = name.strip(), command.strip()
    if _COMMAND_NAME.fullmatch(name) is None or not separator:
        msg = f"{value[:40]!r} is not NAME=COMMAND, with a name of up to 16 of a-z, 0-9 and -"
        raise ValueError(msg)
    if not command.startswith("/"):
        msg = f"{name}: the command does not begin with the absolute path of a program"
        raise ValueError(msg)
    return name, text(command)


def networks(value: str) -> Networks:
    """Read ANY, or addresses, CIDR networks and dotted masks, separated by commas or blanks (server/access.c).

    Words beside ANY are read too: else `ANY # but` would mean everybody, which the author did not mean.
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
    from doorward.config.stanza import Target  # noqa: PLC0415  `doorward connect`, before every ssh, needs no stanzas

    match = _TARGET.fullmatch(entry)
    if match is None:
        msg = f"{entry[:80]!r} is not HOST:PORT, NETWORK:PORT or [IPV6]:PORT, with * for every port"
        raise ValueError(msg)
    host, wanted = match[1] or match[2], None if match[3] == "*" else port(match[3])
    if match[1] is None and _HOST.fullmatch(host) and not _DIGITS_AND_DOTS.fullmatch(host):
        return Target(Networks.of(()), wanted, host.lower())
    return Target(Networks.of([_network(host)]), wanted)


def matching(pattern: re.Pattern[str], complaint: str, shown: int = 40) -> Callable[[str], str]:
    """A converter of texts that match a pattern as a whole; an error repeats `shown` characters."""

    def convert(text: str) -> str:
        if pattern.fullmatch(text) is None:
            msg = f"{text[:shown]!r} {complaint}"
            raise ValueError(msg)
        return text

    return convert


system = matching(_SYSTEM, "is no name of an operating system")  # in nftables' fingerprints
account = matching(_ACCOUNT, "is no name of an account")  # of a user or a group


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


def services(value: str) -> tuple[Service, ...]:
    """Read `tcp/22, udp/60000-60010`; lower case, no duplicates, bounded. The problem names every wrong entry."""
    read = [each for entry in value.split(",") for each in _services(entry.strip())]
    entries = tuple(entry for entry in read if isinstance(entry, Service))
    problems = [entry for entry in read if isinstance(entry, str)]
    if len(entries) > SERVICES_MAX:
        problems.append(f"names more than {SERVICES_MAX} services")
    if len(set(entries)) != len(entries):
        problems.append("names a service twice")
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))
    return entries


def _services(entry: str) -> list[Service | str]:
    """The services of `tcp/22` or of a range, or the problem with them."""
    match = _RANGE.fullmatch(entry)
    if match is None:
        return [_service(entry)]
    first, last = int(match[2]), int(match[3])
    if not 0 < first < last <= PORT_MAX or last - first >= SERVICES_MAX:
        return [f"{entry!r} is no range of at most {SERVICES_MAX} ports, the lower one first"]
    return [Service(Protocol[match[1].upper()], port) for port in range(first, last + 1)]


def _service(entry: str) -> Service | str:
    """A service, or the problem with it."""
    try:
        return Service.parse(entry)
    except WireError as error:
        return str(error)


def member(kind: type[E]) -> Callable[[str], E]:
    """A converter of the names of an enumeration, in any case."""
    members = {one.name.lower(): one for one in kind}
    return one_of(members, f"is none of {', '.join(members)}")


digest_type = member(DigestType)
encryption_mode = member(EncryptionMode)


def expiry_date(value: str) -> int:
    """Read M/D/YYYY or M/D/YY as the start of that day (UTC, Unix seconds); 13/45/2020 is refused.

    fwknopd rolls it over, to 14 February 2021.
    """
    match = _DATE.fullmatch(value)
    if match is None:
        msg = f"{value[:40]!r} is not M/D/YYYY"
        raise ValueError(msg)
    import datetime as dt  # noqa: PLC0415  `doorward connect`, before every ssh, reads no dates

    month, day, year = map(int, match.groups())
    year += _CENTURY if year < 100 else 0  # noqa: PLR2004  two digits
    return int(dt.datetime(year, month, day, tzinfo=dt.timezone.utc).timestamp())


def carriers(value: str) -> Carriers:
    """Read the part of pcap-filter(7) for knocks: `udp port N`, `tcp dst portrange N-M`, `icmp`, joined by `or`.

    A protocol alone has all ports, and a port alone is of both protocols. doorward makes the kernel's filter from it;
    other expressions are refused.
    """
    ports: dict[str, list[range]] = {"udp": [], "tcp": []}
    icmp = False
    for term in re.split(r"\s+or\s+", value.strip()):
        match = _PORTS.fullmatch(term)
        if match is not None:
            for name in [match[1]] if match[1] else ports:
                ports[name].append(_span(term, match[2], match[3] or match[2]))
        elif term in ports:
            ports[term].append(range(1, PORT_MAX + 1))
        elif term in {"icmp", "icmp6"}:
            icmp = True
        else:
            msg = f"{term[:60]!r} is none of 'udp', 'port N', 'udp port N', 'tcp dst portrange N-M', 'icmp'"
            raise ValueError(msg)
    return Carriers(tuple(ports["udp"]), tuple(ports["tcp"]), icmp=icmp)


def _span(term: str, first: str, last: str) -> range:
    low, high = port(first), port(last)
    if high < low:
        msg = f"{term[:60]!r} is an empty range"
        raise ValueError(msg)
    return range(low, high + 1)
