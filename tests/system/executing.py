"""Stanzas that run commands, and what their commands leave to be seen."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.wire.fwknop import MessageType
from system.doorwardd import HMAC_KEY, KEY, doorwardd, eventually, send, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

BASE = f"SOURCE ANY\n{KEY}\n{HMAC_KEY}\nREQUIRE_SOURCE_ADDRESS N\n"


@dataclass(frozen=True)
class Trace:
    """A script that notes how it was called, one line a call: every argument in brackets."""

    script: Path
    file: Path

    @classmethod
    def make(cls, folder: Path, body: str = "", name: str = "trace") -> Trace:
        """Return a script in `folder` that then goes on with `body`, for whatever account runs it."""
        file = write(folder / f"{name}.out", "", 0o666)
        note = f'printf "[%s]" "$@" >> {file}; echo >> {file}\n'
        return cls(write(folder / name, f"#!/bin/sh\n{note}{body}\n", 0o755), file)

    @property
    def lines(self) -> list[str]:
        """The calls so far."""
        return self.file.read_text().splitlines()

    def wait_for(self, *lines: str, within: float = 20) -> None:
        """Fail when the calls do not become exactly these in time."""
        assert eventually(lambda: self.lines == list(lines), within), f"{self.lines} instead of {lines}"


def cycle(trace: Trace, seconds: int) -> str:
    """Return the lines of a stanza whose commands are traced."""
    opens = f"CMD_CYCLE_OPEN {trace.script} open $IP\n"
    return f"{opens}CMD_CYCLE_CLOSE {trace.script} close $IP\nCMD_CYCLE_TIMER {seconds}\n"


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(*argv: str) -> bool:
    """Say whether a process with this command line lives, wherever."""
    wanted = "\0".join(argv) + "\0"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_text() == wanted:
                return True
    return False


def knock(host: Namespace, client: Namespace, text: str = "0.0.0.0,tcp/22", **changes: Any) -> None:
    """Send one knock."""
    made = message(**{"text": text, "time": int(time.time())} | changes)
    send(client, payload(made, KEYS), host.ipv4)


def order(host: Namespace, client: Namespace, command: str) -> None:
    """Send one knock with a command of the client's own."""
    knock(host, client, f"0.0.0.0,{command}", type=MessageType.COMMAND)


def exec_pid(daemon: Running) -> int:
    """Return the PID of the doorward-exec of a daemon started by hand."""
    lock = daemon.folder / "run" / "exec" / "lock"
    assert eventually(lambda: lock.exists() and bool(lock.read_text().strip()))
    return int(lock.read_text())


def end_exec(daemon: Running, number: int = 15) -> None:
    """End the doorward-exec of a daemon, which else stays for what is open."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(exec_pid(daemon), number)


@contextlib.contextmanager
def executing(
    host: Namespace, folder: Path, stanza: str, config: str = "", *arguments: str, prefix: tuple[str, ...] = ()
) -> Iterator[Running]:
    """Yield a daemon with one stanza that runs commands; what is open at the end of the block stays open."""
    with doorwardd(host, folder, BASE + stanza, config, *arguments, prefix=prefix) as daemon:
        try:
            yield daemon
        finally:
            if (folder / "run" / "exec" / "lock").exists():
                end_exec(daemon)
