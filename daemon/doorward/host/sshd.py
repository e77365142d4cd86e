"""The ports of sshd, as the kernel, systemd or sshd's own configuration has them; no file of ours is asked.

roles/firewall/files/first-aid in the collection finds them in the same way, where there is no Python.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import tools

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC: Final = Path("/proc")
_HERE: Final = _PROC / "thread-self"
_LISTEN: Final = "0A"  # linux/include/net/tcp_states.h
_SECONDS: Final = 10
_FOLDERS: Final = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
_SOCKETS: Final = ("ssh.socket", "sshd.socket")
_STREAM: Final = re.compile(r"(?:[0-9.]+|\[.*\]):(\d+) \(Stream\)")


def ports() -> tuple[int, ...]:
    """The ports at which sshd listens, or systemd for it; else those that it is configured for; else none."""
    return tuple(sorted({*_listened(), *_listened_by_systemd()})) or tuple(configured())


def configured() -> list[int]:
    """The ports of sshd's configuration, as `sshd -T` prints them."""
    program = shutil.which("sshd", path=_FOLDERS)
    if program is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603  one program of the system's folders, without a shell
            [program, "-T"], capture_output=True, text=True, check=False, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split() for line in done.stdout.splitlines())
    return [int(row[1]) for row in rows if row[:1] == ["port"] and row[1].isdecimal()]


def _listened() -> Iterator[int]:
    """The ports of root's sshd in this network. A container has another one, and anybody can name a process sshd."""
    sockets: set[str] = set()
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            if _is_sshd(process):
                sockets.update(str(descriptor.readlink()) for descriptor in (process / "fd").iterdir())
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_HERE / "net" / name).read_text("ascii").splitlines()[1:]:
                row = line.split()  # proc_pid_net(5)
                if row[3] == _LISTEN and f"socket:[{row[9]}]" in sockets:
                    yield int(row[1].rpartition(":")[2], 16)


def _is_sshd(process: Path) -> bool:
    """Whether a process is a sshd that listens; the sockets of a session are those of its forwardings."""
    if (process / "comm").read_text("utf-8", "replace") != "sshd\n":
        return False
    title = (process / "cmdline").read_bytes()
    if title.startswith(b"sshd: ") and b"[listener]" not in title:
        return False
    of_root = "\nUid:\t0\t" in (process / "status").read_text("utf-8", "replace")
    return of_root and (process / "ns/net").readlink() == (_HERE / "ns/net").readlink()


def _listened_by_systemd() -> Iterator[int]:
    """The ports of active sockets of sshd."""
    for unit in _SOCKETS:
        with suppress(FirewallError):
            tools.run(["systemctl", "--quiet", "is-active", unit], _SECONDS)
            shown = tools.run(["systemctl", "show", "--property=Listen", "--value", unit], _SECONDS)
            yield from (int(found[1]) for line in shown.splitlines() if (found := _STREAM.fullmatch(line)))
