"""What the client can be told, by ~/.fwknoprc or by options: the values, and how their texts are read."""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from doorward.config import convert
from doorward.values import HMAC_KEY_MAX, KEY_MAX, EncryptionMode, Service
from doorward.wire.fwknop import TIMEOUT_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.values import DigestType, IPAddress, Secret

PASSPHRASE_MAX: Final = 128  # bytes, as fwknop's client has it (common/common.h MAX_KEY_LEN)
DNS_PORT: Final = 53
ICMP_TYPE_MAX: Final = 40  # common/common.h
ICMP_CODE_MAX: Final = 15
URLS_MAX: Final = 8

_OFFSET: Final = re.compile(r"(-?)(\d{1,8})([smhd]?)", re.ASCII | re.IGNORECASE)
_OFFSET_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]{0,252}", re.ASCII)
_USER_MAX: Final = 48
_AGENT: Final = re.compile(r"[\x20-\x7e]{1,99}")  # HTTP_MAX_USER_AGENT_LEN, client/fwknop_common.h
_BRACKETED: Final = re.compile(r"\[([^\[\]]+)\](?:[:,](.*))?")
_URL: Final = re.compile(
    r"(?:(https?)://)?((?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?)(/[!-~]{0,1000})?"
)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_NAME_MAX: Final = 253


class SourceRule(enum.Enum):
    """How the client finds the source to ask for, where no address is given."""

    AUTO = "auto"  # its own address towards the host; the packet's origin where only that can be right
    PACKET = "packet"  # the packet's origin, 0.0.0.0 in the message
    RESOLVE = "resolve"  # as somebody outside sees it: a web site, or a name server


class Carrier(enum.Enum):
    """What a packet travels in."""

    UDP = "udp"
    TCP = "tcp"
    HTTP = "http"
    UDPRAW = "udpraw"
    TCPRAW = "tcpraw"
    ICMP = "icmp"

    @property
    def is_raw(self) -> bool:
        """Whether the client makes the headers itself, which only root may."""
        return self in {Carrier.UDPRAW, Carrier.TCPRAW, Carrier.ICMP}


class OpenPgpMode(enum.Enum):
    """fwknop's name for "not a mode of AES" among the encryption modes (lib/fko.h)."""

    ASYMMETRIC = 7


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host and a port that may be left open."""

    host: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A name whose address is the asker's own, and the name server that says so."""

    name: str
    server: HostPort


OWN_ADDRESS_QUESTIONS: Final = (
    Question("myip.opendns.com", HostPort("resolver1.opendns.com")),
    Question("o-o.myaddr.l.google.com", HostPort("ns1.google.com")),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a stanza or a command line says; None is what it leaves open. Times in seconds."""

    server: str | None = None
    port: int | None = None
    source_port: int | None = None
    carrier: Carrier | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    http_proxy: HostPort | None = None
    user_agent: str | None = None
    wget_user_agent: bool | None = None
    rand_port: bool | None = None
    spoofed: IPAddress | None = None
    access: tuple[Service, ...] | None = None
    command: str | None = None
    source: SourceRule | IPAddress | None = None
    resolve_urls: tuple[str, ...] | None = None
    resolve_http_only: bool | None = None
    resolve_dns: tuple[Question, ...] | None = None
    wget: str | None = None
    timeout: int | None = None
    nat_access: HostPort | None = None
    nat_local: bool | None = None
    nat_port: int | None = None
    nat_rand_port: bool | None = None
    user: str | None = None
    time_offset: int | None = None
    digest: DigestType | None = None
    mode: EncryptionMode | OpenPgpMode | None = None
    key: Secret | None = None
    key_file: Path | None = None
    hmac_key: Secret | None = None
    hmac_key_file: Path | None = None
    hmac_digest: DigestType | None = None
    use_hmac: bool | None = None
    use_gpg: bool | None = None
    gpg_recipient: str | None = None
    gpg_signer: str | None = None
    gpg_home: Path | None = None
    gpg_exe: Path | None = None
    gpg_agent: bool | None = None
    gpg_no_password: bool | None = None
    gpg_password: Secret | None = None
    ipv4_only: bool | None = None
    verbose: int | None = None
    no_save_args: bool | None = None

    @property
    def has_key(self) -> bool:
        """Whether an encryption key, or a file that holds one, is named."""
        return self.key is not None or self.key_file is not None

    @property
    def can_seal(self) -> bool:
        """Whether it names what to encrypt with."""
        return self.gpg_recipient is not None if self.use_gpg else self.has_key

    def over(self, base: Profile) -> Profile:
        """Return this profile with what it leaves open taken from `base`."""
        if self.has_key:
            base = replace(base, key=None, key_file=None, gpg_password=None)
        if self.hmac_key is not None or self.hmac_key_file is not None:
            base = replace(base, hmac_key=None, hmac_key_file=None)
        if self.nat_port is not None or self.nat_rand_port:
            base = replace(base, nat_port=None, nat_rand_port=None)
        said: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(base, **{name: value for name, value in said.items() if value is not None})


def server(text: str) -> str:
    """Read a host name or address, as it may stand on a command line."""
    if _HOST.fullmatch(text) is None:
        msg = f"{text[:80]!r} is no host name or address"
        raise ValueError(msg)
    return text


def source_rule(text: str) -> SourceRule | IPAddress:
    """Read what ALLOW_IP and `-a` say: auto, packet (fwknop's word is source), resolve or an address."""
    word = text.lower()
    if word in _SOURCE_WORDS:
        return _SOURCE_WORDS[word]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        msg = f"{text[:60]!r} is neither auto, source, resolve nor an address"
        raise ValueError(msg) from None


_SOURCE_WORDS: Final = {
    "auto": SourceRule.AUTO,
    "packet": SourceRule.PACKET,
    "source": SourceRule.PACKET,
    "0.0.0.0": SourceRule.PACKET,  # noqa: S104  fwknop's spelling of the packet's origin, nothing is bound
    "resolve": SourceRule.RESOLVE,
}


def address(text: str) -> IPAddress:
    """Read one address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        msg = f"{text[:60]!r} is no address"
        raise ValueError(msg) from None


def carrier(text: str) -> Carrier:
    """Read `udp` and its like, in any case."""
    try:
        return Carrier(text.lower())
    except ValueError:
        msg = f"{text[:20]!r} is none of {', '.join(each.value for each in Carrier)}"
        raise ValueError(msg) from None


def encryption_mode(text: str) -> EncryptionMode | OpenPgpMode:
    """Read `CBC` and its like, in any case; Asymmetric is what fwknop calls GnuPG."""
    return OpenPgpMode.ASYMMETRIC if text.lower() == "asymmetric" else convert.encryption_mode(text)


def host_port(text: str) -> HostPort:
    """Read `HOST`, `HOST:PORT`, `HOST,PORT`, `[IPv6]:PORT` or an IPv6 address."""
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        host, number = bracketed[1], bracketed[2]
    elif "," in text:
        host, _, number = text.partition(",")
    elif text.count(":") > 1:
        host, number = text, None
    else:
        host, _, number = text.partition(":")
    port = None if not number and not text.endswith((":", ",")) else convert.port(number or "")
    if ":" in host:
        return HostPort(str(ipaddress.IPv6Address(host)), port)
    return HostPort(server(host), port)


def http_proxy(text: str) -> HostPort:
    """Read `[http://]HOST[:PORT]`."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() != "http":
        msg = "a proxy is http://HOST:PORT: the packet needs no TLS, and this client speaks none to proxies"
        raise ValueError(msg)
    return host_port((rest if separator else text).rstrip("/"))


def user_agent(text: str) -> str:
    """Read the name a program gives itself in HTTP."""
    if _AGENT.fullmatch(text) is None:
        msg = "a user agent is 1 to 99 printable characters"
        raise ValueError(msg)
    return text


def urls(text: str) -> tuple[str, ...]:
    """Read web addresses, separated by commas; without a scheme they are https."""
    found = tuple(_url(entry.strip()) for entry in text.split(","))
    if len(found) > URLS_MAX:
        msg = f"at most {URLS_MAX} addresses are asked"
        raise ValueError(msg)
    return found


def _url(text: str) -> str:
    match = _URL.fullmatch(text)
    url = "" if match is None else f"{match[1] or 'https'}://{match[2]}{match[3] or '/'}"
    try:
        named = urlsplit(url).hostname or ""
        if ":" in named:
            ipaddress.IPv6Address(named)  # Python 3.10 takes anything for one
        named = named if urlsplit(url).port != 0 else ""
    except ValueError:  # a port above 65535, or no IPv6 address
        named = ""
    if not named:
        msg = f"{text[:80]!r} is not https://HOST[:PORT]/PATH"
        raise ValueError(msg)
    return url


def questions(text: str) -> tuple[Question, ...]:
    """Read `NAME@SERVER[:PORT]`, several of them separated by commas; `default` is a list of ours."""
    if text.lower() == "default":
        return OWN_ADDRESS_QUESTIONS
    return tuple(_question(entry.strip()) for entry in text.split(","))


def _question(text: str) -> Question:
    name, separator, rest = text.partition("@")
    if not separator or _NAME.fullmatch(name) is None or len(name) > _NAME_MAX:
        msg = f"{text[:80]!r} is not NAME@SERVER"
        raise ValueError(msg)
    return Question(name.rstrip("."), host_port(rest))


def text_line(text: str) -> str:
    """Read any text of printable ASCII characters."""
    if not text or not text.isascii() or not text.isprintable():
        msg = "is empty or has characters that are not printable ASCII"
        raise ValueError(msg)
    return text


def time_offset(text: str) -> int:
    """Read `30`, `-5m`, `2h` or `1d` as seconds."""
    match = _OFFSET.fullmatch(text)
    if match is None:
        msg = f"{text[:20]!r} is no offset such as 30, -5m, 2h or 1d"
        raise ValueError(msg)
    seconds = int(match[2]) * _OFFSET_UNITS[match[3].lower()]
    return -seconds if match[1] else seconds


def bounded(read: Callable[[str], Secret], limit: int) -> Callable[[str], Secret]:
    """Return the converter with a limit on the key's length in bytes."""

    def checked(text: str) -> Secret:
        key = read(text)
        if len(key) > limit:
            msg = f"the key has {len(key)} bytes, more than {limit}"
            raise ValueError(msg)
        return key

    return checked


def bounded_text(limit: int) -> Callable[[str], Secret]:
    """Return a converter of keys that are written as they are, at most `limit` bytes."""
    return bounded(convert.key_text, limit)


encryption_key_text = bounded_text(KEY_MAX)
encryption_key_base64 = bounded(convert.key_base64, KEY_MAX)
hmac_key_text = bounded_text(HMAC_KEY_MAX)
hmac_key_base64 = bounded(convert.key_base64, HMAC_KEY_MAX)
password_text = bounded_text(PASSPHRASE_MAX)
password_base64 = bounded(convert.key_base64, PASSPHRASE_MAX)
window = convert.number(0, TIMEOUT_MAX)
icmp_type = convert.number(0, ICMP_TYPE_MAX)
icmp_code = convert.number(0, ICMP_CODE_MAX)


def user(text: str) -> str:
    """Read a user name of a length that receivers accept."""
    if not 1 <= len(text.encode()) <= _USER_MAX:
        msg = f"a user name has 1 to {_USER_MAX} bytes"
        raise ValueError(msg)
    return text


def path(text: str) -> Path:
    """Read a path; `~` is the home directory."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def verbosity(text: str) -> int:
    """Read Y, N or a number."""
    return convert.number(0, 9)(text) if text.isdecimal() else int(convert.boolean(text))
