"""The public keys of hosts that `doorward keys pin` has fetched: a file like ssh's known_hosts.

A line is `NAME[,NAME…] doorward1 BASE64 COMMENT`. It counts for a host that no key is named for elsewhere.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward import portable
from doorward.client.keys import key_file
from doorward.config import convert, reader
from doorward.config.reader import failure, refusal
from doorward.errors import ClientError, Problem, WireError
from doorward.linux.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from doorward.client.profile import Profile
    from doorward.values import PublicKey

FILE_MAX: Final = 1 << 20  # bytes; six thousand hosts fit


class Pinned(NamedTuple):
    """The key on one line of the file."""

    line: int
    names: tuple[str, ...]
    text: str  # the key as the file has it, not checked yet


def path(environ: Mapping[str, str]) -> Path:
    """The file, beside this machine's own key pair."""
    return key_file(environ).with_name("known_hosts")


def with_pinned_key(profile: Profile, host: str | None, environ: Mapping[str, str]) -> Profile:
    """The profile, with the pinned key of the host to knock at where it names no key itself.

    Raises:
        ConfigError: the file cannot or must not be used.
    """
    name = profile.server or host
    if profile.can_seal or profile.use_gpg or name is None:
        return profile
    found = key_of(path(environ), name)
    return profile if found is None else profile._replace(host_key=found[1])


def key_of(file: Path, name: str) -> tuple[Pinned, PublicKey] | None:
    """A host's line and key; None where it has none.

    Raises:
        ConfigError: the file cannot or must not be used, or has two keys for the host.
    """
    found = [(each, _key(file, each)) for each in load(file) if name.lower() in each.names]
    others = [(each, key) for each, key in found if key != found[0][1]]
    if others:
        text = f"{name} has another key on line {found[0][0].line}: remove one of the lines"
        raise refusal(file, text, others[0][0].line)
    return found[0] if found else None


def load(file: Path) -> list[Pinned]:
    """The lines of the file; a missing file has none.

    Raises:
        ConfigError: it cannot be read, others can write it, or a line is none.
    """
    problems: list[Problem] = []
    found = []
    for number, row in enumerate(_rows(file), 1):
        text, complaint = reader.text_of(row)
        words = text.split(maxsplit=1)
        if complaint is None and (not words or text.startswith("#")):
            continue
        if len(words) == 2:  # noqa: PLR2004  names and key
            found.append(Pinned(number, tuple(words[0].lower().split(",")), words[1]))
        else:
            problems.append(Problem(str(file), number, complaint or "the line is not NAME doorward1 BASE64"))
    if problems:
        raise failure(problems)
    return found


def pin(file: Path, names: Sequence[str], line: str, *, force: bool) -> int:
    """Put a host's public line into the file under its names, and return the number of its line.

    Raises:
        ClientError: another key is there and `force` is not set, or the file cannot be written.
        ConfigError: the file cannot or must not be used.
    """
    key, wanted = convert.public_line(line)[0], [name.lower() for name in names]
    fitting = {each.line: each for each in load(file) if set(wanted) & set(each.names)}
    changed = [each for each in fitting.values() if _key(file, each) != key]
    if changed and not force:
        raise ClientError(_refusal(file, changed[0], wanted))
    rows: list[str] = []
    for number, row in enumerate(_rows(file), 1):
        each = fitting.get(number)
        if each is None:
            rows.append(row.decode("utf-8"))
        elif each in changed and (kept := [name for name in each.names if name not in wanted]):
            rows.append(f"{','.join(kept)} {each.text}")
        elif each not in changed:
            wanted = list(dict.fromkeys((*each.names, *wanted)))
    rows.append(f"{','.join(wanted)} {line}")
    _write(file, rows)
    return len(rows)


def _refusal(file: Path, each: Pinned, names: Sequence[str]) -> str:
    name = next(name for name in names if name in each.names)
    return (
        f"{file}:{each.line}: {name} has another key here than the host shows now. Nothing was changed. If the host "
        "has a new key pair, --force replaces the line; if not, another machine answers in its place"
    )


def _key(file: Path, each: Pinned) -> PublicKey:
    try:
        return convert.public_line(each.text)[0]
    except (ValueError, WireError) as error:
        raise refusal(file, str(error), each.line) from None


def _rows(file: Path) -> list[bytes]:
    try:
        with file.open("rb") as stream:
            status, content = os.fstat(stream.fileno()), stream.read(FILE_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise refusal(file, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if portable.others_write(status):
        text = f"other users can write it (mode {portable.mode(status):04o}), and so choose the keys: chmod 600 it"
        raise refusal(file, text)
    if len(content) > FILE_MAX:
        raise refusal(file, f"the file exceeds {FILE_MAX} bytes")
    return content.removesuffix(b"\n").split(b"\n") if content else []


def _write(file: Path, rows: Sequence[str]) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(file, "".join(f"{row}\n" for row in rows).encode())
    except OSError as error:
        msg = f"{file}: {error.strerror or error}; nothing was changed"
        raise ClientError(msg) from error
