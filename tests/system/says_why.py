"""Causes why a host does not open, each injected for real, and the sentences of client and doctor.

`python -m system.says_why` prints the table of docs/client.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from doorward.linux.clock import UNSYNCHRONISED
from system import doorwardd, netns
from system.chaos.test_clock import faked, jump

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
BEYOND, PUBLIC, NOBODY, NOWHERE = "198.51.100.9", "203.0.114.9", "10.77.0.99", "203.0.113.9"
NAME = "web1"
NAMES = {"10.77.0.1": "HOST", "10.77.0.2": "ME", "10.77.0.3": "ROUTER"}
GOOD = f"[default]\n{doorwardd.KEY}\n{doorwardd.HMAC_KEY}\n"
ACCESS = doorwardd.ACCESS.replace("ADDRESS N", "ADDRESS Y").replace(", udp/7777", "")
FORBID = """\
table ip t { chain c {
    type filter hook forward priority 0; policy drop; meta l4proto udp reject with icmp admin-prohibited;
}; }
"""


@dataclass
class Scene:
    """A host with doorwardd and NTP, a client, and a router; a file of the client's and a clock for it."""

    host: Namespace
    client: Namespace
    router: Namespace
    folder: Path
    daemon: Running
    environment: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "doorward")

    def rc_file(self, text: str = GOOD) -> None:
        doorwardd.write(self.folder / "fwknoprc", text)

    def doorward(self, command: str, host: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the client, with its file."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LOGNAME": "alice"}
        environment |= {"PYTHONPATH": str(DAEMON), **self.environment}
        options = ("--rc-file", f"{self.folder}/fwknoprc", "--timeout", "1.4", *words, host)
        words = (sys.executable, *self.program, command, *options, *(["22"] if command == "connect" else []))
        return self.client.run(*words, check=False, env=environment, stdin=-3)

    def says(self, cause: Cause) -> Said:
        """What client and doctor say, without the parts that differ by machine."""
        with cause.inject(self):
            config = f"{self.folder}/ssh_config" if cause.host == NAME else "none"
            client = None
            if cause.called:
                client = self.doorward("connect", cause.host, *(["--timeout", "3.6"] if cause.waits else []))
            self.host.nft("flush set inet doorward open4")
            doctor = self.doorward("doctor", cause.host, "-F", config)
            self.host.nft("flush set inet doorward open4")
        shown = "" if client is None else plain(client.stderr, cause.host).splitlines()[-1]
        lines = [plain(line, cause.host) for line in doctor.stdout.splitlines()]
        told = next((line for line in lines if line.split()[:2] == list(cause.topic)), "")
        text = re.sub(r"^doorward: (\S+ port 22: )?|; try: doorward doctor \S+$", "", shown)
        return Said(text, re.sub(r" {2,}", " ", told.partition("  [")[0]), doctor)


@dataclass(frozen=True)
class Said:
    """The client's sentence, the doctor's line, and the doctor's run."""

    client: str
    line: str
    doctor: subprocess.CompletedProcess[str]

    def row(self, cause: Cause) -> str:
        client = f"`{self.client}`" if self.client else "nothing: ssh does not call it"
        return f"| {cause.name} | {client} | `{self.line}` |"


def plain(text: str, host: str) -> str:
    """A text with the names of the documentation, and without this machine's clock."""
    text = text.replace(f"; {UNSYNCHRONISED}", "").replace(sys.executable, "PYTHON")
    text = re.sub(rf"{re.escape(host)}\b", "HOST", text)
    for address in sorted(NAMES, key=len, reverse=True):
        text = text.replace(address, NAMES[address])
    text = re.sub(r"/\S+/fwknoprc", "~/.fwknoprc", text)
    return re.sub(r"\b3[56]\d\d s\b", "3600 s", text)


@dataclass(frozen=True)
class Cause:
    """One cause: how it comes about, whom the client calls then, and the doctor's line that tells it."""

    name: str
    topic: tuple[str, str]
    inject: Callable[[Scene], contextlib.AbstractContextManager[object]]
    host: str = "10.77.0.1"
    waits: bool = False  # long enough for the host's NTP
    called: bool = True


@contextlib.contextmanager
def file(scene: Scene, text: str) -> Iterator[None]:
    scene.rc_file(text)
    try:
        yield
    finally:
        scene.rc_file()


@contextlib.contextmanager
def wrong_key(scene: Scene) -> Iterator[None]:
    with file(scene, GOOD.replace("aGho", "aGhp")):
        yield
    scene.daemon.wait_for("reason=hmac")


@contextlib.contextmanager
def clock_ahead(scene: Scene) -> Iterator[None]:
    jump(scene.folder / "clock", "+1h")
    scene.environment = faked(scene.folder / "clock")
    try:
        yield
    finally:
        scene.environment = {}
    scene.daemon.wait_for("reason=future")


@contextlib.contextmanager
def rules(member: Namespace, text: str) -> Iterator[None]:
    member.nft(text)
    try:
        yield
    finally:
        member.nft(f"delete {' '.join(text.split()[:3])}")


def silent(port: str) -> str:
    return f"table ip t {{ chain c {{ type filter hook input priority 0; {port} drop; }}; }}"


@contextlib.contextmanager
def listening(scene: Scene) -> Iterator[None]:
    with doorwardd.listener(scene.host):
        yield


@contextlib.contextmanager
def jumped(scene: Scene) -> Iterator[None]:
    doorwardd.write(scene.folder / "ssh_config", f"Host {NAME}\n  HostName 10.77.0.1\n  ProxyJump 10.77.0.3\n")
    yield


@contextlib.contextmanager
def without_cryptography(scene: Scene) -> Iterator[None]:
    scene.program = ("-S", "-m", "doorward")  # which hides installed packages
    try:
        with file(scene, f"{GOOD}ENCRYPTION_MODE ctr\n"):
            yield
    finally:
        scene.program = Scene.program


CAUSES = (
    Cause("another key than the host's", ("no", "port"), wrong_key),
    Cause("the clock is an hour ahead", ("no", "clock"), clock_ahead, waits=True),
    Cause("a firewall on the way forbids UDP", ("no", "knock"), lambda scene: rules(scene.router, FORBID), BEYOND),
    Cause(
        "doorwardd does not run there",
        ("no", "knock"),
        lambda scene: rules(scene.router, silent("tcp dport 22")),
        "10.77.0.3",
    ),
    Cause("the host is down", ("no", "knock"), lambda _: contextlib.nullcontext(), NOBODY),
    Cause("this machine has no route", ("no", "route"), lambda _: contextlib.nullcontext(), NOWHERE),
    Cause("nothing listens behind the door", ("no", "port"), lambda _: contextlib.nullcontext()),
    Cause(
        "this machine's packet filter forbids the knock",
        ("no", "knock"),
        lambda scene: rules(scene.client, silent("udp dport 62201").replace("input", "output")),
    ),
    Cause("no key for this name", ("no", "key"), lambda scene: file(scene, "[default]\n[web2]\nKEY x\n")),
    Cause("the name has no address", ("no", "name"), lambda _: contextlib.nullcontext(), "web9.invalid"),
    Cause("behind NAT, and nothing is known of it", ("?", "source"), lambda _: contextlib.nullcontext(), PUBLIC),
    Cause(
        "ALLOW_IP names another machine",
        ("?", "source"),
        lambda scene: file(scene, f"{GOOD}ALLOW_IP 10.77.0.3\n"),
    ),
    Cause("ssh goes through another host", ("no", "ssh"), jumped, NAME, called=False),
    Cause("cryptography is missing", ("no", "packet"), without_cryptography),
)


@contextlib.contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Yield the scene, where all holds."""
    with netns.network("host", "client", "router") as (host, client, router), contextlib.ExitStack() as stack:
        host.run("ip", "addr", "add", f"{PUBLIC}/32", "dev", "lo")
        client.run("ip", "route", "add", PUBLIC, "via", host.ipv4)
        client.run("ip", "route", "add", f"{BEYOND}/32", "via", router.ipv4)
        router.run("ip", "route", "add", f"{BEYOND}/32", "via", host.ipv4)
        quiet = (f"net.ipv4.conf.{each}.send_redirects=0" for each in ("all", "eth0"))  # all of it is one link
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0", *quiet)
        client.run("sysctl", "-qw", "net.ipv4.neigh.eth0.mcast_solicit=1", "net.ipv4.neigh.eth0.retrans_time_ms=100")
        stack.enter_context(own_names(client))
        stack.enter_context(ntp(host))
        doorwardd.used_store(folder)
        made = Scene(host, client, router, folder, stack.enter_context(doorwardd.doorwardd(host, folder, ACCESS)))
        made.rc_file()
        yield made


@contextlib.contextmanager
def own_names(client: Namespace) -> Iterator[None]:
    """Resolve names by a file alone there (ip-netns(8))."""
    folder = Path("/etc/netns") / client.name
    folder.mkdir(parents=True)
    try:
        (folder / "nsswitch.conf").write_text("hosts: files\n")
        yield
    finally:
        (folder / "nsswitch.conf").unlink()
        folder.rmdir()


@contextlib.contextmanager
def ntp(host: Namespace) -> Iterator[None]:
    """A server of the true time (RFC 5905)."""
    with host.inside():
        inbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inbox.bind(("", 123))
    over = threading.Event()
    inbox.settimeout(0.1)
    thread = threading.Thread(target=_tell_time, args=(inbox, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        inbox.close()


def _tell_time(inbox: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            asked, peer = inbox.recvfrom(100)
            now = time.time() + 2_208_988_800
            stamp = struct.pack("!II", int(now), int(now % 1 * (1 << 32)))
            inbox.sendto(struct.pack("!BBBb", 0x24, 2, 6, -20) + bytes(20) + asked[40:48] + stamp + stamp, peer)


def table(made: Scene) -> Iterator[str]:
    """The rows of the documentation's table."""
    for cause in CAUSES:
        yield made.says(cause).row(cause)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, scene(Path(place)) as ready:
        for line in table(ready):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
