"""What a trace of strace(1) shows that a program did, against the rules of an AppArmor profile.

The rules are the parser's own: `apparmor_parser --dump=rule-exprs` prints each as a regular expression with its
permissions, includes and variables resolved. A rule for owners counts for everybody: a trace names no owners.
A call that failed is no access. Sockets of a family and kind need a `network` rule, Unix sockets a `unix` rule.
What a trace does not show: capabilities, signals, and the label of who is at the other end of a Unix socket.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# The bits of a rule, for owners; those for others are 14 bits higher. Source: parser/libapparmor_re/apparmor_re.h.
_BITS: Final = {"x": 0x1, "w": 0x2, "r": 0x4, "l": 0x10, "k": 0x20, "m": 0x40}
_OTHERS: Final = 14
_RULE: Final = re.compile(r"rule: (?P<path>[/({].*?)  ->  .*?(?P<deny> deny)? \(0x(?P<bits>[0-9a-f]+)/")
_NETWORK: Final = re.compile(r"^\s*network\s+(\w+)\s+(\w+)\s*,", re.MULTILINE)
_PROFILE: Final = re.compile(r"^profile (?P<name>[\w-]+).*?^}", re.MULTILINE | re.DOTALL)


class Access(NamedTuple):
    """One permission on one path, or a socket: `("inet dgram", "network")`."""

    path: str
    permission: str


@dataclass(frozen=True)
class Profile:
    """The rules of one profile."""

    allowed: list[tuple[re.Pattern[str], int]] = field(default_factory=list)
    denied: list[tuple[re.Pattern[str], int]] = field(default_factory=list)
    sockets: frozenset[str] = frozenset()

    def allows(self, access: Access) -> bool:
        """Whether the rules allow it."""
        if access.permission == "network":
            return access.path in self.sockets
        bit = _BITS[access.permission]
        return _match(self.allowed, access.path, bit) and not _match(self.denied, access.path, bit)


def _match(rules: list[tuple[re.Pattern[str], int]], path: str, bit: int) -> bool:
    return any(bits & (bit | bit << _OTHERS) and pattern.fullmatch(path) for pattern, bits in rules)


def profiles(file: Path) -> dict[str, Profile]:
    """The profiles of a file, by their names."""
    whole = _parser("--preprocess", file.read_text("utf-8"))
    head = file.read_text("utf-8").partition("\nprofile ")[0]
    texts = {found["name"]: found[0] for found in _PROFILE.finditer(file.read_text("utf-8"))}
    expanded = {found["name"]: found[0] for found in _PROFILE.finditer(whole)}
    return {name: _profile(f"{head}\n{text}\n", expanded[name]) for name, text in texts.items()}


def _profile(text: str, expanded: str) -> Profile:
    made = Profile(sockets=frozenset(_sockets(expanded)))
    for found in _RULE.finditer(_parser("--dump=rule-exprs", text)):
        rules = made.denied if found["deny"] else made.allowed
        rules.append((re.compile(found["path"]), int(found["bits"], 16)))
    return made


def _sockets(expanded: str) -> Iterator[str]:
    yield from (f"{family} {kind}" for family, kind in _NETWORK.findall(expanded))
    if re.search(r"^\s*unix \(create\)", expanded, re.MULTILINE):
        yield from (f"unix {kind}" for kind in ("stream", "dgram", "seqpacket"))


def _parser(option: str, text: str) -> str:
    command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", option]
    done = subprocess.run(command, input=text, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


# --- what a trace shows -----------------------------------------------------------------------------------------------

_CALL: Final = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>\d+)(?:<(?P<made>[^>]*)>)?")
_UNFINISHED: Final = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED: Final = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)$")
_AT: Final = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>, )?"(?P<path>[^"]*)"')
_MAPPED: Final = re.compile(r"PROT_EXEC.*, \d+<(?P<path>/[^>]*)>, ")
_DESCRIPTOR: Final = re.compile(r"\d+<(?P<path>/[^>]*)>")
_SOCKET: Final = re.compile(r"AF_(?P<family>\w+), SOCK_(?P<kind>\w+)")
_FAMILIES: Final = {"UNIX": "unix", "INET": "inet", "INET6": "inet6", "NETLINK": "netlink", "PACKET": "packet"}
_CHANGES: Final = {
    **dict.fromkeys(
        ("unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "symlink", "symlinkat", "mknod", "mknodat"), "w"
    ),
    **dict.fromkeys(("chmod", "fchmodat", "chown", "lchown", "fchownat", "utimensat", "truncate"), "w"),
    **dict.fromkeys(("rename", "renameat", "renameat2"), "w"),
    **dict.fromkeys(("link", "linkat"), "l"),
}
_FOLDERS: Final = frozenset({"mkdir", "mkdirat", "rmdir"})
_BY_DESCRIPTOR: Final = {"flock": "k", "ftruncate": "w", "fchmod": "w", "fchown": "w"}
_OPEN: Final = frozenset({"open", "openat", "creat"})
CALLS: Final = (*_OPEN, "execve", "mmap", "fcntl", "socket", "connect", "bind", *_CHANGES, *_BY_DESCRIPTOR)
"""The calls that a trace has to show."""


def accesses(trace: str, program: str, root: Path) -> set[Access]:
    """What a program needed after it was started as `program`, with the files below `root` (for symbolic links)."""
    lines = list(_whole(trace.splitlines()))
    start = next(place for place, line in enumerate(lines) if f'execve("{program}", ' in line and line.endswith("= 0"))
    binary = _resolved(program, root)
    found = {Access(binary, "r"), Access(binary, "m")}
    for line in lines[start + 1 :]:
        call = _CALL.match(line)
        if call:
            found |= set(_needed(call["name"], call["arguments"], call["made"] or "", root))
    return {access for access in found if access.permission == "network" or _is_mediated(access.path)}


def _is_mediated(path: str) -> bool:
    """Whether a path is one: pipes, sockets and memory files have none, nor has a file without a name."""
    return path.startswith("/") and not path.startswith(("/memfd:", "/dev/pts/")) and "(deleted)" not in path


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """The lines, with those joined that a call of another thread cut."""
    begun: dict[str, str] = {}
    for line in lines:
        if cut := _UNFINISHED.match(line):
            begun[cut[1]] = line.removesuffix(" <unfinished ...>")
        elif rest := _RESUMED.match(line):
            yield begun.pop(rest[1], "") + rest[2].lstrip()
        else:
            yield line


def _needed(name: str, arguments: str, made: str, root: Path) -> Iterator[Access]:
    if name in _OPEN:
        yield from _opened(arguments, made, root)
    elif name == "execve":
        path = _resolved(_path(arguments), root)
        yield from (Access(path, permission) for permission in "xrm")
    elif name in _CHANGES:
        yield from _changed(name, arguments)
    elif name == "mmap" and (mapped := _MAPPED.search(arguments)):
        yield Access(mapped["path"], "m")
    elif name in _BY_DESCRIPTOR or (name == "fcntl" and "F_SETLK" in arguments):
        if file := _DESCRIPTOR.match(arguments):
            yield Access(file["path"], _BY_DESCRIPTOR.get(name, "k"))
    elif name == "socket" and (kind := _SOCKET.search(arguments)):
        yield Access(f"{_FAMILIES.get(kind['family'], kind['family'])} {kind['kind'].lower()}", "network")
    elif name in {"connect", "bind"} and (socket := re.search(r'sun_path="([^"]*)"', arguments)):
        yield Access(_resolved(socket[1], root), "w")


def _opened(arguments: str, made: str, root: Path) -> Iterator[Access]:
    if "O_PATH" in arguments:  # which AppArmor does not ask about
        return
    is_folder = "O_DIRECTORY" in arguments or (root / made.lstrip("/")).is_dir()
    path = f"{made.rstrip('/')}/" if is_folder else made
    if "O_WRONLY" not in arguments:
        yield Access(path, "r")
    if re.search(r"O_(WRONLY|RDWR)", arguments):
        yield Access(path, "w")


def _changed(name: str, arguments: str) -> Iterator[Access]:
    paths = [str(PurePosixPath(found["folder"] or "/") / found["path"]) for found in _AT.finditer(arguments)]
    folder = name in _FOLDERS or "AT_REMOVEDIR" in arguments
    for path in paths:
        yield Access(f"{path.rstrip('/')}/" if folder else path, _CHANGES[name])
    if name.startswith("rename"):
        yield Access(paths[0], "r")


def _path(arguments: str) -> str:
    found = _AT.search(arguments)
    return found["path"] if found else ""


def _resolved(path: str, root: Path) -> str:
    """A path without symbolic links, among other files than ours."""
    place, rest = PurePosixPath("/"), list(PurePosixPath(path).parts[1:])
    while rest:
        step, *rest = rest
        target = root / place.relative_to("/") / step
        if target.is_symlink():
            link = target.readlink()
            place, rest = (PurePosixPath("/") if link.is_absolute() else place), [*_steps(link), *rest]
        else:
            place = place.parent if step == ".." else place / step
    return str(place)


def _steps(link: Path) -> tuple[str, ...]:
    return link.parts[1:] if link.is_absolute() else link.parts


def missing(profile: Profile, needed: Iterable[Access]) -> list[str]:
    """What a profile does not allow, a line each."""
    return sorted(f"{access.path} {access.permission}" for access in needed if not profile.allows(access))
