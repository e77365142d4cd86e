"""iptables and ip6tables as programs: never for a knock, only to see and to set the few rules that stand all the time.

Argument lists and no shell, an environment of our own, a deadline, bounded output. Source: iptables-save(8),
iptables-restore(8).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DEADLINE: Final = 2.0  # seconds
OUTPUT_MAX: Final = 16 << 20  # bytes; a hundred thousand rules
FOLDERS: Final = tuple(map(Path, ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin")))
IPV6: Final = Path("/proc/self/net/if_inet6")  # seen by a service with ProcSubset=pid too
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_LOCK_SECONDS: Final = "1"  # what another program may hold the lock of the rules
_CHUNK: Final = 65536
_SHOWN: Final = 300  # characters of a program's complaint


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain as it is listed: its policy, `-` for one of ours, and its rules without their `-A NAME`."""

    policy: str
    rules: tuple[str, ...]


Tables = dict[str, dict[str, Chain]]  # table -> name -> chain


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs of one flavour for one family of addresses."""

    family: int
    save: Path
    restore: Path

    def tables(self) -> Tables:
        """Return all rules of the family.

        Raises:
            FirewallError: the program failed, or took too long.
        """
        return parse(run([str(self.save)]))

    def apply(self, text: str) -> None:
        """Put rules in place, one transaction a table; what `text` does not name stays as it is.

        Raises:
            FirewallError: the program refused or took too long.
        """
        run([str(self.restore), "--noflush", "-w", _LOCK_SECONDS], text)


def find(exe: Path | None = None, folders: Iterable[Path] = FOLDERS, ipv6: Path = IPV6) -> tuple[Tools, ...]:
    """Return the programs for IPv4, and for IPv6 where this kernel speaks it.

    `exe` is an iptables of one flavour, such as /usr/sbin/iptables-legacy; without it the host's own choice counts.

    Raises:
        FirewallError: one is missing; the text names its package.
    """
    name = "iptables" if exe is None else exe.name
    if not name.startswith("iptables"):
        msg = f"FIREWALL_EXE {exe}: FIREWALL_BACKEND iptables wants an iptables, by a name that begins with it"
        raise FirewallError(msg)
    if exe is not None and not os.access(exe, os.X_OK):
        msg = f"FIREWALL_EXE {exe}: there is no such program"
        raise FirewallError(msg)
    return _find(name, tuple(folders) if exe is None else (exe.parent,), ipv6)


def _find(name: str, places: tuple[Path, ...], ipv6: Path = IPV6) -> tuple[Tools, ...]:
    names = {4: name, 6: f"ip6{name.removeprefix('ip')}"} if ipv6.exists() else {4: name}
    return tuple(
        Tools(family, _program(f"{own}-save", places), _program(f"{own}-restore", places))
        for family, own in names.items()
    )


def other_flavours(tools: Iterable[Tools]) -> tuple[Tools, ...]:
    """Return the programs of the flavours that `tools` are not; those that are not there are left out."""
    used = {_real(one.save) for one in tools}
    found = []
    for flavour in ("nft", "legacy"):
        with contextlib.suppress(FirewallError):
            found += [one for one in _find(f"iptables-{flavour}", FOLDERS) if _real(one.save) not in used]
    return tuple(found)


def _real(path: Path) -> tuple[str, bool]:
    """Return what tells flavours apart: one program has many names."""
    return os.path.realpath(path), "legacy" in path.name


def parse(text: str) -> Tables:
    """Return the rules of what iptables-save prints.

    Raises:
        FirewallError: not such a text, or a table that iptables cannot read.
    """
    found: dict[str, dict[str, tuple[str, list[str]]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if "is incompatible" in line and line.startswith("#"):
            msg = f"iptables cannot read its own table, since nft wrote into it: {line.strip('# ')}"
            raise FirewallError(msg)
        try:
            _take(line, found)
        except (ValueError, LookupError) as error:
            msg = f"line {number} of iptables-save is not understood: {line[:60]!r}"
            raise FirewallError(msg) from error
    return {
        table: {name: Chain(policy, tuple(rules)) for name, (policy, rules) in chains.items()}
        for table, chains in found.items()
    }


def _take(line: str, found: dict[str, dict[str, tuple[str, list[str]]]]) -> None:
    """Add what one line says to the last table."""
    if line.startswith("*"):
        found[line[1:]] = {}
    elif line.startswith(":"):
        name, policy, *_ = line[1:].split()
        list(found.values())[-1][name] = (policy, [])
    elif line.startswith("-"):
        _, name, rule = line.split(" ", 2)
        list(found.values())[-1][name][1].append(rule)
    elif line not in {"", "COMMIT"} and not line.startswith("#"):
        raise ValueError(line)


def run(argv: list[str], text: str = "", deadline: float = DEADLINE) -> str:
    """Run a program to its end and return what it prints.

    Raises:
        FirewallError: it cannot be run, fails, takes too long or prints too much; it is ended then.
    """
    name = Path(argv[0]).name
    with _file(text) as standard_input:
        try:
            started = subprocess.Popen(  # noqa: S603  absolute path, fixed arguments, no shell
                argv,
                stdin=standard_input,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
            )
        except OSError as error:
            msg = f"{argv[0]}: {error.strerror}"
            raise FirewallError(msg) from error
    with started:
        try:
            printed, complaint = _collect(started, name, time.monotonic() + deadline)
        finally:
            started.kill()  # ended already, or not wanted any longer
    if started.returncode:
        said = " ".join(complaint.decode("utf-8", "replace").split())[:_SHOWN]
        msg = f"{name}: {said or f'exit {started.returncode}'}"
        raise FirewallError(msg)
    return printed.decode("utf-8", "replace")


def _collect(started: subprocess.Popen[bytes], name: str, until: float) -> tuple[bytes, bytes]:
    """Return both outputs of a program that ends in time and does not say too much."""
    assert started.stdout is not None  # noqa: S101  opened as pipes
    assert started.stderr is not None  # noqa: S101
    said: Mapping[int, bytearray] = {started.stdout.fileno(): bytearray(), started.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for descriptor in said:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            remaining = until - time.monotonic()
            if remaining <= 0:
                msg = f"{name} took longer than {DEADLINE:.0f} s and was ended"
                raise FirewallError(msg)
            for key, _ in selector.select(remaining):
                chunk = os.read(key.fd, _CHUNK)
                said[key.fd].extend(chunk)
                if not chunk:
                    selector.unregister(key.fd)
                if len(said[key.fd]) > OUTPUT_MAX:
                    msg = f"{name} printed more than {OUTPUT_MAX} bytes and was ended"
                    raise FirewallError(msg)
    try:
        started.wait(max(0.0, until - time.monotonic()) + 0.1)
    except subprocess.TimeoutExpired as error:
        msg = f"{name} took longer than {DEADLINE:.0f} s and was ended"
        raise FirewallError(msg) from error
    return bytes(said[started.stdout.fileno()]), bytes(said[started.stderr.fileno()])


@contextlib.contextmanager
def _file(text: str) -> Iterator[int]:
    """Yield a descriptor from which a program reads `text`; a pipe would hold 64 KB only."""
    descriptor = os.memfd_create("rules", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "w", encoding="ascii") as stream:
            stream.write(text)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _program(name: str, folders: Iterable[Path]) -> Path:
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return folder / name
    msg = f"{name} is not in {', '.join(map(str, folders))}: FIREWALL_BACKEND iptables needs the package iptables"
    raise FirewallError(msg)
