"""Saving what a command line says as a stanza of the client's file, as fwknop's --save-rc-stanza does.

Source: client/config_init.c update_rc(). The lines that the command line says anew are replaced, keys only after a
question. Unlike fwknop's, ours leaves all else as it is, byte for byte, and replaces the file in one step.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from doorward.client.files import replace_file
from doorward.client.fwknop_options import OPTIONS
from doorward.config.fwknoprc import FILE_MAX, parse
from doorward.config.reader import is_name
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from doorward.client.spelling import Word

CRITICAL: Final = frozenset(  # fwknop's list (critical_var_array) and the two files of keys
    {
        *("KEY", "KEY_BASE64", "KEY_FILE", "HMAC_KEY", "HMAC_KEY_BASE64", "HMAC_KEY_FILE"),
        *("GPG_RECIPIENT", "GPG_SIGNER", "GPG_SIGNING_PW", "GPG_SIGNING_PW_BASE64"),
    }
)
_LINES: Final = {option.name: option.lines for option in OPTIONS if option.lines}
_SAME: Final = {  # names of which a stanza can mean only one
    **dict.fromkeys(("ALLOW_IP", "RESOLVE_IP_HTTP", "RESOLVE_IP_HTTPS"), "source"),
    **dict.fromkeys(("NAT_PORT", "NAT_RAND_PORT"), "outer port"),
}
_HEADING: Final = re.compile(rb"\s*\[([^\]]*)\]")
_VALUE: Final = re.compile(r"[^\s;#]+")
_STANZA: Final = re.compile(r"[^\s\[\]#;][^\[\]\n]{0,200}")


def settings(words: Iterable[Word]) -> list[tuple[str, str]]:
    """Return the names and values that a command line's options stand for, in the order of the file's names.

    Raises:
        ClientError: a value that the file cannot hold: it ends at a blank, `;` or `#`.
    """
    said: dict[str, str] = {}
    verbose = 0
    for word in words:
        verbose += word.name == "--verbose"
        for line in _LINES.get(word.name, ()):
            name, _, pattern = line.partition(" ")
            value = pattern.replace("{}", word.value or "")
            if _VALUE.fullmatch(value) is None:
                msg = f"{word.name} cannot be saved: in the file a value ends at a blank, ; or #"
                raise ClientError(msg)
            said[name] = f"{said[name]},{value}" if name in {"RESOLVE_URL", "RESOLVE_DNS"} and name in said else value
    if verbose > 1:
        said["VERBOSE"] = str(verbose)
    return sorted(said.items())


def save(
    path: Path,
    stanza: str,
    lines: Sequence[tuple[str, str]],
    *,
    force: bool,
    agree: Callable[[str], bool],
) -> None:
    """Put `lines` into a stanza of a file. `agree` says whether a key's line may go; with `force` every line goes.

    Raises:
        ClientError: the name is none, or the file cannot be written.
        ConfigError: the file, or what would become of it, is no client's file.
    """
    if _STANZA.fullmatch(stanza) is None or stanza != stanza.strip():
        msg = f"{stanza[:80]!r} is no name for a stanza: -n names one without [ and ], # and ; and blanks around it"
        raise ClientError(msg)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ClientError(msg) from error
    target = path.resolve()  # a link stays a link
    parse(content, str(path))
    kept = _Keep(stanza, {name for name, _ in lines}, force=force, agree=agree)
    text = _replaced(content, stanza, lines, kept)
    if len(text) > FILE_MAX:
        msg = f"{path}: the file would exceed {FILE_MAX} bytes"
        raise ClientError(msg)
    parse(text, str(path)).profile(stanza)
    try:
        replace_file(target, text)
    except OSError as error:
        msg = f"{path}: {error.strerror or error}; nothing was changed"
        raise ClientError(msg) from error


class _Keep:
    """Which of a stanza's old lines stay, and so which new ones are not written."""

    def __init__(self, stanza: str, new: set[str], *, force: bool, agree: Callable[[str], bool]) -> None:
        self._stanza, self._new, self._force, self._agree = stanza, new, force, agree
        self.kept: set[str] = set()

    def __call__(self, row: bytes) -> bool:
        """Say whether a line stays: what nothing new replaces, and keys that the person wants to keep."""
        text = row.decode("utf-8", "replace").strip()
        if not text or text[0] in "#;":
            return True
        name = text.split()[0].rstrip(":")
        if self._force or not is_name(name):
            return False
        rivals = {new for new in self._new if _kind(new) == _kind(name)}
        if name not in CRITICAL:
            return not rivals
        if rivals and self._agree(f"Variable '{name}' found in stanza '{self._stanza}'. Overwrite [N/y] ? "):
            return False
        self.kept |= rivals
        return True


def _kind(name: str) -> str:
    """Return what a name is a spelling of: a stanza has one key of a kind."""
    kinds = ("HMAC_KEY", "GPG_SIGNING_PW", "KEY")
    return _SAME.get(name) or next((kind for kind in kinds if name.startswith(kind)), name)


def _replaced(content: bytes, stanza: str, lines: Sequence[tuple[str, str]], keep: _Keep) -> bytes:
    """Return the file's content with the stanza's lines replaced; a new stanza comes at the end."""
    out: list[bytes] = []
    place: int | None = None
    inside = False
    for row in content.splitlines(keepends=True):
        heading = _HEADING.match(row)
        if heading is not None:
            inside = heading[1].strip().decode("utf-8", "replace").lower() == stanza.lower()
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
        return b"".join(out) + gap + f"[{stanza}]\n".encode() + fresh
    return b"".join(out[:place]) + fresh + b"".join(out[place:])
