"""`doorward import`: put the client's half that `doorward init` printed on a host into ~/.fwknoprc."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward import portable
from doorward.client import fwknoprc, section_file
from doorward.config import half
from doorward.errors import ClientError

if TYPE_CHECKING:
    from types import SimpleNamespace
    from typing import BinaryIO

    from doorward.client.surroundings import Outside

STDIN: Final = "-"
_LINE: Final = re.compile(r"[A-Z][A-Z_0-9]{2,}:\S")  # as no name of a file has it


def run(said: SimpleNamespace, outside: Outside, stdin: BinaryIO | None) -> None:
    """Write the section; nothing is written where the half, or the file, is not in order.

    Raises:
        ClientError: the reason.
        ConfigError: the file of sections has mistakes.
    """
    found = _half(said.place, outside, stdin)
    section = said.section or found.section
    if section_file.SECTION.fullmatch(section) is None or section.lower() == fwknoprc.DEFAULT:
        msg = f"{section[:80]!r} is no name for a host's section"
        raise ClientError(msg)
    path: Path = said.rc_file or outside.home / ".fwknoprc"
    change = section_file.replacement(path, section, found.settings, force=bool(said.force))
    services = ",".join(map(str, found.access))
    if change is None:
        outside.say(f"[{section}] of {path} has these keys already: nothing was written")
        return
    change.write()
    outside.say(f"[{section}] is in {path}: it knocks at {found.server} for {services}")


def _half(place: str, outside: Outside, stdin: BinaryIO | None) -> half.Half:
    name = "standard input" if place == STDIN else place
    if place == STDIN:
        text = _typed(outside, stdin)
    elif _LINE.search(place):
        msg = (
            "the line is secret, and all users of this machine can see a command line: nothing was written; give it "
            "on standard input (`doorward import -`), and take new keys where others use this machine"
        )
        raise ClientError(msg)
    else:
        text = _content(Path(place), outside)
    try:
        return half.parse(text)
    except ClientError as error:
        msg = f"{name}: {error}; nothing was written"
        raise ClientError(msg) from None


def _typed(outside: Outside, stdin: BinaryIO | None) -> str:
    """The line on standard input; at a terminal it is asked for, and not shown."""
    if stdin is None:
        msg = "there is no standard input to read the line from"
        raise ClientError(msg)
    if stdin.isatty():
        return outside.ask("Paste the line of `doorward init` (it is not shown): ")
    return _decoded(stdin.read(half.LENGTH_MAX + 1))


def _content(path: Path, outside: Outside) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            msg = f"{path}: is no file; `doorward import -` reads standard input"
            raise ClientError(msg)
        with path.open("rb") as stream:
            content = stream.read(half.LENGTH_MAX + 1)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ClientError(msg) from error
    if portable.mode(status) & 0o077:
        outside.warn(f"warning: {path}: holds keys, and other users may read it (mode {portable.mode(status):04o})")
    return _decoded(content)


def _decoded(content: bytes) -> str:
    """The text; bytes that are none become a character that no line has."""
    return content.decode("utf-8", "replace")
