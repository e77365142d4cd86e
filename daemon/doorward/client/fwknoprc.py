"""The client's file: `[default]`, then named sections of `NAME value` lines, as fwknop reads ~/.fwknoprc.

Source: fwknop client/config_init.c. Where we part from it: lines above the first section belong to `[default]` (fwknop
drops them without a word), so the text that `doorward keys generate` prints is a file; a named section's key replaces
the default's whatever its spelling; HMAC_KEY_FILE names the HMAC key's file (fwknop's fills the other one); a truth
value is Y or N, with yes and no as what they say (fwknop takes `yes` for No); ALLOW_IP may also be `auto`, `packet` or
an IPv6 address; a heading without `]` is a mistake of the whole file (to fwknop it is a line of the section above, and
what follows counts there). Two sections of one name are read one after the other, as there, and warned of.
"""

from __future__ import annotations

import os
import re
import stat
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from doorward import portable
from doorward.client.options import RC_ROWS
from doorward.client.profile import Profile, kind
from doorward.config.reader import PROBLEMS_MAX, Line, Setting, failure, is_name, text_of
from doorward.config.reader import convert as convert_lines
from doorward.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doorward.values import Service

DEFAULT: Final = "default"
FILE_MAX: Final = 1 << 20  # bytes; a thousand sections fit many times
LINE_MAX: Final = 1024  # characters, fwknop's MAX_LINE_LEN

_SECTION: Final = re.compile(r"\[([^\]]*)\]\s*(?P<behind>[^\s#;].*)?")
_ENTRY: Final = re.compile(r"([^\s;#]+)\s+([^\s;#]+)")


class ClientFile(NamedTuple):
    """A file of sections, split but not yet checked: a mistake counts only in a section that is used."""

    path: str
    sections: tuple[tuple[str, tuple[Line | Problem, ...]], ...]
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sections in the file's order, each once."""
        return tuple(dict.fromkeys(name for name, _ in self.sections))

    @property
    def lines(self) -> list[Line]:
        """The settings of all sections."""
        return [line for _, lines in self.sections for line in lines if isinstance(line, Line)]

    def has(self, name: str) -> bool:
        """Whether a section of this name exists, in any case, as in fwknop."""
        return any(known.lower() == name.lower() for known in self.names)

    def named_for(self, host: str, service: Service) -> str | None:
        """A host's section: the one of its name, or one with this SPA_SERVER that opens `service`."""
        if self.has(host):
            return host
        for name in self.names:
            said = {line.name: line.value for line in self._lines(name, [])}
            opens = str(service) in said.get("ACCESS", str(service)).split(",") or "NAT_PORT" in said
            if name.lower() != DEFAULT and said.get("SPA_SERVER", "").lower() == host.lower() and opens:
                return name
        return None

    def profile(self, name: str = DEFAULT) -> Profile:
        """`[default]` with the named section over it.

        Raises:
            ConfigError: no such section, or mistakes in the two sections, all of them.
        """
        if name.lower() != DEFAULT and not self.has(name):
            known = ", ".join(self.names) or "none"
            raise ConfigError([Problem(self.path, 0, f"no section [{name[:80]}]; there are: {known}")])
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
        """One section alone; a later line of the same name wins, as in fwknop."""
        said: dict[str, Any] = {}
        lines = list(self._lines(name, problems))
        for line, field, value in convert_lines(lines, SETTINGS, problems):
            if field in _KEY_SOURCES and any(kind(each) == kind(field) for each in said if each in _KEY_SOURCES):
                problems.append(line.problem(f"{line.name}: the section has this key already; keep one line"))
            elif RC_ROWS[line.name].is_weak:  # an address that the section names wins (client/config_init.c)
                said[field] = said.get(field) or value
            else:
                said[field] = value
        return Profile(**said)

    def _lines(self, name: str, problems: list[Problem]) -> Iterator[Line]:
        for known, lines in self.sections:
            if known.lower() == name.lower():
                problems += [line for line in lines if isinstance(line, Problem)]
                yield from (line for line in lines if isinstance(line, Line))


def load(path: Path) -> ClientFile:
    """The file's sections, with a warning where other users can read keys in it.

    Raises:
        ConfigError: the file cannot be read, is too large or no text, or names a program to run and is writable by
            other users.
    """
    content, status = _content(path)
    client_file = parse(content, str(path))
    if not stat.S_ISREG(status.st_mode):
        return client_file
    programs = [line for line in client_file.lines if line.name in _PROGRAMS]
    if programs and portable.others_write(status):
        refusal = "other users can write this file, so it must not name a program to run"
        raise failure(line.problem(f"{line.name}: {refusal}") for line in programs)
    return client_file._replace(warnings=(*_warnings(client_file, status), *client_file.warnings))


def rows(path: Path) -> list[str]:
    """The stripped lines of a text file.

    Raises:
        ConfigError: the file cannot be read, is too large or no text.
    """
    return _rows(_content(path)[0], str(path))


def parse(content: bytes, path: str) -> ClientFile:
    """The sections in a file's content; `path` names it in problems.

    Raises:
        ConfigError: the content is too large, a line is too long or no text, or a heading has no ']'.
    """
    rows = _rows(content, path)
    endless = [number for number, row in enumerate(rows, 1) if row.startswith("[") and _SECTION.match(row) is None]
    if endless:
        raise failure(Problem(path, number, "the section's heading has no ']'") for number in endless)
    return ClientFile(path, tuple(_sections(path, rows)), tuple(map(str, islice(_oddities(path, rows), PROBLEMS_MAX))))


def _content(path: Path) -> tuple[bytes, os.stat_result]:
    """Content and status of a file, or of a pipe: `--rc-file <(decrypt profile)` keeps keys off the disk."""
    try:
        with path.open("rb") as stream:
            return stream.read(FILE_MAX + 1), os.fstat(stream.fileno())
    except (OSError, ValueError) as error:
        complaint = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(str(path), 0, f"cannot be read: {complaint}")]) from error


def _rows(content: bytes, path: str) -> list[str]:
    if len(content) > FILE_MAX:
        raise ConfigError([Problem(path, 0, f"the file exceeds {FILE_MAX} bytes")])
    read = [text_of(row, LINE_MAX - 1) for row in content.split(b"\n")]
    problems = [Problem(path, number, complaint) for number, (_, complaint) in enumerate(read, 1) if complaint]
    if problems:
        raise failure(problems)
    return [text for text, _ in read]


def _sections(path: str, rows: list[str]) -> Iterator[tuple[str, tuple[Line | Problem, ...]]]:
    name: str = DEFAULT
    lines: list[Line | Problem] = []
    for number, row in enumerate(rows, 1):
        if not row or row[0] in "#;":
            continue
        heading = _SECTION.match(row)
        if heading is None:
            lines.append(_line(path, number, row))
            continue
        yield name, tuple(lines)
        name, lines = heading[1].strip(), []
    yield name, tuple(lines)


def _oddities(path: str, rows: list[str]) -> Iterator[Problem]:
    """Lines that are read as fwknop reads them, but hardly as they were meant."""
    begun: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        heading = _SECTION.match(row)
        if heading is None:
            continue
        if heading["behind"]:
            yield Problem(path, number, "text behind the section's heading is not read: put it on a line of its own")
        name = heading[1].strip()
        first = begun.setdefault(name.lower(), number)
        if first != number:
            yield Problem(path, number, f"[{name}] begins on line {first} already: both are read, the later line wins")


def _line(path: str, number: int, row: str) -> Line | Problem:
    """Split `NAME value` or `NAME: value`; a value ends at a blank, `;` or `#`, as fwknop's scanf has it.

    A program, a public key and a sequence, which fwknop knows none of, are all of the line behind their name.
    """
    name, *rest = row.split(maxsplit=1)
    if rest and name.rstrip(":") in WHOLE:
        return Line(path, number, name.rstrip(":"), rest[0])
    match = _ENTRY.match(row)
    if match is None:
        return Problem(
            path, number, f"{row} has no value" if is_name(row.rstrip(":")) else "the line is not NAME value"
        )
    return Line(path, number, match[1].rstrip(":"), match[2])


def _warnings(client_file: ClientFile, status: os.stat_result) -> tuple[str, ...]:
    mode = portable.mode(status)
    if any(line.name in _SECRETS for line in client_file.lines) and mode & 0o077:
        return (f"{client_file.path}: holds keys and has mode {mode:04o}: chmod 600 it",)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return (
            f"{client_file.path}: other users can write it (mode {mode:04o}) and so choose who is let in: chmod 600 it",
        )
    return ()


_COMMANDS: Final = frozenset({"KEY_COMMAND", "HMAC_KEY_COMMAND"})
WHOLE: Final = _COMMANDS | {"HOST_KEY", "SEQUENCE"}
_PROGRAMS: Final = frozenset({"WGET_CMD", "GPG_EXE"}) | _COMMANDS
_KEY_FIELDS: Final = frozenset({"key", "hmac_key", "gpg_password", "psk"})
_KEY_SOURCES: Final = _KEY_FIELDS | {"key_command", "hmac_key_command", "host_key"}  # a section has one of a kind
_SECRETS: Final = frozenset(name for name, row in RC_ROWS.items() if row.dest in _KEY_FIELDS)
SETTINGS: Final[dict[str, Setting[Any]]] = {
    name: Setting(row.dest, row.read_file or row.read) for name, row in sorted(RC_ROWS.items())
}
