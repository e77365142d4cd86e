"""KEY_COMMAND and HMAC_KEY_COMMAND: a program that prints the key, such as pass, op, secret-tool or vault.

The program is run without a shell, with nothing on its standard input; its own messages go to standard error. It prints
the key in base64, on one line, or lines of KEY, KEY_BASE64, HMAC_KEY and HMAC_KEY_BASE64, as `doorward keys generate`
does; each of the two names takes its own key from them. Nothing of what it prints is ever repeated.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward import portable
from doorward.client import profile as converters
from doorward.errors import ClientError, DoorwardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.client.profile import Profile
    from doorward.values import Secret

SECONDS: Final = 30.0  # a person may have to type a PIN
OUTPUT_MAX: Final = 4096  # bytes; two keys have under 400


class Kind(NamedTuple):
    """The key that a name of ~/.fwknoprc asks for: the words that may stand before it, with their converters."""

    name: str
    lines: dict[str, Callable[[str], Secret]]


ENCRYPTION: Final = Kind(
    "KEY_COMMAND",
    {"KEY_BASE64": converters.encryption_key_base64, "KEY": converters.encryption_key_text},
)
HMAC: Final = Kind(
    "HMAC_KEY_COMMAND",
    {"HMAC_KEY_BASE64": converters.hmac_key_base64, "HMAC_KEY": converters.hmac_key_text},
)
_NAMES: Final = frozenset({*ENCRYPTION.lines, *HMAC.lines})


def with_printed_keys(profile: Profile, seconds: float = SECONDS) -> Profile:
    """The profile with the keys that its programs print; one that both names name runs once.

    Raises:
        ClientError: a program cannot or must not be run, is not done in time, or prints no key.
    """
    printed: dict[tuple[str, ...], bytes] = {}
    for kind, command in ((ENCRYPTION, profile.key_command), (HMAC, profile.hmac_key_command)):
        if command is None:
            continue
        try:
            if command not in printed:
                printed[command] = _output(command, seconds)
            made = key(printed[command], kind)
            profile = profile._replace(key=made) if kind is ENCRYPTION else profile._replace(hmac_key=made)
        except DoorwardError as error:
            msg = f"{kind.name}: {command[0][:80]} {error}"
            raise ClientError(msg) from None
    return profile


def key(output: bytes, kind: Kind) -> Secret:
    """The key of a kind in what a program printed.

    Raises:
        ClientError: there is none, or there are several; the text goes behind the program's name.
    """
    found = [_words(row) for row in _rows(output)]
    if len(found) == 1 and found[0][0] not in _NAMES:
        found = [(next(iter(kind.lines)), " ".join(filter(None, found[0])))]
    strange = [number for number, (name, _) in enumerate(found, 1) if name not in _NAMES]
    if strange:
        msg = f"prints a line {strange[0]} that begins with none of {', '.join(sorted(_NAMES))}"
        raise ClientError(msg)
    fitting = [(name, text) for name, text in found if name in kind.lines]
    if len(fitting) != 1:
        many = f"prints {len(fitting)} lines" if fitting else "prints no line"
        msg = f"{many} of {' or '.join(kind.lines)}, where there must be one"
        raise ClientError(msg)
    ((name, text),) = fitting
    return _converted(name, text, kind)


def _converted(name: str, text: str, kind: Kind) -> Secret:
    try:
        return kind.lines[name](text)
    except (ValueError, DoorwardError) as error:  # neither repeats a key
        msg = f"prints no good {name}: {error}"
        raise ClientError(msg) from None


def _rows(output: bytes) -> list[str]:
    try:
        text = output.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    rows = [row.strip() for row in text.splitlines() if row.strip()]
    if not all(row.isprintable() for row in rows):
        msg = "prints what is no text"
        raise ClientError(msg)
    if not rows:
        msg = "prints nothing"
        raise ClientError(msg)
    return rows


def _words(row: str) -> tuple[str, str]:
    """Name and value of `NAME value`, `NAME: value` or `NAME:value`."""
    head, _, rest = row.partition(" ")
    name, colon, value = head.partition(":")
    return (name, f"{value}{rest}".strip()) if colon and name in _NAMES else (head, rest.strip())


def _output(command: tuple[str, ...], seconds: float) -> bytes:
    """All that a program prints, once it has ended well.

    Raises:
        ClientError: it does not; the text goes behind the program's name.
    """
    program = _program(command[0])
    try:
        running = subprocess.Popen(  # noqa: S603  the user's own program, from a file that nobody else can write
            [str(program), *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except (OSError, ValueError) as error:
        msg = f"cannot be run: {getattr(error, 'strerror', None) or error}"
        raise ClientError(msg) from error
    try:
        return _read(running, seconds)
    finally:
        with contextlib.suppress(OSError):
            running.kill()
        running.wait()


def _read(running: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The output of a running program; a thread reads it, since not every system can wait for a pipe."""
    content = bytearray()
    done = threading.Thread(target=_fill, args=(content, running), daemon=True)
    done.start()
    done.join(seconds)
    if done.is_alive():
        msg = f"has not ended within {seconds:g} s"
        raise ClientError(msg)
    if len(content) > OUTPUT_MAX:
        msg = f"prints more than {OUTPUT_MAX} bytes"
        raise ClientError(msg)
    try:
        code = running.wait(seconds)
    except subprocess.TimeoutExpired:
        msg = f"has not ended within {seconds:g} s"
        raise ClientError(msg) from None
    if code:
        msg = f"failed: {f'exit code {code}' if code > 0 else f'ended by signal {-code}'}"
        raise ClientError(msg)
    return bytes(content)


def _fill(content: bytearray, running: subprocess.Popen[bytes]) -> None:
    assert running.stdout is not None  # noqa: S101  it was asked for
    with running.stdout as stream:
        while len(content) <= OUTPUT_MAX and (chunk := os.read(stream.fileno(), OUTPUT_MAX)):
            content += chunk


def _program(name: str) -> Path:
    """The file of a program; `~` is the home directory, a name without a slash is searched for in PATH.

    Raises:
        ClientError: there is none, or others can write it and so choose the key.
    """
    found = shutil.which(os.path.expanduser(name))  # noqa: PTH111  which() takes a text
    if found is None:
        msg = "is no program, or is not in PATH"
        raise ClientError(msg)
    path = Path(found)
    if not path.is_absolute():
        msg = "is found by a relative path: name it by an absolute one"
        raise ClientError(msg)
    path = path.resolve()
    try:
        loose = portable.others_write(path.stat()) or _is_open_folder(path.parent)
    except OSError as error:
        msg = f"cannot be run: {error.strerror}"
        raise ClientError(msg) from error
    if loose:
        msg = f"is {path}, which other users can write, so it is not run"
        raise ClientError(msg)
    return path


def _is_open_folder(folder: Path) -> bool:
    """Whether everybody can put another file into the place of one in a folder."""
    status = folder.stat()
    return portable.user() is not None and status.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH
