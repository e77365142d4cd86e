"""Saving a command line as a section of the client's file, as fwknop's --save-rc-stanza does.

Source: client/config_init.c update_rc(). A line that the command line says again is replaced, a key only after a
question. Unlike fwknop, doorward leaves all other lines as they are, and replaces the file in one step.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.client.fwknoprc import FILE_MAX, WHOLE, load, parse
from doorward.client.getopt import each_once
from doorward.client.options import RC_ROWS
from doorward.client.profile import kind
from doorward.config.reader import Line, is_name
from doorward.errors import ClientError
from doorward.linux.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from doorward.client.fwknoprc import ClientFile
    from doorward.client.getopt import Said

CRITICAL: Final = frozenset(  # fwknop's list (critical_var_array), files of keys and programs that print them
    {
        *("KEY", "KEY_BASE64", "KEY_FILE", "HMAC_KEY", "HMAC_KEY_BASE64", "HMAC_KEY_FILE"),
        *("KEY_COMMAND", "HMAC_KEY_COMMAND", "HOST_KEY", "CLIENT_KEY_FILE", "PSK_BASE64"),
        *("GPG_RECIPIENT", "GPG_SIGNER", "GPG_SIGNING_PW", "GPG_SIGNING_PW_BASE64"),
    }
)
_OF_KEYS: Final = CRITICAL | {  # how a section's keys are used
    *("USE_HMAC", "HMAC_DIGEST_TYPE", "ENCRYPTION_MODE", "USE_GPG", "USE_GPG_AGENT"),
    *("GPG_HOMEDIR", "GPG_EXE", "GPG_NO_SIGNING_PW"),
}
_ASK_ALONE: Final = {"RESOLVE_URL", "RESOLVE_DNS"}  # in the file these mean -R where nothing else is said, as in fwknop
_HEADING: Final = re.compile(rb"\s*\[([^\]]*)\]")
_VALUE: Final = re.compile(r"[^\s;#]+")
SECTION: Final = re.compile(r"[^\s\[\]#;][^\[\]\n]{0,200}")


def settings(said: Iterable[Said]) -> list[tuple[str, str]]:
    """The lines that a command line's options stand for, as names and values, in the order of names.

    Raises:
        ClientError: a value that the file cannot hold: it ends at a blank, `;` or `#`.
    """
    lines: dict[str, str] = {}
    implied: dict[str, str] = {}
    for row, value in each_once(said):
        if not row.rc:
            continue
        if row.rc not in WHOLE and _VALUE.fullmatch(value) is None:
            msg = f"{row.name} cannot be saved: in the file a value ends at a blank, ; or #"
            raise ClientError(msg)
        lines[row.rc.split()[0]] = value
        if row.implies and row.rc not in _ASK_ALONE:
            name, _, text = row.implies.partition(" ")
            implied[name] = text
    return sorted({**implied, **lines}.items())


class Change(NamedTuple):
    """A file of sections as it will be: nothing is written before write()."""

    path: Path
    text: bytes
    file: ClientFile

    def write(self) -> None:
        """Replace the file; a link stays a link.

        Raises:
            ClientError: it cannot be written.
        """
        try:
            replace_file(self.path.resolve(), self.text)
        except OSError as error:
            msg = f"{self.path}: {error.strerror or error}; nothing was changed"
            raise ClientError(msg) from error


def change(
    path: Path,
    section: str,
    lines: Sequence[tuple[str, str]],
    *,
    force: bool,
    agree: Callable[[str], bool],
) -> Change:
    """The file with `lines` in a section. `agree` is asked before a key's line is replaced, unless `force` is set.

    Raises:
        ClientError: not the name of a section, or the file cannot be read.
        ConfigError: the file is wrong, or would be.
    """
    if SECTION.fullmatch(section) is None or section != section.strip():
        msg = f"{section[:80]!r} is no name for a section: -n names one without [ and ], # and ; and blanks around it"
        raise ClientError(msg)
    content = _content(path)
    if content:
        load(path)
    kept = _Keep(section, {name for name, _ in lines}, force=force, agree=agree)
    return _changed(path, section, _replaced(content, section, lines, kept))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ClientError(msg) from error


def _changed(path: Path, section: str, text: bytes) -> Change:
    if len(text) > FILE_MAX:
        msg = f"{path}: the file would exceed {FILE_MAX} bytes"
        raise ClientError(msg)
    made = parse(text, str(path))
    made.profile(section)
    return Change(path, text, made)


def replacement(path: Path, section: str, lines: Sequence[tuple[str, str]], *, force: bool) -> Change | None:
    """The file with `lines` as all settings of a section; None where the section has just these already.

    Raises:
        ClientError: the section says something else and `force` is not set, or the file cannot be read.
        ConfigError: the file is wrong, or would be.
    """
    content = _content(path)
    present = _settings(path, section, content)
    if present == sorted(lines):
        return None
    if present and not force:
        key = "another key" if {name for name, _ in present} & CRITICAL else "other settings"
        msg = f"[{section}] of {path} has {key}: --force replaces them, -n takes another name; nothing was written"
        raise ClientError(msg)
    return _changed(path, section, _replaced(content, section, lines, _Keep(section, set(), drop=True)))


def _settings(path: Path, section: str, content: bytes) -> list[tuple[str, str]]:
    """The settings of a section as the file has them, sorted."""
    if content:
        load(path)
    found = parse(content, str(path))
    of_it = (each for name, each in found.sections if name.lower() == section.lower())
    return sorted((line.name, line.value) if isinstance(line, Line) else ("", "") for each in of_it for line in each)


class _Keep:
    """The choice of a section's old lines to keep; new lines for the same field are then not written."""

    def __init__(
        self,
        section: str,
        new: set[str],
        *,
        force: bool = True,
        agree: Callable[[str], bool] = lambda _: False,
        drop: bool = False,
    ) -> None:
        self._section, self._new, self._force, self._agree, self._drop = section, new, force, agree, drop
        self.kept: set[str] = set()

    def __call__(self, row: bytes) -> bool:
        """Whether a line stays: no new line replaces it, or it is a key that the user wants to keep.

        With force only keys, and the settings for their use, stay; and only if no new line replaces them. With drop
        nothing stays but comments.
        """
        text = row.decode("utf-8", "replace").strip()
        if not text or text[0] in "#;":
            return True
        if self._drop:
            return False
        name = text.split()[0].rstrip(":")
        rivals = {new for new in self._new if _kind(new) == _kind(name)}
        if self._force or not is_name(name):
            return name in _OF_KEYS and not rivals
        if name not in CRITICAL:
            return not rivals
        if rivals and self._agree(f"Variable '{name}' found in stanza '{self._section}'. Overwrite [N/y] ? "):
            return False
        self.kept |= rivals
        return True


def _kind(name: str) -> str:
    """The field of a name; a section has one line for it."""
    return kind(RC_ROWS[name].dest) if name in RC_ROWS else name


def _replaced(content: bytes, section: str, lines: Sequence[tuple[str, str]], keep: _Keep) -> bytes:
    """The file's content with the section's lines replaced; a new section is appended."""
    out: list[bytes] = []
    place: int | None = None
    inside = False
    for row in content.splitlines(keepends=True):
        heading = _HEADING.match(row)
        if heading is not None:
            inside = heading[1].strip().decode("utf-8", "replace").lower() == section.lower()
            out.append(row)
            if inside and place is None:
                place = len(out)
        elif not inside or keep(row):
            out.append(row)
    fresh = "".join(f"{name:<24}    {value}\n" for name, value in lines if name not in keep.kept).encode()
    if out and not out[-1].endswith(b"\n"):
        out[-1] += b"\n"
    if place is None:
        gap = b"\n" if out and out[-1].strip() else b""
        return b"".join(out) + gap + f"[{section}]\n".encode() + fresh
    return b"".join(out[:place]) + fresh + b"".join(out[place:])
