"""The owner of a host, at another place than the controller, with the keys from before a roll-out.

Whether a host can be entered is asked as its owner would find out: by a fresh knock and a new SSH connection. No grant
of an earlier knock lets one in, since each comes from an address that has not been used for longer than a grant lasts.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

from lab import hosts
from lab.network import outside
from lab.plan import IPV4_NETWORK, OUTSIDER, REPOSITORY, STATE
from lab.run import attempt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.trial import Trial

ADDRESSES = 16  # of each host's owner; one knock in two seconds, and grants of 6 or 7
FIRST_ADDRESS = 100
PAUSE = 2.0  # seconds between two knocks, beside two roll-outs on two processors
PATIENCE = 6  # seconds of one knock; a daemon that is started again misses none


@dataclass(slots=True)
class Owner:
    """Who knocks at one host, with copies of what was known before."""

    trial: Trial
    file: Path
    addresses: tuple[str, ...]
    _next: Iterator[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Begin with the first address."""
        self._next = cycle(self.addresses)

    def gets_in(self) -> bool:
        """Whether a fresh knock and a new SSH connection get in now."""
        host = self.trial.host
        words = [sys.executable, "-m", "doorward", "connect", "--rc-file", str(self.file), "-n", host.name]
        words += ["--bind-address", next(self._next), "--timeout", str(PATIENCE)]
        proxy = (f"-oProxyCommand={shlex.join(words)} %h %p", "-oProxyUseFdpass=yes")
        environment = ("env", f"PYTHONPATH={REPOSITORY / 'daemon'}", f"HOME={self.file.parent}")
        return attempt(*outside(*environment, *hosts.ssh_command(host, *proxy), "true")).returncode == 0


def owner_of(trial: Trial, number: int, folder: Path) -> Owner:
    """The owner of the host, who keeps the keys that open it now; `number` tells those of several hosts apart."""
    key, file = folder / "owner.key", folder / "owner.fwknoprc"
    shutil.copy(STATE / "client.key", key)
    file.touch(mode=0o600)
    line = trial.console("doorwardd", "keys", "show").strip()
    file.write_text(f"[{trial.host.name}]\nHOST_KEY {line}\nCLIENT_KEY_FILE {key}\n", encoding="utf-8")
    first = FIRST_ADDRESS + number * ADDRESSES
    interfaces = [IPV4_NETWORK.format(first + place) for place in range(ADDRESSES)]
    for interface in interfaces:
        attempt("ip", "-n", OUTSIDER, "address", "replace", interface, "dev", "eth0")
    return Owner(trial, file, tuple(interface.partition("/")[0] for interface in interfaces))


@dataclass(frozen=True, slots=True)
class Look:
    """One attempt to get in: when it began and ended, in seconds of the monotonic clock."""

    begun: float
    ended: float
    got_in: bool


def seconds_away(looks: list[Look]) -> float | None:
    """The seconds from the first attempt in vain to the end of the first that got in after all of those.

    0 where none was in vain; None where the last one was.
    """
    vain = [place for place, look in enumerate(looks) if not look.got_in]
    if not vain:
        return 0.0
    if vain[-1] == len(looks) - 1:
        return None
    return looks[vain[-1] + 1].ended - looks[vain[0]].begun


class Watch(threading.Thread):
    """Tries to get in, over and over, until it is ended."""

    def __init__(self, owner: Owner) -> None:
        """Wait to be started."""
        super().__init__(daemon=True)
        self._owner, self._over = owner, threading.Event()
        self.looks: list[Look] = []

    def run(self) -> None:
        """Look, and look again after a pause."""
        while not self._over.is_set():
            begun = time.monotonic()
            got_in = self._owner.gets_in()
            self.looks.append(Look(begun, time.monotonic(), got_in))
            self._over.wait(PAUSE)

    def got_in_since(self, moment: float) -> bool:
        """Whether the last attempt began after a moment, and got in."""
        return bool(self.looks) and self.looks[-1].got_in and self.looks[-1].begun >= moment

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


@contextmanager
def watching(owner: Owner) -> Iterator[Watch]:
    """A watch for as long as the block runs."""
    watch = Watch(owner)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()
