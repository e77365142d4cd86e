"""What a configuration is made of outside its own text: files, folders, keyrings, host names, accounts.

Whoever may read them (`Disk`) is asked through a `Recorder`, which keeps every answer; whoever may not read them parses
the same text with the recorded answers (`Files`) and comes to the same configuration. Both are a `Source`.
"""

from __future__ import annotations

import grp
import io
import ipaddress
import os
import pwd
import select
import signal
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from doorward.config import reader
from doorward.errors import ConfigError, HelperError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from doorward.values import IPAddress

TOTAL_MAX: Final = 32 * 1024 * 1024  # bytes of all answers together
TREE_MAX: Final = 8 * 1024 * 1024  # bytes of one keyring: some ten thousand keys
ENTRIES_MAX: Final = 20_000  # files in a folder, or answers of one kind
NAME_SECONDS: Final = 5.0  # host names that are not known by then have no address
KEYRINGS: Final = ("pubring.kbx", "pubring.gpg")
SECRET_KEYS: Final = "private-keys-v1.d"  # noqa: S105  a folder's name
_OLD_SECRET_KEYS: Final = "secring.gpg"  # noqa: S105  a file's name
_TRUST: Final = "trustdb.gpg"
_MAGIC: Final = b"doorward files 1\n"
_ENTRY: Final = struct.Struct("!cII")  # kind, bytes of the name, bytes of the answer
_COUNT: Final = struct.Struct("!I")
_CONTENT, _NAMES, _TREE, _ADDRESSES, _USER, _GROUP = b"f", b"d", b"t", b"a", b"u", b"g"


class Source(Protocol):
    """Where answers come from. Each method raises ConfigError where a file cannot or must not be read."""

    def content(self, path: Path, *, secret: bool) -> bytes:
        """Return the bytes of a file, see reader.content()."""

    def content_if_any(self, path: Path) -> bytes:
        """Return the bytes of a file, nothing where there is none."""

    def names(self, folder: Path) -> tuple[str, ...]:
        """Return the names in a folder that end in `.conf` and do not begin with a dot, sorted."""

    def tree(self, folder: Path) -> bytes:
        """Return the keyring files of a GnuPG home as an uncompressed tar archive, owners and times left out.

        That is pubring.kbx or pubring.gpg, private-keys-v1.d/*.key or secring.gpg, and trustdb.gpg; no settings of gpg.
        """

    def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """Return the addresses of a host's name, none where it is not known."""

    def is_user(self, name: str) -> bool:
        """Say whether there is such an account."""

    def group(self, name: str) -> str | None:
        """Return the group of this name, or else the first group of the account of this name (as fwknopd reads it)."""


class Disk:
    """The system itself. All host names together have NAME_SECONDS: a silent name server delays no knock for long."""

    def __init__(self) -> None:
        """Begin with all of the time."""
        self._seconds = NAME_SECONDS

    def content(self, path: Path, *, secret: bool) -> bytes:
        """See Source."""
        return reader.content(path, secret=secret)

    def content_if_any(self, path: Path) -> bytes:
        """See Source."""
        return reader.content(path, secret=False) if path.exists() else b""

    def names(self, folder: Path) -> tuple[str, ...]:
        """See Source."""
        try:
            with os.scandir(folder) as entries:
                found = [entry.name for entry, _ in zip(entries, range(ENTRIES_MAX + 1), strict=False)]
        except (OSError, ValueError) as error:
            raise _refusal(folder, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if len(found) > ENTRIES_MAX:
            raise _refusal(folder, f"has more than {ENTRIES_MAX} entries")
        return tuple(sorted(name for name in found if name.endswith(".conf") and not name.startswith(".")))

    def tree(self, folder: Path) -> bytes:
        """See Source."""
        if not folder.is_dir():
            raise _refusal(folder, "is not a folder")
        members = dict(_keyring(folder))
        if not any(name in members for name in KEYRINGS):
            keyboxd = (folder / "public-keys.d").is_dir()
            where = " but keyboxd's database: gpg must keep them in pubring.kbx" if keyboxd else ""
            raise _refusal(folder, f"has no public keys (pubring.kbx, pubring.gpg){where}")
        if not any(name.startswith((SECRET_KEYS, _OLD_SECRET_KEYS)) for name in members):
            raise _refusal(folder, f"has no secret keys ({SECRET_KEYS}, {_OLD_SECRET_KEYS})")
        if sum(map(len, members.values())) > TREE_MAX:
            raise _refusal(folder, f"has keyrings of more than {TREE_MAX} bytes")
        return _archive(members)

    def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """See Source; a child process asks, since nothing else could be ended in time."""
        began = time.monotonic()
        mine, theirs = os.pipe()
        child = os.fork()
        if not child:
            os._exit(_look_up(name, theirs))
        os.close(theirs)
        try:
            answer = _read_until(mine, began + self._seconds)
        finally:
            os.close(mine)
            os.kill(child, signal.SIGKILL)  # not reaped yet, so its number is still its own
            os.waitpid(child, 0)
            self._seconds = max(0.0, self._seconds - (time.monotonic() - began))
        return _addresses(answer)

    def is_user(self, name: str) -> bool:
        """See Source."""
        try:
            pwd.getpwnam(name)
        except KeyError:
            return False
        return True

    def group(self, name: str) -> str | None:
        """See Source."""
        try:
            return grp.getgrnam(name).gr_name
        except KeyError:
            pass
        try:
            return grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name
        except KeyError:
            return None


@dataclass(frozen=True, slots=True)
class Files:
    """Recorded answers: (kind, name) to bytes. A question that was never asked has none, which is a ConfigError."""

    entries: Mapping[tuple[bytes, str], bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return all answers as bytes, for decode()."""
        parts = [_MAGIC, _COUNT.pack(len(self.entries))]
        for (kind, name), answer in self.entries.items():
            key = os.fsencode(name)
            parts += [_ENTRY.pack(kind, len(key), len(answer)), key, answer]
        return b"".join(parts)

    @classmethod
    def decode(cls, content: bytes) -> Files:
        """Return the answers in the bytes that encode() made.

        Raises:
            HelperError: they are not.
        """
        place = len(_MAGIC) + _COUNT.size
        if not content.startswith(_MAGIC) or not place <= len(content) <= TOTAL_MAX + place:
            raise _foreign()
        (count,) = _COUNT.unpack_from(content, len(_MAGIC))
        entries: dict[tuple[bytes, str], bytes] = {}
        while place < len(content):
            if len(content) - place < _ENTRY.size:
                raise _foreign()
            kind, key, answer = _ENTRY.unpack_from(content, place)
            start = place + _ENTRY.size
            place = start + key + answer
            name = (kind, os.fsdecode(content[start : start + key]))
            if place > len(content) or name in entries:
                raise _foreign()
            entries[name] = content[start + key : place]
        if len(entries) != count:
            raise _foreign()
        return cls(entries)

    def content(self, path: Path, *, secret: bool) -> bytes:  # noqa: ARG002  was judged when it was read
        """See Source."""
        return self._answer(_CONTENT, path)

    def content_if_any(self, path: Path) -> bytes:
        """See Source."""
        return self._answer(_CONTENT, path)

    def names(self, folder: Path) -> tuple[str, ...]:
        """See Source."""
        return _split(self._answer(_NAMES, folder))

    def tree(self, folder: Path) -> bytes:
        """See Source."""
        return self._answer(_TREE, folder)

    def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """See Source."""
        return _addresses(self.entries.get((_ADDRESSES, name), b""))

    def is_user(self, name: str) -> bool:
        """See Source."""
        return bool(self.entries.get((_USER, name)))

    def group(self, name: str) -> str | None:
        """See Source."""
        return os.fsdecode(self.entries.get((_GROUP, name), b"")) or None

    def _answer(self, kind: bytes, path: Path) -> bytes:
        try:
            return self.entries[kind, str(path)]
        except KeyError:
            raise _refusal(path, "was not read") from None


class Recorder:
    """A source that keeps every answer of the disk, and gives the same one again."""

    def __init__(self) -> None:
        """Begin with no answers."""
        self._disk = Disk()
        self._entries: dict[tuple[bytes, str], bytes] = {}
        self._size = 0

    @property
    def files(self) -> Files:
        """All answers so far."""
        return Files(dict(self._entries))

    def content(self, path: Path, *, secret: bool) -> bytes:
        """See Source."""
        known = self._entries.get((_CONTENT, str(path)))
        return known if known is not None else self._keep(_CONTENT, path, self._disk.content(path, secret=secret))

    def content_if_any(self, path: Path) -> bytes:
        """See Source."""
        known = self._entries.get((_CONTENT, str(path)))
        return known if known is not None else self._keep(_CONTENT, path, self._disk.content_if_any(path))

    def names(self, folder: Path) -> tuple[str, ...]:
        """See Source."""
        known = self._entries.get((_NAMES, str(folder)))
        if known is None:
            known = self._keep(_NAMES, folder, os.fsencode("\0".join(self._disk.names(folder))))
        return _split(known)

    def tree(self, folder: Path) -> bytes:
        """See Source."""
        known = self._entries.get((_TREE, str(folder)))
        return known if known is not None else self._keep(_TREE, folder, self._disk.tree(folder))

    def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """See Source."""
        known = self._entries.get((_ADDRESSES, name))
        if known is None:
            found = "\n".join(map(str, self._disk.addresses(name)))
            known = self._keep(_ADDRESSES, name, found.encode("ascii"))
        return _addresses(known)

    def is_user(self, name: str) -> bool:
        """See Source."""
        known = self._entries.get((_USER, name))
        return bool(self._keep(_USER, name, b"y" * self._disk.is_user(name)) if known is None else known)

    def group(self, name: str) -> str | None:
        """See Source."""
        known = self._entries.get((_GROUP, name))
        if known is None:
            known = self._keep(_GROUP, name, os.fsencode(self._disk.group(name) or ""))
        return os.fsdecode(known) or None

    def _keep(self, kind: bytes, name: Path | str, answer: bytes) -> bytes:
        self._size += _ENTRY.size + len(os.fsencode(name)) + len(answer)
        if self._size > TOTAL_MAX or len(self._entries) >= ENTRIES_MAX:
            raise _refusal(Path(name), f"the configuration exceeds {TOTAL_MAX} bytes or {ENTRIES_MAX} files")
        self._entries[kind, str(name)] = answer
        return answer


def _keyring(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a keyring that are there, under their names within it."""
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


def _look_up(name: str, answers: int) -> int:
    """Write the addresses of a name; runs in a child process, where nothing may be raised."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        texts = dict.fromkeys(str(place[0]) for *_, place in found)
        os.write(answers, "\n".join(texts).encode("ascii")[:4096] + b"\n")
    except (OSError, ValueError):
        return 1
    return 0


def _read_until(pipe: int, deadline: float) -> bytes:
    """Return what comes through a pipe until its other end is closed, or until the deadline."""
    content = b""
    while len(content) < select.PIPE_BUF + 1:
        left = deadline - time.monotonic()
        ready = left > 0 and select.select([pipe], [], [], left)[0]
        piece = os.read(pipe, select.PIPE_BUF) if ready else b""
        if not piece:
            break
        content += piece
    return content


def _addresses(answer: bytes) -> tuple[IPAddress, ...]:
    found = map(_address, answer.decode("ascii", "replace").split("\n"))
    return tuple(address for address in found if address is not None)


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:  # an address with a zone, or the last one cut off
        return None


def _split(names: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(names).split("\0")) if names else ()


def _refusal(path: Path, text: str) -> ConfigError:
    return ConfigError([Problem(str(path), 0, text)])


def _foreign() -> HelperError:
    return HelperError("a configuration that is none")
