"""The sources of a configuration outside its own text: files, folders, keyrings, host names, accounts.

The helper reads them (`Disk`) through a `Recorder`, which keeps every answer. The listener, which may not read them,
parses the same text with the recorded answers (`Files`) and gets the same configuration. All are `Answers`.
"""

from __future__ import annotations

import abc
import enum
import grp
import io
import ipaddress
import os
import pwd
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.config import reader
from doorward.errors import HelperError
from doorward.linux.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from doorward.values import IPAddress

TOTAL_MAX: Final = 32 * 1024 * 1024  # bytes of all answers together
ENCODED_MAX: Final = TOTAL_MAX + 1024
TREE_MAX: Final = 8 * 1024 * 1024  # bytes of one keyring: some ten thousand keys
ENTRIES_MAX: Final = 20_000  # files in a folder, or answers of one kind
NAME_SECONDS: Final = 5.0  # host names that are not known by then have no address
KEYRINGS: Final = ("pubring.kbx", "pubring.gpg")
SECRET_KEYS: Final = "private-keys-v1.d"  # noqa: S105  a folder's name
_OLD_SECRET_KEYS: Final = "secring.gpg"  # noqa: S105  a file's name
_TRUST: Final = "trustdb.gpg"
_LOOK_UP: Final = (
    "import socket, sys\n"
    "found = socket.getaddrinfo(sys.argv[1], None, type=socket.SOCK_STREAM)\n"
    "print(*dict.fromkeys(place[0] for *_, place in found), sep='\\n')"
)
_LOOKED_UP_MAX: Final = 4096  # bytes of one name's addresses
_OVERHEAD: Final = 9  # bytes of an answer, encoded, beside itself and its name


class Question(str, enum.Enum):
    """The kinds of questions. Answers are bytes; addresses are separated by newlines, names by NUL."""

    CONTENT = "content"  # of a file, see reader.content()
    SECRET = "secret"  # noqa: S105  of a file that nobody else can read
    CONTENT_IF_ANY = "content if any"  # of a file, nothing where there is none
    NAMES = "names"  # in a folder: they end in `.conf` and do not begin with a dot
    TREE = "tree"  # of a GnuPG home, see Answers.tree()
    ADDRESSES = "addresses"  # of a host's name
    USER = "user"  # whether there is this account
    GROUP = "group"  # of this name, or of the account of this name


class Answers(abc.ABC):
    """A source of answers. Each method raises ConfigError if a file cannot or must not be read."""

    @abc.abstractmethod
    def ask(self, question: Question, name: str) -> bytes:
        """The answer to a question about a file, folder, host or account."""

    def content(self, path: Path, *, secret: bool) -> bytes:
        """The bytes of a file, see reader.content()."""
        return self.ask(Question.SECRET if secret else Question.CONTENT, str(path))

    def content_if_any(self, path: Path) -> bytes:
        """The bytes of a file, empty if it does not exist."""
        return self.ask(Question.CONTENT_IF_ANY, str(path))

    def names(self, folder: Path) -> tuple[str, ...]:
        """The names in a folder that end in `.conf` and do not begin with a dot, sorted."""
        found = self.ask(Question.NAMES, str(folder))
        return tuple(os.fsdecode(found).split("\0")) if found else ()

    def tree(self, folder: Path) -> bytes:
        """The keyring files of a GnuPG home as an uncompressed tar archive, owners and times left out.

        That is pubring.kbx or pubring.gpg, private-keys-v1.d/*.key or secring.gpg, and trustdb.gpg; not gpg's settings.
        """
        return self.ask(Question.TREE, str(folder))

    def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """The addresses of a host's name, none if it is unknown."""
        found = map(_address, self.ask(Question.ADDRESSES, name).decode("ascii", "replace").split("\n"))
        return tuple(address for address in found if address is not None)

    def is_user(self, name: str) -> bool:
        """Whether the account exists."""
        return bool(self.ask(Question.USER, name))

    def group(self, name: str) -> str | None:
        """The group of this name, or else the primary group of the account of this name (as in fwknopd)."""
        return os.fsdecode(self.ask(Question.GROUP, name)) or None


class Disk(Answers):
    """The system itself. All host names together get NAME_SECONDS, so a silent name server delays no knock for long."""

    def __init__(self) -> None:
        """Begin with all of the time."""
        self._seconds = NAME_SECONDS

    def ask(self, question: Question, name: str) -> bytes:
        """See Answers."""
        return self._addresses(name) if question is Question.ADDRESSES else _ON_DISK[question](name)

    def _addresses(self, name: str) -> bytes:
        """The addresses, one a line; another process asks, since only a process can be ended in time."""
        began = time.monotonic()
        argv = [sys.executable, "-I", "-c", _LOOK_UP, name]
        try:
            asked = subprocess.run(argv, capture_output=True, check=False, env={}, cwd="/", timeout=self._seconds)  # noqa: S603  this interpreter
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return b""
        finally:
            self._seconds = max(0.0, self._seconds - (time.monotonic() - began))
        return asked.stdout[:_LOOKED_UP_MAX]


@dataclass(frozen=True, slots=True)
class _Entry:
    question: Question
    name: bytes
    answer: bytes


_CODEC: Final = Codec[tuple[_Entry, ...]](b"F", tuple[_Entry, ...], ENCODED_MAX)


@dataclass(frozen=True, slots=True)
class Files(Answers):
    """Recorded answers. A file or folder without a recorded answer is a ConfigError."""

    entries: Mapping[tuple[Question, str], bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """All answers as bytes, for decode()."""
        entries = self.entries.items()
        return _CODEC.encode(tuple(_Entry(question, os.fsencode(name), one) for (question, name), one in entries))

    @classmethod
    def decode(cls, content: bytes) -> Files:
        """The answers in the bytes that encode() made.

        Raises:
            HelperError: other bytes.
        """
        found = _CODEC.decode(content)
        entries = {(one.question, os.fsdecode(one.name)): one.answer for one in found}
        if len(entries) != len(found):
            msg = "two answers to one question"
            raise HelperError(msg)
        return cls(entries)

    def secrets(self) -> Iterator[str]:
        """Yield the names of the files that nobody else can read."""
        return (name for question, name in self.entries if question is Question.SECRET)

    def ask(self, question: Question, name: str) -> bytes:
        """See Answers."""
        found = self.entries.get((question, name))
        if found is None and question in {Question.ADDRESSES, Question.USER, Question.GROUP}:
            return b""
        if found is None:
            raise reader.refusal(Path(name), "was not read")
        return found


class Recorder(Answers):
    """The disk's answers; each question is asked once and the answer kept."""

    def __init__(self) -> None:
        """Begin with no answers."""
        self._disk = Disk()
        self._entries: dict[tuple[Question, str], bytes] = {}
        self._size = 0

    @property
    def files(self) -> Files:
        """All answers so far."""
        return Files(dict(self._entries))

    def ask(self, question: Question, name: str) -> bytes:
        """See Answers."""
        known = self._entries.get((question, name))
        if known is not None:
            return known
        answer = self._disk.ask(question, name)
        self._size += _OVERHEAD + len(os.fsencode(name)) + len(answer)
        if self._size > TOTAL_MAX or len(self._entries) >= ENTRIES_MAX:
            raise reader.refusal(Path(name), f"the configuration exceeds {TOTAL_MAX} bytes or {ENTRIES_MAX} files")
        self._entries[question, name] = answer
        return answer


def _names(folder: Path) -> bytes:
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry, _ in zip(entries, range(ENTRIES_MAX + 1), strict=False)]
    except (OSError, ValueError) as error:
        raise reader.refusal(folder, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(found) > ENTRIES_MAX:
        raise reader.refusal(folder, f"has more than {ENTRIES_MAX} entries")
    chosen = sorted(name for name in found if name.endswith(".conf") and not name.startswith("."))
    return os.fsencode("\0".join(chosen))


def _tree(folder: Path) -> bytes:
    if not folder.is_dir():
        raise reader.refusal(folder, "is not a folder")
    members = dict(_keyring(folder))
    if not any(name in members for name in KEYRINGS):
        keyboxd = (folder / "public-keys.d").is_dir()
        where = " but keyboxd's database: gpg must keep them in pubring.kbx" if keyboxd else ""
        raise reader.refusal(folder, f"has no public keys (pubring.kbx, pubring.gpg){where}")
    if not any(name.startswith((SECRET_KEYS, _OLD_SECRET_KEYS)) for name in members):
        raise reader.refusal(folder, f"has no secret keys ({SECRET_KEYS}, {_OLD_SECRET_KEYS})")
    if sum(map(len, members.values())) > TREE_MAX:
        raise reader.refusal(folder, f"has keyrings of more than {TREE_MAX} bytes")
    return _archive(members)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _group(name: str) -> str | None:
    try:
        return grp.getgrnam(name).gr_name
    except KeyError:
        pass
    try:
        return grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name
    except KeyError:
        return None


_ON_DISK: Final[dict[Question, Callable[[str], bytes]]] = {
    Question.CONTENT: lambda name: reader.content(Path(name), secret=False),
    Question.SECRET: lambda name: reader.content(Path(name), secret=True),
    Question.CONTENT_IF_ANY: lambda name: reader.content(Path(name), secret=False) if Path(name).exists() else b"",
    Question.NAMES: lambda name: _names(Path(name)),
    Question.TREE: lambda name: _tree(Path(name)),
    Question.USER: lambda name: b"y" * _is_user(name),
    Question.GROUP: lambda name: os.fsencode(_group(name) or ""),
}


def _keyring(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the existing files of a keyring, with their names within it."""
    for name, secret in (*((name, False) for name in (*KEYRINGS, _TRUST)), (_OLD_SECRET_KEYS, True)):
        if (folder / name).exists():
            yield name, reader.content(folder / name, secret=secret)
    try:
        keys = sorted((folder / SECRET_KEYS).iterdir())
    except OSError:
        return
    for path in keys[:ENTRIES_MAX]:
        if path.suffix == ".key":
            yield f"{SECRET_KEYS}/{path.name}", reader.content(path, secret=True)


def _archive(members: Mapping[str, bytes]) -> bytes:
    import tarfile  # noqa: PLC0415  for GnuPG alone; it brings every compressor with it

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:  # an address with a zone, or a truncated last line
        return None
