"""The client's file: `[default]`, then named stanzas of `NAME value` lines, as fwknop reads ~/.fwknoprc.

Source: fwknop client/config_init.c. Where we part from it: lines above the first stanza belong to `[default]` (fwknop
drops them without a word), so the text that `doorward keys generate` prints is a file; a named stanza's key replaces
the default's whatever its spelling; HMAC_KEY_FILE names the HMAC key's file (fwknop's fills the other one); a truth
value is Y or N, with yes and no as what they say (fwknop takes `yes` for No); ALLOW_IP may also be `auto`, `packet` or
an IPv6 address.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import re
import stat
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.config import convert
from doorward.config.reader import Line, Setting, failure, is_name
from doorward.config.reader import convert as convert_lines
from doorward.errors import ConfigError, Problem
from doorward.values import HMAC_KEY_MAX, KEY_MAX
from doorward.wire.fwknop import TIMEOUT_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doorward.values import DigestType, EncryptionMode, IPAddress, Secret, Service

DEFAULT: Final = "default"
FILE_MAX: Final = 1 << 20  # bytes; a thousand stanzas fit many times
LINE_MAX: Final = 1024  # characters, fwknop's MAX_LINE_LEN

_STANZA: Final = re.compile(r"\[([^\]]*)\]")
_ENTRY: Final = re.compile(r"([^\s;#]+)\s+([^\s;#]+)")
_OFFSET: Final = re.compile(r"(-?)(\d{1,8})([smhd]?)", re.ASCII | re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]{0,252}", re.ASCII)
_USER_MAX: Final = 48
_OFFSET_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class SourceRule(enum.Enum):
    """How the client finds the source to ask for, where no address is given."""

    AUTO = "auto"  # its own address towards the host; the packet's origin where only that can be right
    PACKET = "packet"  # the packet's origin, 0.0.0.0 in the message


@dataclass(frozen=True, slots=True)
class Profile:
    """What a stanza or a command line says; None is what it leaves open. Times in seconds."""

    server: str | None = None
    port: int | None = None
    source_port: int | None = None
    access: tuple[Service, ...] | None = None
    source: SourceRule | IPAddress | None = None
    timeout: int | None = None
    user: str | None = None
    time_offset: int | None = None
    digest: DigestType | None = None
    mode: EncryptionMode | None = None
    key: Secret | None = None
    key_file: Path | None = None
    hmac_key: Secret | None = None
    hmac_key_file: Path | None = None
    hmac_digest: DigestType | None = None
    use_hmac: bool | None = None
    ipv4_only: bool | None = None
    verbose: int | None = None

    @property
    def has_key(self) -> bool:
        """Whether an encryption key, or a file that holds one, is named."""
        return self.key is not None or self.key_file is not None

    def over(self, base: Profile) -> Profile:
        """Return this profile with what it leaves open taken from `base`."""
        if self.has_key:
            base = replace(base, key=None, key_file=None)
        if self.hmac_key is not None or self.hmac_key_file is not None:
            base = replace(base, hmac_key=None, hmac_key_file=None)
        said: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(base, **{name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, slots=True)
class ClientFile:
    """A file of stanzas, split but not yet judged: a mistake matters only in the stanzas that are used."""

    path: str
    stanzas: tuple[tuple[str, tuple[Line | Problem, ...]], ...]
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The stanzas' names in the file's order, each once."""
        return tuple(dict.fromkeys(name for name, _ in self.stanzas))

    def has(self, name: str) -> bool:
        """Say whether a stanza of this name exists; upper and lower case are the same, as in fwknop."""
        return any(known.lower() == name.lower() for known in self.names)

    def profile(self, name: str = DEFAULT) -> Profile:
        """Return `[default]` with the named stanza over it.

        Raises:
            ConfigError: no such stanza, or mistakes in the two stanzas, all of them.
        """
        if name.lower() != DEFAULT and not self.has(name):
            known = ", ".join(self.names) or "none"
            raise ConfigError([Problem(self.path, 0, f"no stanza [{name[:80]}]; there are: {known}")])
        problems: list[Problem] = []
        profile = self._read(DEFAULT, problems)
        if name.lower() != DEFAULT:
            profile = self._read(name, problems).over(profile)
        if profile.key is not None and profile.key == profile.hmac_key:
            problems.append(Problem(self.path, 0, f"[{name}]: the encryption key and the HMAC key are the same"))
        if problems:
            raise failure(problems)
        return profile

    def _read(self, name: str, problems: list[Problem]) -> Profile:
        """Return one stanza alone; a later line of the same name wins, as in fwknop."""
        said: dict[str, Any] = {}
        lines = list(self._lines(name, problems))
        for line, field, value in convert_lines(lines, _SETTINGS, problems):
            if field in _KEY_FIELDS and field in said:
                problems.append(line.problem(f"{line.name}: the stanza has this key already; keep one line"))
            elif field:
                said[field] = value
        return Profile(**said)

    def _lines(self, name: str, problems: list[Problem]) -> Iterator[Line]:
        for known, lines in self.stanzas:
            if known.lower() == name.lower():
                problems += [line for line in lines if isinstance(line, Problem)]
                yield from (line for line in lines if isinstance(line, Line))


def load(path: Path) -> ClientFile:
    """Return the file's stanzas, with a warning where others than its owner can read keys in it.

    Raises:
        ConfigError: the file cannot be read, or is no text of a bearable size.
    """
    content, status = _content(path)
    client_file = parse(content, str(path))
    return replace(client_file, warnings=_warnings(client_file, status))


def rows(path: Path) -> list[str]:
    """Return the stripped lines of a text file.

    Raises:
        ConfigError: the file cannot be read, or is no text of a bearable size.
    """
    return _rows(_content(path)[0], str(path))


def parse(content: bytes, path: str) -> ClientFile:
    """Return the stanzas of a file's content; `path` names it in problems.

    Raises:
        ConfigError: the content is too large, or a line is too long or no text.
    """
    return ClientFile(path, tuple(_stanzas(path, _rows(content, path))))


def _content(path: Path) -> tuple[bytes, os.stat_result]:
    """Return content and status of a file, or of a pipe: `--rc-file <(decrypt profile)` keeps keys off the disk."""
    try:
        with path.open("rb") as stream:
            return stream.read(FILE_MAX + 1), os.fstat(stream.fileno())
    except (OSError, ValueError) as error:
        complaint = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(str(path), 0, f"cannot be read: {complaint}")]) from error


def _rows(content: bytes, path: str) -> list[str]:
    if len(content) > FILE_MAX:
        raise ConfigError([Problem(path, 0, f"the file exceeds {FILE_MAX} bytes")])
    raw = content.split(b"\n")
    problems = [Problem(path, number, text) for number, row in enumerate(raw, 1) if (text := _complaint(row))]
    if problems:
        raise failure(problems)
    return [row.decode().strip() for row in raw]


def _complaint(row: bytes) -> str | None:
    if len(row) >= LINE_MAX:
        return f"the line has {len(row)} bytes, more than {LINE_MAX - 1}"
    try:
        printable = row.decode().strip().replace("\t", " ").isprintable()
    except UnicodeDecodeError:
        return "the line is not UTF-8 text"
    return None if printable else "the line has a control character"


def _stanzas(path: str, rows: list[str]) -> Iterator[tuple[str, tuple[Line | Problem, ...]]]:
    name: str = DEFAULT
    lines: list[Line | Problem] = []
    for number, row in enumerate(rows, 1):
        if not row or row[0] in "#;":
            continue
        heading = _STANZA.match(row)
        if heading is None:
            lines.append(_line(path, number, row))
            continue
        yield name, tuple(lines)
        name, lines = heading[1].strip(), []
    yield name, tuple(lines)


def _line(path: str, number: int, row: str) -> Line | Problem:
    """Split `NAME value` or `NAME: value`; a value ends at a blank, `;` or `#`, as fwknop's scanf has it."""
    match = _ENTRY.match(row)
    if match is None:
        return Problem(
            path, number, f"{row} has no value" if is_name(row.rstrip(":")) else "the line is not NAME value"
        )
    return Line(path, number, match[1].rstrip(":"), match[2])


def _warnings(client_file: ClientFile, status: os.stat_result) -> tuple[str, ...]:
    lines = (line for _, lines in client_file.stanzas for line in lines if isinstance(line, Line))
    if not stat.S_ISREG(status.st_mode) or not any(line.name in _SECRETS for line in lines):
        return ()
    mode = stat.S_IMODE(status.st_mode)
    return (f"{client_file.path}: holds keys and has mode {mode:04o}: chmod 600 it",) if mode & 0o077 else ()


def server(text: str) -> str:
    """Read a host name or address, as it may stand on a command line."""
    if _HOST.fullmatch(text) is None:
        msg = f"{text[:80]!r} is no host name or address"
        raise ValueError(msg)
    return text


def source_rule(text: str) -> SourceRule | IPAddress:
    """Read what ALLOW_IP and `-a` say: auto, packet (fwknop's word is source) or an address."""
    word = text.lower()
    if word == "resolve":
        msg = "resolve (asking a web site) is not served; use auto, source or an address"
        raise ValueError(msg)
    if word in _SOURCE_WORDS:
        return _SOURCE_WORDS[word]
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        msg = f"{text[:60]!r} is neither auto, source nor an address"
        raise ValueError(msg) from None


_SOURCE_WORDS: Final = {
    "auto": SourceRule.AUTO,
    "packet": SourceRule.PACKET,
    "source": SourceRule.PACKET,
    "0.0.0.0": SourceRule.PACKET,  # noqa: S104  fwknop's spelling of the packet's origin, nothing is bound
}


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
window = convert.number(0, TIMEOUT_MAX)


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


def _verbosity(text: str) -> int:
    return convert.number(0, 9)(text) if text.isdecimal() else int(convert.boolean(text))


def _refuse(_text: str) -> None:
    msg = "not served by this version"
    raise ValueError(msg)


def _refuse_yes(text: str) -> None:
    if convert.boolean(text):
        _refuse(text)


def _refuse_all_but_udp(text: str) -> None:
    if text.lower() != "udp":
        msg = f"{text[:20]!r} is not served by this version; udp is"
        raise ValueError(msg)


def _ignore(_text: str) -> None:
    """Read what only tunes something that another line turns on; alone it does nothing in fwknop either."""


_SECRETS: Final = frozenset({"KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64"})
_KEY_FIELDS: Final = frozenset({"key", "hmac_key"})
_NOTHING: Final = ""  # the field of a setting that only is checked
_SETTINGS: Final[dict[str, Setting[Any]]] = {
    "ACCESS": Setting("access", convert.services),
    "ALLOW_IP": Setting("source", source_rule),
    "DIGEST_TYPE": Setting("digest", convert.digest_type),
    "ENCRYPTION_MODE": Setting("mode", convert.encryption_mode),
    "FW_TIMEOUT": Setting("timeout", window),
    "HMAC_DIGEST_TYPE": Setting("hmac_digest", convert.digest_type),
    "HMAC_KEY": Setting("hmac_key", hmac_key_text),
    "HMAC_KEY_BASE64": Setting("hmac_key", hmac_key_base64),
    "HMAC_KEY_FILE": Setting("hmac_key_file", path),
    "KEY": Setting("key", encryption_key_text),
    "KEY_BASE64": Setting("key", encryption_key_base64),
    "KEY_FILE": Setting("key_file", path),
    "SERVER_RESOLVE_IPV4": Setting("ipv4_only", convert.boolean),
    "SPA_SERVER": Setting("server", server),
    "SPA_SERVER_PORT": Setting("port", convert.port),
    "SPA_SOURCE_PORT": Setting("source_port", convert.port),
    "SPOOF_USER": Setting("user", user),
    "TIME_OFFSET": Setting("time_offset", time_offset),
    "USE_HMAC": Setting("use_hmac", convert.boolean),
    "VERBOSE": Setting("verbose", _verbosity),
    # what would turn on something that is not served
    "GPG_SIGNING_PW": Setting(_NOTHING, _refuse),
    "GPG_SIGNING_PW_BASE64": Setting(_NOTHING, _refuse),
    "NAT_ACCESS": Setting(_NOTHING, _refuse),
    "NAT_LOCAL": Setting(_NOTHING, _refuse_yes),
    "NAT_RAND_PORT": Setting(_NOTHING, _refuse_yes),
    "RAND_PORT": Setting(_NOTHING, _refuse_yes),
    "RESOLVE_IP_HTTP": Setting(_NOTHING, _refuse_yes),
    "RESOLVE_IP_HTTPS": Setting(_NOTHING, _refuse_yes),
    "RESOLVE_URL": Setting(_NOTHING, _refuse),
    "SPA_SERVER_PROTO": Setting(_NOTHING, _refuse_all_but_udp),
    "SPOOF_SOURCE_IP": Setting(_NOTHING, _refuse),
    "USE_GPG": Setting(_NOTHING, _refuse_yes),
    # what only tunes the former, and what is always so here
    "GPG_EXE": Setting(_NOTHING, _ignore),
    "GPG_HOMEDIR": Setting(_NOTHING, _ignore),
    "GPG_NO_SIGNING_PW": Setting(_NOTHING, _ignore),
    "GPG_RECIPIENT": Setting(_NOTHING, _ignore),
    "GPG_SIGNER": Setting(_NOTHING, _ignore),
    "HTTP_USER_AGENT": Setting(_NOTHING, _ignore),
    "NAT_PORT": Setting(_NOTHING, _ignore),
    "NO_SAVE_ARGS": Setting(_NOTHING, _ignore),  # the command line is never saved
    "RESOLVE_HTTP_ONLY": Setting(_NOTHING, _ignore),
    "USE_GPG_AGENT": Setting(_NOTHING, _ignore),
    "USE_WGET_USER_AGENT": Setting(_NOTHING, _ignore),
    "WGET_CMD": Setting(_NOTHING, _ignore),
}
