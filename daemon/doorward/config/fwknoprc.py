"""The client's file: `[default]`, then named stanzas of `NAME value` lines, as fwknop reads ~/.fwknoprc.

Source: fwknop client/config_init.c. Where we part from it: lines above the first stanza belong to `[default]` (fwknop
drops them without a word), so the text that `doorward keys generate` prints is a file; a named stanza's key replaces
the default's whatever its spelling; HMAC_KEY_FILE names the HMAC key's file (fwknop's fills the other one); a truth
value is Y or N, with yes and no as what they say (fwknop takes `yes` for No); ALLOW_IP may also be `auto`, `packet` or
an IPv6 address; a heading without `]` is a mistake of the whole file (to fwknop it is a line of the stanza above, and
what follows counts there). Two stanzas of one name are read one after the other, as there, and warned of.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from doorward.config import convert, profile
from doorward.config.profile import Profile, SourceRule
from doorward.config.reader import PROBLEMS_MAX, Line, Setting, failure, is_name
from doorward.config.reader import convert as convert_lines
from doorward.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doorward.values import Service

DEFAULT: Final = "default"
FILE_MAX: Final = 1 << 20  # bytes; a thousand stanzas fit many times
LINE_MAX: Final = 1024  # characters, fwknop's MAX_LINE_LEN

_STANZA: Final = re.compile(r"\[([^\]]*)\]\s*(?P<behind>[^\s#;].*)?")
_ENTRY: Final = re.compile(r"([^\s;#]+)\s+([^\s;#]+)")


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

    def named_for(self, host: str, service: Service) -> str | None:
        """Return the stanza for a host: the one of its name, or one whose SPA_SERVER it is and that opens `service`."""
        if self.has(host):
            return host
        for name in self.names:
            said = {line.name: line.value for line in self._lines(name, [])}
            opens = str(service) in said.get("ACCESS", str(service)).split(",") or "NAT_PORT" in said
            if name.lower() != DEFAULT and said.get("SPA_SERVER", "").lower() == host.lower() and opens:
                return name
        return None

    def profile(self, name: str = DEFAULT) -> Profile:
        """Return `[default]` with the named stanza over it.

        Raises:
            ConfigError: no such stanza, or mistakes in the two stanzas, all of them.
        """
        if name.lower() != DEFAULT and not self.has(name):
            known = ", ".join(self.names) or "none"
            raise ConfigError([Problem(self.path, 0, f"no stanza [{name[:80]}]; there are: {known}")])
        problems: list[Problem] = []
        found = self._read(DEFAULT, problems)
        if name.lower() != DEFAULT:
            found = self._read(name, problems).over(found)
        if found.key is not None and found.key == found.hmac_key:
            problems.append(Problem(self.path, 0, f"[{name}]: the encryption key and the HMAC key are the same"))
        if problems:
            raise failure(problems)
        return found

    def _read(self, name: str, problems: list[Problem]) -> Profile:
        """Return one stanza alone; a later line of the same name wins, as in fwknop."""
        said: dict[str, Any] = {}
        lines = list(self._lines(name, problems))
        for line, field, value in convert_lines(lines, SETTINGS, problems):
            if field in _KEY_FIELDS and field in said:
                problems.append(line.problem(f"{line.name}: the stanza has this key already; keep one line"))
            elif line.name in _RESOLVING:  # an address that the stanza names wins (client/config_init.c)
                said[field] = said.get(field) or value
            else:
                said[field] = value
        return Profile(**said)

    def _lines(self, name: str, problems: list[Problem]) -> Iterator[Line]:
        for known, lines in self.stanzas:
            if known.lower() == name.lower():
                problems += [line for line in lines if isinstance(line, Problem)]
                yield from (line for line in lines if isinstance(line, Line))


def load(path: Path) -> ClientFile:
    """Return the file's stanzas, with a warning too where others than its owner can read keys in it.

    Raises:
        ConfigError: the file cannot be read, is no text of a bearable size, or names a program to run and could have
            been written by somebody else.
    """
    content, status = _content(path)
    client_file = parse(content, str(path))
    problems = list(_foreign_programs(client_file, status))
    if problems:
        raise failure(problems)
    return replace(client_file, warnings=(*_warnings(client_file, status), *client_file.warnings))


def rows(path: Path) -> list[str]:
    """Return the stripped lines of a text file.

    Raises:
        ConfigError: the file cannot be read, or is no text of a bearable size.
    """
    return _rows(_content(path)[0], str(path))


def parse(content: bytes, path: str) -> ClientFile:
    """Return the stanzas of a file's content; `path` names it in problems.

    Raises:
        ConfigError: the content is too large, a line is too long or no text, or a heading has no end.
    """
    rows = _rows(content, path)
    endless = [number for number, row in enumerate(rows, 1) if row.startswith("[") and _STANZA.match(row) is None]
    if endless:
        raise failure(Problem(path, number, "the stanza's heading has no ']'") for number in endless)
    return ClientFile(path, tuple(_stanzas(path, rows)), tuple(map(str, islice(_oddities(path, rows), PROBLEMS_MAX))))


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


def _oddities(path: str, rows: list[str]) -> Iterator[Problem]:
    """Yield what is read as fwknop reads it, but hardly was meant so."""
    begun: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        heading = _STANZA.match(row)
        if heading is None:
            continue
        if heading["behind"]:
            yield Problem(
                path, number, "what stands behind the stanza's heading is not read: put it on a line of its own"
            )
        name = heading[1].strip()
        first = begun.setdefault(name.lower(), number)
        if first != number:
            yield Problem(path, number, f"[{name}] begins on line {first} already: both are read, the later line wins")


def _line(path: str, number: int, row: str) -> Line | Problem:
    """Split `NAME value` or `NAME: value`; a value ends at a blank, `;` or `#`, as fwknop's scanf has it."""
    match = _ENTRY.match(row)
    if match is None:
        return Problem(
            path, number, f"{row} has no value" if is_name(row.rstrip(":")) else "the line is not NAME value"
        )
    return Line(path, number, match[1].rstrip(":"), match[2])


def _foreign_programs(client_file: ClientFile, status: os.stat_result) -> Iterator[Problem]:
    """Yield a problem for each program that somebody else could have put into the file."""
    foreign = status.st_uid not in {0, os.geteuid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISREG(status.st_mode) or not foreign:
        return
    for _, lines in client_file.stanzas:
        for line in lines:
            if isinstance(line, Line) and line.name in _PROGRAMS:
                yield line.problem(f"{line.name}: others can write this file, so it may not name a program to run")


def _warnings(client_file: ClientFile, status: os.stat_result) -> tuple[str, ...]:
    lines = (line for _, lines in client_file.stanzas for line in lines if isinstance(line, Line))
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return ()
    if any(line.name in _SECRETS for line in lines) and mode & 0o077:
        return (f"{client_file.path}: holds keys and has mode {mode:04o}: chmod 600 it",)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return (
            f"{client_file.path}: others can write it (mode {mode:04o}) and so let in whom they like: chmod 600 it",
        )
    return ()


def _resolving(text: str) -> SourceRule | None:
    return SourceRule.RESOLVE if convert.boolean(text) else None


_SECRETS: Final = frozenset(
    {"KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64", "GPG_SIGNING_PW", "GPG_SIGNING_PW_BASE64"}
)
_PROGRAMS: Final = frozenset({"WGET_CMD", "GPG_EXE"})
_RESOLVING: Final = frozenset({"RESOLVE_IP_HTTP", "RESOLVE_IP_HTTPS"})
_KEY_FIELDS: Final = frozenset({"key", "hmac_key", "gpg_password"})
SETTINGS: Final[dict[str, Setting[Any]]] = {
    "ACCESS": Setting("access", convert.services),
    "ALLOW_IP": Setting("source", profile.source_rule, "auto, packet and IPv6 too"),
    "DIGEST_TYPE": Setting("digest", convert.digest_type),
    "ENCRYPTION_MODE": Setting("mode", profile.encryption_mode),
    "FW_TIMEOUT": Setting("timeout", profile.window),
    "GPG_EXE": Setting("gpg_exe", profile.path, "refused in a file that others can write"),
    "GPG_HOMEDIR": Setting("gpg_home", profile.path),
    "GPG_NO_SIGNING_PW": Setting("gpg_no_password", convert.boolean),
    "GPG_RECIPIENT": Setting("gpg_recipient", profile.text_line),
    "GPG_SIGNER": Setting("gpg_signer", profile.text_line),
    "GPG_SIGNING_PW": Setting("gpg_password", profile.password_text),
    "GPG_SIGNING_PW_BASE64": Setting("gpg_password", profile.password_base64),
    "HMAC_DIGEST_TYPE": Setting("hmac_digest", convert.digest_type),
    "HMAC_KEY": Setting("hmac_key", profile.hmac_key_text),
    "HMAC_KEY_BASE64": Setting("hmac_key", profile.hmac_key_base64),
    "HMAC_KEY_FILE": Setting("hmac_key_file", profile.path, "the HMAC's key; fwknop fills the encryption key from it"),
    "HTTP_USER_AGENT": Setting("user_agent", profile.user_agent),
    "KEY": Setting("key", profile.encryption_key_text, "more than 32 bytes are refused: no server takes them"),
    "KEY_BASE64": Setting("key", profile.encryption_key_base64, "more than 32 bytes are refused: no server takes them"),
    "KEY_FILE": Setting("key_file", profile.path),
    "NAT_ACCESS": Setting("nat_access", profile.host_port, "IPv6 too"),
    "NAT_LOCAL": Setting("nat_local", convert.boolean),
    "NAT_PORT": Setting("nat_port", convert.port),
    "NAT_RAND_PORT": Setting("nat_rand_port", convert.boolean),
    "NO_SAVE_ARGS": Setting("no_save_args", convert.boolean),
    "RAND_PORT": Setting("rand_port", convert.boolean),
    "RESOLVE_HTTP_ONLY": Setting("resolve_http_only", convert.boolean),
    "RESOLVE_IP_HTTP": Setting("source", _resolving),
    "RESOLVE_IP_HTTPS": Setting("source", _resolving),
    "RESOLVE_URL": Setting("resolve_urls", profile.urls, "several, separated by commas; asked without wget"),
    "SERVER_RESOLVE_IPV4": Setting("ipv4_only", convert.boolean),
    "SPA_SERVER": Setting("server", profile.server, "IPv6 too"),
    "SPA_SERVER_PORT": Setting("port", convert.port),
    "SPA_SERVER_PROTO": Setting("carrier", profile.carrier),
    "SPA_SOURCE_PORT": Setting("source_port", convert.port),
    "SPOOF_SOURCE_IP": Setting("spoofed", profile.address, "IPv6 too"),
    "SPOOF_USER": Setting("user", profile.user, "more than 48 bytes are refused: no server takes them"),
    "TIME_OFFSET": Setting("time_offset", profile.time_offset, "a unit that there is not is refused"),
    "USE_GPG": Setting("use_gpg", convert.boolean),
    "USE_GPG_AGENT": Setting("gpg_agent", convert.boolean),
    "USE_HMAC": Setting("use_hmac", convert.boolean),
    "USE_WGET_USER_AGENT": Setting("wget_user_agent", convert.boolean),
    "VERBOSE": Setting("verbose", profile.verbosity),
    "WGET_CMD": Setting("wget", profile.text_line, "gets -4 or -6; refused in a file that others can write"),
    # ours: what fwknop has only as an option, or not at all
    "HTTP_PROXY": Setting("http_proxy", profile.http_proxy),
    "ICMP_CODE": Setting("icmp_code", profile.icmp_code),
    "ICMP_TYPE": Setting("icmp_type", profile.icmp_type),
    "RESOLVE_DNS": Setting("resolve_dns", profile.questions),
}
