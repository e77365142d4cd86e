"""A real doorwardd in a network namespace, for tests that knock."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from doorward.replay import ReplayStore

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from system.netns import Namespace

PACKAGE = Path(__file__).parents[2] / "daemon"
KEY = "KEY_BASE64: a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
HMAC_KEY = "HMAC_KEY_BASE64: aGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaA=="
ACCESS = f"SOURCE ANY\n{KEY}\n{HMAC_KEY}\nOPEN_PORTS tcp/22, udp/7777\nREQUIRE_SOURCE_ADDRESS N\n"


@dataclass
class Running:
    """A running daemon and what it has logged so far."""

    process: subprocess.Popen[str]
    folder: Path
    lines: list[str] = field(default_factory=list)
    is_silent: bool = False  # nobody is left who could still say something
    _grown: threading.Condition = field(default_factory=threading.Condition)

    def take(self) -> None:
        """Collect the log until the daemon ends; runs in a thread of its own."""
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):  # closed by whoever started it, since another process holds it open
            for line in self.process.stderr:
                with self._grown:
                    self.lines.append(line.rstrip("\n"))
                    self._grown.notify_all()
        self.is_silent = True

    def wait_for(self, words: str, count: int = 1, within: float = 20) -> str:
        """Return the count-th line with `words`; fail when it has not come in time."""
        deadline = time.monotonic() + within
        with self._grown:
            while True:
                found = [line for line in self.lines if words in line]
                if len(found) >= count:
                    return found[count - 1]
                assert self._grown.wait(deadline - time.monotonic()), f"no {words!r} in:\n" + "\n".join(self.lines)

    @property
    def verdicts(self) -> list[str]:
        """The audit lines so far."""
        return [line for line in self.lines if line.startswith("verdict=")]

    def signal(self, number: int) -> None:
        """Send a signal to the daemon."""
        self.process.send_signal(number)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file with a mode."""
    path.write_text(text)
    path.chmod(mode)
    return path


def command(*arguments: str) -> list[str]:
    """Return the command line of doorwardd as this checkout has it."""
    return [sys.executable, "-m", "doorward", "doorwardd", *arguments]


def environment() -> dict[str, str]:
    """Return the environment in which the package of this checkout is found."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONWARNINGS": "error"}


@contextlib.contextmanager
def doorwardd(
    host: Namespace, folder: Path, access: str = ACCESS, config: str = "", *arguments: str, prefix: tuple[str, ...] = ()
) -> Iterator[Running]:
    """Yield a daemon in `host` that hears knocks; it is ended with the block."""
    write(folder / "access.conf", access)
    write(folder / "doorwardd.conf", f"FIREWALL_FILE {folder}/firewall.nft;\n{config}")
    files = ("-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf"), "-r", str(folder / "run"))
    argv = [*prefix, *command("-f", *files, *arguments)]
    with host.process(*argv, env=environment()) as process:
        running = Running(process, folder)
        reader = threading.Thread(target=running.take, daemon=True)
        reader.start()
        running.wait_for("listening for knocks")
        yield running
        process.terminate()
        process.wait(10)
        reader.join(10)


def used_store(folder: Path) -> None:
    """Make the replay store of a daemon that has run for long: knocks from before this start are not refused by it."""
    (folder / "run").mkdir(mode=0o700)
    ReplayStore(folder / "run/replay.db").close()


def send(client: Namespace, payload: bytes, address: str, port: int = 62201) -> None:
    """Send one datagram from a namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.inside(), socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(payload, (address, port))


def files(folder: Path) -> tuple[str, ...]:
    """The options that name a daemon's files in its folder, for the console."""
    return ("-c", f"{folder}/doorwardd.conf", "-a", f"{folder}/access.conf", "-r", f"{folder}/run")


def is_open(client: Namespace, address: str, port: int = 22, within: float = 1.0) -> bool:
    """Say whether a TCP connection to the port is accepted; a refusal is an answer too, and fails the test."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.inside(), socket.socket(family, socket.SOCK_STREAM) as dialler:
        dialler.settimeout(within)
        try:
            dialler.connect((address, port))
        except TimeoutError:
            return False
        return True


def eventually(condition: Callable[[], bool], within: float = 20) -> bool:
    """Say whether a condition comes true in time; one that costs a program's start is asked less often."""
    deadline = time.monotonic() + within
    while True:
        asked = time.monotonic()
        if condition():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(min(0.5, max(0.05, 2 * (time.monotonic() - asked))))


@contextlib.contextmanager
def listener(host: Namespace, port: int = 22) -> Iterator[socket.socket]:
    """Yield a TCP socket that accepts on every address of `host`, IPv4 and IPv6."""
    with host.inside():
        accepting = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    with accepting:
        yield accepting
