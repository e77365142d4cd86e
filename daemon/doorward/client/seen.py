"""The addresses at which hosts have seen this machine behind NAT, and those that sites told: a file in its user's home.

A line is `WAY BY ADDRESS TIME`. WAY is the way out of this machine (way() says how); BY is the address of the host
that saw it, or `site`; TIME in Unix seconds. What a host saw is asked for at that host alone: a host that was taken
over must not choose whom the others let in.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward import portable
from doorward.client.address import own_address, plausible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from doorward.client.address import Endpoint
    from doorward.client.surroundings import Outside
    from doorward.values import IPAddress

SITE: Final = "site"
DAY: Final = 86_400  # seconds
AGE_MAX: Final = 90 * DAY  # seconds; a provider has given the address to others long since
AHEAD_MAX: Final = DAY  # of a clock that was set back
FILE_MAX: Final = 1 << 16  # bytes
LINES_MAX: Final = 400
EACH_MAX: Final = 3  # a way and a witness: the addresses of a carrier's pool

_GATEWAYS: Final = Path("/proc/net/route")  # of Linux; elsewhere the own network alone names the way
_NETWORK_BYTES: Final = {4: 3, 6: 8}  # /24 and /64: leases change within
_WORDS: Final = 4
_GATEWAY_FLAG: Final = 2  # RTF_GATEWAY, linux/route.h


class Seen(NamedTuple):
    """One address under which this machine was seen."""

    way: str
    by: str
    address: IPAddress
    time: int


def path(environ: Mapping[str, str], home: Path) -> Path:
    """The file, in the folder for state of the XDG base directory specification."""
    state = environ.get("XDG_STATE_HOME") or ""
    return (Path(state) if state.startswith("/") else home / ".local/state") / "doorward/seen"


def way(own: IPAddress, host: IPAddress, gateways: Path = _GATEWAYS) -> str:
    """The way out to a host: public or private, the network of our own address, the default gateway if it is known."""
    kept = _NETWORK_BYTES[own.version]
    network = own.packed[:kept].hex()
    return f"{'public' if host.is_global else 'private'},{network},{_gateway(gateways) if own.version == 4 else '-'}"  # noqa: PLR2004  IPv4


def _gateway(table: Path) -> str:
    """The default gateway of the lowest metric, as the kernel prints it."""
    try:
        rows = [row.split() for row in table.read_text(encoding="ascii").splitlines()[1:]]
        found = [(int(row[6]), row[2]) for row in rows if row[1] == "00000000" and int(row[3], 16) & _GATEWAY_FLAG]
    except (OSError, ValueError, IndexError):
        return "-"
    return min(found, default=(0, "-"))[1]


def load(file: Path) -> tuple[list[Seen], str]:
    """The lines of the file, and a complaint; one that others can write counts for nothing."""
    try:
        content = _content(file)
    except (FileNotFoundError, NotADirectoryError):
        return [], ""
    except (OSError, ValueError) as error:
        return [], f"{file} is not used: {getattr(error, 'strerror', None) or error}"
    rows = content.decode("ascii", "replace").splitlines()
    found = [each for each in map(_seen, rows) if each is not None]
    damaged = len(rows) - len(found)
    return found, f"{damaged} of the lines of {file} are damaged and not used" if damaged else ""


def known(entries: Iterable[Seen], out: str, host: IPAddress, now: float) -> list[Seen]:
    """The entries for a way out that count at a host, the newest first, each address once."""
    fit = [
        each for each in entries if each.way == out and each.by in {SITE, str(host)} and plausible(each.address, host)
    ]
    fresh = [each for each in fit if -AHEAD_MAX < now - each.time < AGE_MAX]
    newest = sorted(fresh, key=lambda each: -each.time)
    return list({each.address: each for each in reversed(newest)}.values())[::-1][:EACH_MAX]


def learn(file: Path, entry: Seen) -> None:
    """Put an entry into the file, which is replaced as a whole; what is old or damaged goes.

    Raises:
        OSError: it cannot be written, or its folder is another user's.
    """
    entries, _ = load(file)
    kept = [each for each in entries if 0 <= entry.time - each.time < AGE_MAX]
    others = [each for each in kept if each[:3] != entry[:3]]
    same = [each for each in others if each[:2] == entry[:2]][: EACH_MAX - 1]
    rest = [each for each in others if each[:2] != entry[:2]]
    _replace(file, [entry, *same, *rest][:LINES_MAX])


def remember(host: Endpoint, by: str, address: IPAddress, outside: Outside) -> str:
    """Keep an address of this machine; return the reason why it is not kept, or nothing. It is never needed."""
    try:
        entry = Seen(way(own_address(host), host.host), by, address, int(outside.clock()))
        learn(path(outside.environ, outside.home), entry)
    except OSError as error:
        return f"{path(outside.environ, outside.home)}: {error.strerror or error}"
    return ""


def _replace(file: Path, entries: Sequence[Seen]) -> None:
    folder = file.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if not portable.is_own(status) or portable.mode(status) & 0o022:
        msg = "others can write the folder"
        raise PermissionError(0, msg)
    draft = folder / f".seen.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | portable.flags("O_CLOEXEC")
    with os.fdopen(os.open(draft, flags, 0o600), "w") as stream:
        stream.writelines(f"{each.way} {each.by} {each.address} {each.time}\n" for each in entries)
    draft.replace(file)


def _content(file: Path) -> bytes:
    flags = os.O_RDONLY | portable.flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC")
    with os.fdopen(os.open(file, flags), "rb") as stream:
        status = os.fstat(stream.fileno())
        complaint = "".join(_complaints(status))
        if complaint:
            raise ValueError(complaint)
        return stream.read(FILE_MAX)


def _complaints(status: os.stat_result) -> Iterator[str]:
    if not stat.S_ISREG(status.st_mode):
        yield "it is no file"
    elif not portable.is_own(status):
        yield "it is another user's"
    elif portable.mode(status) & 0o022:
        yield f"others can write it (mode {stat.S_IMODE(status.st_mode):04o})"
    elif status.st_size > FILE_MAX:
        yield f"it exceeds {FILE_MAX} bytes"


def _seen(row: str) -> Seen | None:
    words = row.split(" ")
    try:
        out, by, address, moment = words
        if by != SITE:
            ipaddress.ip_address(by)
        return Seen(out, by, ipaddress.ip_address(address), int(moment))
    except ValueError:
        return None


def age(seconds: float) -> str:
    """The time since something, in one unit."""
    for unit, length in (("d", DAY), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"
