"""The client's settings, from ~/.fwknoprc or the command line: the values, and the converters of their texts.

`doorward connect` runs before every ssh, so this module is made to load fast: named tuples, no pattern compiled ahead.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.config import convert
from doorward.values import HMAC_KEY_MAX, KEY_MAX, PORT_MAX, PREFIXES, EncryptionMode, Service
from doorward.wire.fwknop import TIMEOUT_MAX

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

    from doorward.values import DigestType, IPAddress, PublicKey, Secret

PASSPHRASE_MAX: Final = 128  # bytes, as fwknop's client has it (common/common.h MAX_KEY_LEN)
DNS_PORT: Final = 53
ICMP_TYPE_MAX: Final = 40  # common/common.h
ICMP_CODE_MAX: Final = 15
URLS_MAX: Final = 8
HOPS_MAX: Final = 8
USER_AGENT: Final = "Fwknop/2.6.11"  # receivers look for this name unless ALLOW_ANY_USER_AGENT says otherwise
VERBOSITY_MAX: Final = 9

_OFFSET: Final = r"([+-]?)(\d{1,8})([smhd]?)"
_OFFSET_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_HOST: Final = r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]{0,252}"
_LOGIN: Final = r"[A-Za-z0-9_.][A-Za-z0-9_.@+\\-]{0,63}"  # a name of a domain may have @ or \\
CODE_DIGITS: Final = 6
_CODE_WORDS: Final = frozenset({"ask", "none"})
_INTERFACE: Final = r"[A-Za-z0-9_.@:][A-Za-z0-9_.@:-]{0,14}"
_USER_MAX: Final = 48
_AGENT: Final = r"[\x20-\x7e]{1,99}"  # HTTP_MAX_USER_AGENT_LEN, client/fwknop_common.h
_BRACKETED: Final = r"\[([^\[\]]+)\](?:[:,](.*))?"
_URL: Final = r"(?:(https?)://)?((?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?)(/[!-~]{0,1000})?"
_NAME: Final = r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?"
_NAME_MAX: Final = 253
# a field hides the fields of its kind in lower levels of settings
_KINDS: Final = {
    **dict.fromkeys(("key_file", "key_command", "host_key"), "key"),
    **dict.fromkeys(("hmac_key_file", "hmac_key_command"), "hmac_key"),
    "nat_rand_port": "nat_port",
}


class SourceRule(enum.Enum):
    """The client's rule for finding the source to ask for."""

    AUTO = "auto"  # every address at which the host may see this machine, as sources.py has it
    NAMED = "named"  # the same, but never the packet's origin
    PACKET = "packet"  # the packet's origin, 0.0.0.0 in the message
    RESOLVE = "resolve"  # as a web site or a name server sees it


class Carrier(enum.Enum):
    """The carrier of a packet."""

    UDP = "udp"
    TCP = "tcp"
    HTTP = "http"
    UDPRAW = "udpraw"
    TCPRAW = "tcpraw"
    ICMP = "icmp"

    @property
    def is_raw(self) -> bool:
        """Whether the client writes the headers itself, which needs root."""
        return self in {Carrier.UDPRAW, Carrier.TCPRAW, Carrier.ICMP}


class OpenPgpMode(enum.Enum):
    """fwknop's name for "not a mode of AES" among the encryption modes (lib/fko.h)."""

    ASYMMETRIC = 7


class CodeRule(enum.Enum):
    """The client's rule for one-time codes, where none is given."""

    ASK = "ask"  # at the terminal
    NONE = "none"


class HostPort(NamedTuple):
    """A host and an optional port."""

    host: str
    port: int | None = None


class Question(NamedTuple):
    """A name that a name server answers with the asker's own address."""

    name: str
    server: HostPort


OWN_ADDRESS_QUESTIONS: Final = (
    Question("myip.opendns.com", HostPort("resolver1.opendns.com")),
    Question("o-o.myaddr.l.google.com", HostPort("ns1.google.com")),
)


class Profile(NamedTuple):
    """The settings of one section or command line; None is not given. Times in seconds."""

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
    sequence: tuple[Service, ...] | None = None
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
    key_command: tuple[str, ...] | None = None
    hmac_key: Secret | None = None
    hmac_key_file: Path | None = None
    hmac_key_command: tuple[str, ...] | None = None
    hmac_digest: DigestType | None = None
    use_hmac: bool | None = None
    host_key: PublicKey | None = None
    client_key_file: Path | None = None
    psk: Secret | None = None
    one_time_code: int | CodeRule | None = None
    prefixes: tuple[int, ...] | None = None
    use_gpg: bool | None = None
    gpg_recipient: str | None = None
    gpg_signer: str | None = None
    gpg_home: Path | None = None
    gpg_exe: Path | None = None
    gpg_agent: bool | None = None
    gpg_no_password: bool | None = None
    gpg_password: Secret | None = None
    ipv4_only: bool | None = None
    ipv6_only: bool | None = None
    verbose: int | None = None
    no_save_args: bool | None = None

    @classmethod
    def of(cls, arguments: SimpleNamespace) -> Profile:
        """The settings among the values of a command line."""
        return cls(**{name: getattr(arguments, name, None) for name in cls._fields})

    @property
    def family(self) -> socket.AddressFamily:
        """The family of addresses to use; AF_UNSPEC is both."""
        if self.ipv4_only:
            return socket.AF_INET
        return socket.AF_INET6 if self.ipv6_only else socket.AF_UNSPEC

    @property
    def transport(self) -> Carrier:
        """The carrier of the packets: UDP where none is given."""
        return self.carrier or Carrier.UDP

    @property
    def can_seal(self) -> bool:
        """Whether it has a key, a file of keys, a program that prints one, or a recipient, to encrypt with.

        A sequence of ports takes the place of packets.
        """
        if self.sequence is not None:
            return False
        if self.host_key is not None:
            return True
        if self.use_gpg:
            return self.gpg_recipient is not None
        return any(each is not None for each in (self.key, self.key_file, self.key_command))

    def over(self, base: Profile) -> Profile:
        """This profile, with `base` for the settings that it does not give."""
        said = {name: value for name, value in self._asdict().items() if value is not None}
        kinds = {kind(name) for name, value in said.items() if value is not False}
        below = {name: value for name, value in base._asdict().items() if kind(name) not in kinds}
        if "key" in kinds:
            below["gpg_password"] = None
        return Profile(**{**below, **said})


def kind(field: str) -> str:
    """The field that stands for all fields that hide one another."""
    return _KINDS.get(field, field)


def server(text: str) -> str:
    """Read a host name or address, as it may stand on a command line."""
    if re.fullmatch(_HOST, text) is None:
        msg = f"{text[:80]!r} is no host name or address"
        raise ValueError(msg)
    return text


class Hop(NamedTuple):
    """A host to jump through, as ssh's -J names it."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """The form that -J takes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user is not None else ""
        return f"{user}{host}{'' if self.port is None else f':{self.port}'}"


def hops(text: str) -> tuple[Hop, ...]:
    """Read `[USER@]HOST[:PORT]`, several of them separated by commas; `none` is no jump, as for ssh."""
    found = () if text.lower() == "none" else tuple(_hop(entry) for entry in text.split(","))
    if len(found) > HOPS_MAX:
        msg = f"at most {HOPS_MAX} hosts are jumped through"
        raise ValueError(msg)
    return found


def _hop(text: str) -> Hop:
    user, at, place = text.removeprefix("ssh://").rstrip("/").rpartition("@")
    if at and re.fullmatch(_LOGIN, user) is None:
        msg = f"{user[:80]!r} is no user name for ssh"
        raise ValueError(msg)
    host, port = host_port(place)
    return Hop(host, user if at else None, port)


def interface(text: str) -> str:
    """Read the name of a network interface."""
    if re.fullmatch(_INTERFACE, text) is None:
        msg = f"{text[:40]!r} is no name of an interface"
        raise ValueError(msg)
    return text


def words(text: str) -> tuple[str, ...]:
    """Read a command as its words, quoted as for a shell."""
    import shlex  # noqa: PLC0415  only where a command is named

    found = tuple(shlex.split(text))
    if not found:
        msg = "is no command"
        raise ValueError(msg)
    return found


def source_rule(text: str) -> SourceRule | IPAddress:
    """Read the value of ALLOW_IP and `-a`: auto, named, packet (fwknop's word is source), resolve or an address."""
    word = text.lower()
    if word in _SOURCE_WORDS:
        return _SOURCE_WORDS[word]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        msg = f"{text[:60]!r} is neither auto, named, source, resolve nor an address"
        raise ValueError(msg) from None


_SOURCE_WORDS: Final = {
    "auto": SourceRule.AUTO,
    "named": SourceRule.NAMED,
    "packet": SourceRule.PACKET,
    "source": SourceRule.PACKET,
    "0.0.0.0": SourceRule.PACKET,  # noqa: S104  fwknop's spelling of the packet's origin, nothing is bound
    "resolve": SourceRule.RESOLVE,
}


def carrier(text: str) -> Carrier:
    """Read `udp` and its like, in any case."""
    try:
        return Carrier(text.lower())
    except ValueError:
        msg = f"{text[:20]!r} is none of {', '.join(each.value for each in Carrier)}"
        raise ValueError(msg) from None


def encryption_mode(text: str) -> EncryptionMode | OpenPgpMode:
    """Read `CBC` and its like, in any case; Asymmetric is fwknop's word for GnuPG."""
    return OpenPgpMode.ASYMMETRIC if text.lower() == "asymmetric" else convert.encryption_mode(text)


def host_port(text: str) -> HostPort:
    """Read `HOST`, `HOST:PORT`, `HOST,PORT`, `[IPv6]:PORT` or an IPv6 address."""
    bracketed = re.fullmatch(_BRACKETED, text)
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


def local(text: str) -> HostPort:
    """Read `[ADDRESS:]PORT` of this machine; port 0 is one that the system chooses."""
    if text.isdecimal():
        return HostPort("127.0.0.1", convert.number(0, PORT_MAX)(text))
    return host_port(text)


def target(text: str) -> HostPort:
    """Read `HOST:PORT`."""
    found = host_port(text)
    if found.port is None:
        msg = f"{text[:80]!r} names no port: HOST:PORT"
        raise ValueError(msg)
    return found


def destination(text: str) -> str:
    """Read `[USER@]HOST`, as it may stand on ssh's command line."""
    hop = _hop(text)
    if hop.port is not None:
        msg = f"{text[:80]!r} is not [USER@]HOST"
        raise ValueError(msg)
    return text


def http_proxy(text: str) -> HostPort:
    """Read `[http://]HOST[:PORT][/…]`; the path has no meaning, as in fwknop."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() != "http":
        msg = "a proxy is http://HOST:PORT: the packet needs no TLS, and this client speaks none to proxies"
        raise ValueError(msg)
    return host_port((rest if separator else text).partition("/")[0])


def user_agent(text: str) -> str:
    """Read a program's name for HTTP."""
    if re.fullmatch(_AGENT, text) is None:
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
    from urllib.parse import urlsplit  # noqa: PLC0415  2 ms, and `doorward connect` needs no address of the web

    match = re.fullmatch(_URL, text)
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
    """Read `NAME@SERVER[:PORT]`, several of them separated by commas; `default` is a built-in list."""
    return tuple(question for entry in text.split(",") for question in _questions(entry.strip()))


def _questions(text: str) -> tuple[Question, ...]:
    if text.lower() == "default":
        return OWN_ADDRESS_QUESTIONS
    name, separator, rest = text.partition("@")
    if not separator or re.fullmatch(_NAME, name) is None or len(name) > _NAME_MAX:
        msg = f"{text[:80]!r} is not NAME@SERVER"
        raise ValueError(msg)
    return (Question(name.rstrip("."), host_port(rest)),)


def text_line(text: str) -> str:
    """Read any text of printable ASCII characters."""
    if not text or not text.isascii() or not text.isprintable():
        msg = "is empty or has characters that are not printable ASCII"
        raise ValueError(msg)
    return text


def command(text: str) -> str:
    """Read a command; its characters need not be ASCII."""
    if not text or not text.isprintable():
        msg = "is empty or has characters that are not printable"
        raise ValueError(msg)
    return text


def program(text: str) -> tuple[str, ...]:
    """Read a program and its arguments, quoted as in a shell; no shell runs it, and nothing in it is replaced."""
    import shlex  # noqa: PLC0415  for the few who have one

    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        msg = f"the program is not quoted well: {error}"
        raise ValueError(msg) from None
    if not words or not words[0]:
        msg = "names no program"
        raise ValueError(msg)
    return words


def time_offset(text: str) -> int:
    """Read `30`, `-5m`, `+2h` or `1d` as seconds."""
    match = re.fullmatch(_OFFSET, text, re.ASCII | re.IGNORECASE)
    if match is None:
        msg = f"{text[:20]!r} is no offset such as 30, -5m, 2h or 1d"
        raise ValueError(msg)
    seconds = int(match[2]) * _OFFSET_UNITS[match[3].lower()]
    return -seconds if match[1] == "-" else seconds


def bounded(read: Callable[[str], Secret], limit: int) -> Callable[[str], Secret]:
    """The converter with a limit on the key's length in bytes."""

    def checked(text: str) -> Secret:
        key = read(text)
        if len(key) > limit:
            msg = f"the key has {len(key)} bytes, more than {limit}"
            raise ValueError(msg)
        return key

    return checked


def bounded_text(limit: int) -> Callable[[str], Secret]:
    """A converter of keys in plain text, at most `limit` bytes."""
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


def host_key(text: str) -> PublicKey:
    """Read the host's public key, `doorward1 BASE64`; what stands behind it is a comment."""
    return convert.public_line(text)[0]


def one_time_code(text: str) -> int | CodeRule:
    """Read a one-time code of six digits, blanks in it left out, or `ask` or `none`."""
    digits = "".join(text.split())
    if digits.isascii() and digits.isdecimal() and len(digits) == CODE_DIGITS:
        return int(digits)
    if text.lower() in _CODE_WORDS:
        return CodeRule(text.lower())
    msg = "is no one-time code: six digits, or `ask`"  # a mistyped code is nearly one, and not repeated
    raise ValueError(msg)


def code_rule(text: str) -> CodeRule:
    """Read the value of ONE_TIME_CODE: `ask` or `none`; a code itself is good for seconds."""
    read = one_time_code(text)
    if isinstance(read, CodeRule):
        return read
    msg = "a code does not stay good in a file: `ask` asks for it at the terminal"
    raise ValueError(msg)


def sequence(text: str) -> tuple[Service, ...]:
    """Read a sequence of ports as access.conf has it; the times of its steps are the host's."""
    found = tuple(Service.parse(word.partition(":")[0]) for word in text.split())
    if not found:
        msg = "no ports"
        raise ValueError(msg)
    return found


def prefixes(text: str) -> tuple[int, ...]:
    """Read the lengths of networks: `24`, `64` or both; those of IPv4 are shorter than those of IPv6."""
    lengths = tuple(_prefix(word) for word in text.split(","))
    if len({length in PREFIXES[4] for length in lengths}) != len(lengths):
        msg = f"{text[:20]!r} has two lengths for one family"
        raise ValueError(msg)
    return lengths


def _prefix(word: str) -> int:
    length = int(word) if word.isascii() and word.isdecimal() and len(word) <= 3 else 0  # noqa: PLR2004  digits
    if not any(length in lengths for lengths in PREFIXES.values()):
        msg = f"{word[:20]!r} is no length of a network: 8 to 31 for IPv4, 32 to 127 for IPv6"
        raise ValueError(msg)
    return length


def user(text: str) -> str:
    """Read a user name of at most the receivers' length."""
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
    return convert.number(0, VERBOSITY_MAX)(text) if text.isdecimal() else int(convert.boolean(text))
