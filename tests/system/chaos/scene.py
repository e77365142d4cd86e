"""A host that things are done to, what was knocked on it, and the one check that follows each of them.

    with playing(pair, tmp_path) as scene:
        with scene.daemon() as daemon:
            knock = scene.knock()          # asks for a source of its own
            daemon.signal(signal.SIGKILL)
        with scene.daemon() as daemon:
            scene.check(daemon)

The kernel is the witness: `nft monitor` tells of every opening from the scene's start to its end, whoever made it and
whether or not it was logged.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from system.doorwardd import HMAC_KEY, KEY, Running, command, environment, eventually, files, is_open, listener, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from system.netns import Namespace

_WITNESS = "table inet witness {\n set seen { type ipv4_addr\n }\n}\n"
WINDOW = 1  # seconds that every door is open
SLACK = 1.0  # seconds: the kernel ends an element in time, a restored one is rounded up
STEPS = Path(__file__).with_name("steps.py")
ACCESS = f"SOURCE ANY\n{KEY}\n{HMAC_KEY}\nOPEN_PORTS tcp/22\nFW_ACCESS_TIMEOUT {WINDOW}\nREQUIRE_SOURCE_ADDRESS N\n"
_ADDED = re.compile(r"add element inet (?:doorward open4|witness seen) \{ ([0-9.]+) ")
PLANTED = "203.0.113.1"
_SAID_TWICE = 2  # each opening adds, deletes and adds its element in one transaction


@dataclass
class Knock:
    """A packet that was sent, the source that it asks for and the port that it came from."""

    source: str
    content: bytes
    port: int


@dataclass
class Witness:
    """What the kernel told of openings: when each source's door was first opened, and how often."""

    process: subprocess.Popen[str]
    first: dict[str, float] = field(default_factory=dict)
    additions: dict[str, int] = field(default_factory=dict)

    def take(self) -> None:
        """Collect until the monitor ends; runs in a thread of its own."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = _ADDED.match(line)
            if found:
                self.additions[found[1]] = self.additions.get(found[1], 0) + 1
                self.first.setdefault(found[1], time.monotonic())

    def times(self, source: str) -> int:
        """Return how often the door was opened for a source."""
        return self.additions.get(source, 0) // _SAID_TWICE


@dataclass
class Scene:
    """One host with a service behind its door, one client, and the knocks so far."""

    host: Namespace
    client: Namespace
    folder: Path
    witness: Witness
    knocks: list[Knock] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def files(self) -> tuple[str, ...]:
        """The options that name the daemon's files."""
        return files(self.folder)

    @contextlib.contextmanager
    def daemon(
        self, *, script: tuple[str, ...] = (), hears: bool = True, extra: dict[str, str] | None = None, **options: Any
    ) -> Iterator[Running]:
        """Yield a daemon that hears knocks; it is ended with the block. `script` runs in the place of doorwardd."""
        argv = [sys.executable, *script, "-f", *self.files] if script else command("-f", *self.files)
        with self.host.process(*argv, env={**environment(), **(extra or {})}, **options) as process:
            running = Running(process, self.folder)
            reader = threading.Thread(target=running.take, daemon=True)
            if collected := process.stderr is not None:
                reader.start()
            if hears:
                running.wait_for("listening for knocks")
            yield running
            process.terminate()
            process.wait(10)
            if collected:
                reader.join(10)

    def make(self, source: str | None = None) -> Knock:
        """Return a good knock that asks for a source of its own (or for `source`); it is not sent yet."""
        number = next(self._numbers)
        chosen = source or f"192.0.{2 + number // 250}.{1 + number % 250}"
        content = payload(message(text=f"{chosen},tcp/22", time=int(time.time())), KEYS)
        return Knock(chosen, content, 20_000 + number)

    def send(self, knock: Knock) -> Knock:
        """Send a knock, again or for the first time."""
        if knock not in self.knocks:
            self.knocks.append(knock)
        with self.client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("", knock.port))
            with contextlib.suppress(OSError):  # the network may be gone, which is the point
                sender.sendto(knock.content, (self.host.ipv4, 62201))
        return knock

    def knock(self, source: str | None = None) -> Knock:
        """Send a good knock from which a door opens for WINDOW seconds."""
        return self.send(self.make(source))

    def granted(self, daemon: Running, knock: Knock) -> str:
        """Return the audit line that grants a knock."""
        line = daemon.wait_for(f"origin_port={knock.port} ")
        assert "reason=granted" in line, line
        return line

    def open_sources(self) -> set[str]:
        """Return whose doors are open in the kernel now."""
        return set(self.remaining())

    def remaining(self) -> dict[str, int]:
        """Return whose doors are open in the kernel now, and for how many seconds more."""
        done = self.host.run("nft", "-j", "list", "set", "inet", "doorward", "open4", check=False)
        if done.returncode:
            return {}
        listed = [entry["set"] for entry in json.loads(done.stdout)["nftables"] if "set" in entry]
        elements = [element["elem"] for made in listed for element in made.get("elem", [])]
        return {element["val"]["concat"][0]: element["expires"] for element in elements}

    def wait_for_witness(self) -> None:
        """Wait until the monitor hears the kernel: until it tells of an element that is added for that."""
        adding = f"add element inet witness seen {{ {PLANTED} }}\ndelete element inet witness seen {{ {PLANTED} }}\n"
        assert eventually(lambda: self.host.nft(adding) == "" and PLANTED in self.witness.first)
        self.host.nft("delete table inet witness\n")

    def check(self, daemon: Running) -> None:
        """Assert what must hold after everything: good knocks granted, doors closed on time, no replay accepted."""
        assert any(self._lets_in(daemon) for _ in range(5)), "every door that was granted is shut"
        self._close_on_time()
        self._no_replay_is_accepted(daemon, list(self.knocks))

    def _lets_in(self, daemon: Running) -> bool:
        """Have a good knock granted and say whether its door is open; on a busy machine a window may end unseen."""
        self.granted(daemon, self.knock(self.client.ipv4))
        return is_open(self.client, self.host.ipv4)

    def _close_on_time(self) -> None:
        """Wait until nothing is open; assert that no door is open past its time, counted from its first opening."""
        begun = asked = time.monotonic()
        while sources := self.open_sources():  # which were open when it was asked, however long the answer takes
            for source in sources:
                known = [knock.source for knock in self.knocks]
                ours = source in known and known.count(source) == 1
                first = self.witness.first.get(source, begun) if ours else begun  # of several the last time counts
                late = asked - first - WINDOW
                assert late < SLACK, f"{source} is open {late:.1f} s past its time"
            time.sleep(0.1)
            asked = time.monotonic()
        assert not is_open(self.client, self.host.ipv4, within=0.2), "the door is open with nothing granted"

    def _no_replay_is_accepted(self, daemon: Running, knocks: list[Knock]) -> None:
        """Send everything twice again: what has opened a door does not again, what has not does once at the most."""
        opened = {knock.source: self.witness.times(knock.source) for knock in knocks}
        for knock in [*knocks, *knocks]:
            self.send(knock)
        last = self.knock()  # packets are judged in their order: when this one is granted, the others were judged
        self.granted(daemon, last)
        assert eventually(lambda: self.witness.times(last.source) == 1), "the witness is blind"
        for source, before in opened.items():
            again = self.witness.times(source) - before
            assert again <= (0 if before else 1), f"a replay was accepted: {source} opened {before} and {again} times"


@contextlib.contextmanager
def playing(pair: tuple[Namespace, Namespace]) -> Iterator[Scene]:
    """Yield a scene with nothing running yet; its folder can be read by everybody, as /etc can."""
    host, client = pair
    folder = Path(tempfile.mkdtemp(prefix="doorward-chaos-"))
    folder.chmod(0o755)
    write(folder / "access.conf", ACCESS)
    write(folder / "doorwardd.conf", f"FIREWALL_FILE {folder}/firewall.nft;\n", 0o644)
    try:
        host.nft(_WITNESS)  # before the monitor: one that is made while it starts is unknown to it for ever
        with listener(host), host.process("nft", "-n", "monitor", "elements") as process:
            witness = Witness(process)
            threading.Thread(target=witness.take, daemon=True).start()
            scene = Scene(host, client, folder, witness)
            scene.wait_for_witness()
            yield scene
    finally:
        shutil.rmtree(folder)


def listener_of(daemon: Running) -> int:
    """Return the process id of the listener, the helper's only child."""
    pid = daemon.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def ended(pid: int) -> bool:
    """Say whether a process is gone, or waits only to be asked how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
