"""Text files of `NAME value` lines, read within limits; every mistake becomes a Problem with its line."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from doorward.errors import ConfigError, DoorwardError, Problem
from doorward.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

LINE_MAX: Final = 4096  # bytes; fwknop cuts at 1024 (server/fwknopd_common.h MAX_LINE_LEN)
FILE_MAX: Final = 16 * 1024 * 1024  # bytes: an access.conf of ten thousand clients has under 4 MB
PROBLEMS_MAX: Final = 100
_NAME: Final = re.compile(r"%?[A-Z][A-Z0-9_]{0,31}", re.ASCII)
_NAME_END: Final = re.compile(r"[\s:]")
_MARK: Final = re.compile(
    r"(?::|\s+:(?=\s))?\s*"
)  # `NAME value`, `NAME: value`, `NAME : value`; `::1` keeps its colons
_COMMENTS: Final = ("#", ";")
_LOOKS_LIKE_A_COMMENT: Final = re.compile(r"\s#")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """One setting, with its path and line."""

    path: str
    number: int
    name: str
    value: str

    def problem(self, text: str) -> Problem:
        """A problem of this line."""
        return Problem(self.path, self.number, text)

    def remark(self, text: str) -> str:
        """A warning with the place of this line; line 0 means the file as a whole."""
        return f"{self.path}:{self.number}: {text}" if self.number else f"{self.path}: {text}"

    def remark_on_comment(self) -> str | None:
        """A warning if the value contains something like a comment: as in fwknop it is part of the value."""
        if _LOOKS_LIKE_A_COMMENT.search(self.value) is None:
            return None
        return self.remark(f"{self.name}: '#' and what follows are part of the value; a comment may stand behind ';'")


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """How one name is read: its field and the converter of its text.

    A converter raises ValueError or a DoorwardError with the problem as text; the value itself is never repeated for
    a secret.
    """

    field: str
    convert: Callable[[str], T]
    differs: str = ""  # the difference to fwknop, for the documentation


def content(path: Path, *, secret: bool) -> bytes:
    """The bytes of a file, opened once, so that the checked file is the one that is read.

    `secret` refuses a file that others can read, or that neither root nor the calling user owns.

    Raises:
        ConfigError: it cannot or must not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise refusal(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    complaint = _complaint(os.fstat(descriptor), secret=secret)
    if complaint:
        os.close(descriptor)
        raise refusal(path, complaint)
    try:
        with os.fdopen(descriptor, "rb") as file:
            read = file.read(FILE_MAX + 1)
    except OSError as error:
        raise refusal(path, f"cannot be read: {error.strerror}") from error
    if len(read) > FILE_MAX:
        raise refusal(path, f"the file exceeds {FILE_MAX} bytes", read[:FILE_MAX].count(b"\n") + 1)
    return read


def lines(path: Path, read: bytes, problems: list[Problem]) -> list[Line]:
    """The settings in the bytes of a file, in order; mistakes go into `problems`."""
    return list(_lines(str(path), read, problems))


def convert(
    settable: list[Line], settings: Mapping[str, Setting[Any]], problems: list[Problem]
) -> Iterator[tuple[Line, str, Any]]:
    """Yield line, field and value of each line whose name is in the table; the others become problems."""
    for line in settable:
        setting = settings.get(line.name)
        if setting is None:
            known = is_name(line.name) or line.name.upper() in settings
            problems.append(line.problem(f"unknown name {line.name!r}" if known else "the line begins with no name"))
            continue
        try:
            yield line, setting.field, setting.convert(line.value)
        except (ValueError, DoorwardError) as error:
            problems.append(line.problem(f"{line.name}: {error}"))


def is_name(text: str) -> bool:
    """Whether a text looks like a name; anything else may be a key without its name and is never repeated."""
    return _NAME.fullmatch(text) is not None


def failure(problems: Iterable[Problem]) -> ConfigError:
    """The error of the problems of files, in order of files and lines, PROBLEMS_MAX at most."""
    known = tuple(problems)
    order = {path: place for place, path in enumerate(dict.fromkeys(problem.path for problem in known))}
    ordered = sorted(known, key=lambda problem: (order[problem.path], problem.line))
    if len(ordered) > PROBLEMS_MAX:
        last = ordered[PROBLEMS_MAX]
        ordered = [*ordered[:PROBLEMS_MAX], Problem(last.path, last.line, "too many problems, reading stops here")]
    return ConfigError(ordered)


def refusal(path: Path, text: str, line: int = 0) -> ConfigError:
    """The error of one problem of a file, or of the file as a whole."""
    return ConfigError([Problem(str(path), line, text)])


def _complaint(status: os.stat_result, *, secret: bool) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if not secret:
        return None
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"holds keys and has mode {stat.S_IMODE(status.st_mode):04o}: chmod 600 it"
    if status.st_uid not in {0, os.geteuid()}:
        return f"holds keys and belongs to uid {status.st_uid}: chown it to root"
    return None


def _lines(path: str, read: bytes, problems: list[Problem]) -> Iterator[Line]:
    for number, raw in enumerate(read.split(b"\n"), start=1):
        text, complaint = text_of(raw)
        if complaint is None and text and not text.startswith(_COMMENTS):
            line, complaint = _line(path, number, text)
            if line is not None:
                yield line
        if complaint is not None:
            problems.append(Problem(path, number, complaint))
        if len(problems) >= PROBLEMS_MAX:
            problems.append(Problem(path, number, "too many problems, reading stops here"))
            return


def text_of(raw: bytes, limit: int = LINE_MAX) -> tuple[str, str | None]:
    """The stripped text of one line, or the problem with its bytes."""
    if len(raw) > limit:
        return "", f"the line has {len(raw)} bytes, more than {limit}"
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return "", "the line is not UTF-8 text"
    if not text.replace("\t", " ").isprintable():
        return "", "the line has a control character"
    return text, None


def _line(path: str, number: int, text: str) -> tuple[Line | None, str | None]:
    """Split `NAME value`, `NAME: value;`, `NAME value; # note`; a value ends at its first `;` (server/access.c)."""
    match = _NAME_END.search(text)
    name = text[: match.start()] if match else text.rstrip(";")
    value, _, tail = _MARK.sub("", text[len(name) :], count=1).partition(";")
    value, tail = value.strip(), tail.strip()
    if not value:
        return None, f"{name!r} has no value" if is_name(name) else "the line is not NAME value"
    if tail and not tail.startswith(_COMMENTS):
        return None, f"{name if is_name(name) else 'the line'}: text after ';', where a value ends"
    return Line(path, number, name, value), None
