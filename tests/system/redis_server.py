"""Debian's redis-server in a network namespace, configured as docs/two-gateways.md has it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from system.doorwardd import eventually, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

PASSWORD: Final = "between-the-gateways"  # noqa: S105  of these tests alone
# What docs/two-gateways.md gives; addresses and folders are those of the test.
CONFIGURATION: Final = f"""\
user default on nopass ~doorward:* resetchannels -@all +set +xadd +xread
user replica on >{PASSWORD} resetchannels -@all +psync +replconf +ping
user operator on >{PASSWORD} ~* resetchannels +@all
masteruser replica
masterauth {PASSWORD}
maxmemory-policy noeviction
save ""
protected-mode no
"""


@dataclass
class Redis:
    """A running server."""

    host: Namespace
    folder: Path
    process: subprocess.Popen[str]

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.folder / "redis.sock"

    def ask(self, *words: str, user: str = "operator") -> str:
        """What redis-cli prints."""
        login = ("--user", user, "--pass", PASSWORD, "--no-auth-warning") if user != "default" else ()
        return self.host.run("redis-cli", "-s", str(self.socket), *login, *words, errors="replace").stdout.strip()

    def signal(self, number: int) -> None:
        """Send the server a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def redis(host: Namespace, folder: Path, *lines: str) -> Iterator[Redis]:
    """Yield a server of `host` with these lines of configuration more; it is ended with the block."""
    folder.mkdir(exist_ok=True)
    (folder / "redis.sock").unlink(missing_ok=True)  # of one that was killed
    text = f"{CONFIGURATION}dir {folder}\nunixsocket {folder}/redis.sock\nunixsocketperm 700\n" + "\n".join(lines)
    file = write(folder / "redis.conf", text if any(line.startswith("port") for line in lines) else f"{text}\nport 0\n")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with host.process("redis-server", str(file), **quiet) as process:
        server = Redis(host, folder, process)
        assert eventually(lambda: server.socket.exists() and server.ask("ping") == "PONG")
        yield server


@contextlib.contextmanager
def replicating(one: Namespace, two: Namespace, folder: Path) -> Iterator[tuple[Redis, Redis]]:
    """Yield a server of each host; the second one is the first one's replica."""
    with (
        redis(one, folder / "redis1", f"bind {one.ipv4}", "port 6379") as first,
        redis(two, folder / "redis2", f"bind {two.ipv4}", "port 6379", f"replicaof {one.ipv4} 6379") as second,
    ):
        assert eventually(lambda: "master_link_status:up" in second.ask("info", "replication"))
        yield first, second
