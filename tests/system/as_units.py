"""The daemons as their units start them, each under strace(1), with every file where it is on a host.

The listener is the user doorward, doorward-exec and the helper are root, all of them are the distribution's Python.
The files are those of mount namespaces: /etc, /usr, /var, /run, /root and /home are the machine's with others over
them. What systemd does for a unit is done here: sockets, their modes, LISTEN_FDS, NOTIFY_SOCKET. Its sandbox is absent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Template

import programs
from doorward import archive
from system import apparmor_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.apparmor_rules import Access
    from system.netns import Namespace

ROLE: Final = Path(__file__).parents[2] / "collections/ansible_collections/doorward/spa/roles/daemon"
ARCHIVE: Final = "/usr/lib/doorward/doorward.pyz"
USER: Final = 61622  # doorward's number
GUEST: Final = 61623  # a person's, at the client
_OWN: Final = """\
set -e
mount -t tmpfs own "$1"
for folder in /etc /usr /var; do
    mkdir -p "$1$folder/upper" "$1$folder/work"
    mount -t overlay -o "lowerdir=$folder,upperdir=$1$folder/upper,workdir=$1$folder/work" own "$folder"
done
mount -t tmpfs -o mode=700 own /root
mount -t tmpfs -o mode=755 own /home
mount -t tmpfs -o mode=755 own /run
mkdir -p /run/systemd /etc/doorward /usr/lib/doorward /var/cache/doorward /var/log/doorward
mkdir -p /var/lib/prometheus/node-exporter /home/ann
mkdir -m 0711 /run/doorward
mkdir -m 0700 /run/doorward-gnupg /var/lib/doorward /var/lib/doorward-exec
echo "doorward:x:{user}:{user}::/nonexistent:/usr/sbin/nologin" >> /etc/passwd
echo "doorward:x:{user}:" >> /etc/group
echo "ann:x:{guest}:{guest}::/home/ann:/bin/sh" >> /etc/passwd
chown {user}:{user} /run/doorward-gnupg /var/lib/doorward
chown {guest}:{guest} /home/ann
chmod 0700 /home/ann
echo ready
exec sleep 3600
"""
_STARTED: Final = """\
cd /
exec {moves}
export LISTEN_PID=$$ LISTEN_FDS={count} NOTIFY_SOCKET=/run/systemd/notify
exec strace {detached} -f --seccomp-bpf -y -s 300 -e signal=none -e trace={calls} -o "$0" setpriv {account} "$@"
"""


@dataclass
class Host:
    """A host's network, its files, and the traces of what runs there, by the name of the process."""

    ns: Namespace
    keeper: int
    folder: Path
    traces: dict[str, Path] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Its files, from outside."""
        return Path(f"/proc/{self.keeper}/root")

    def words(self, *argv: str, network: Namespace | None = None) -> list[str]:
        """The command line that runs `argv` among its files, in its network or in another one."""
        inside = ("nsenter", "-t", str(self.keeper), "-m", "--", *argv)
        return (network or self.ns).command(*inside)

    def traced(self, name: str, account: tuple[str, ...], *argv: str, given: int | None = None) -> list[str]:
        """The command line of a program under strace, with a descriptor as systemd hands it over."""
        programs.require("strace")
        self.traces[name] = self.folder / f"{name}.strace"
        moves = "" if given is None else f"3<&{given}"
        detached = "-D" if argv[-1] in {"--helper", "--listener", "--exec"} else ""  # a unit keeps its PID
        calls, count = ",".join(apparmor_rules.CALLS), int(given is not None)
        text = _STARTED.format(detached=detached, moves=moves, count=count, calls=calls, account=" ".join(account))
        return ["bash", "-c", text, str(self.traces[name]), *argv]

    @contextlib.contextmanager
    def unit(self, name: str, *arguments: str, user: str = "root", given: socket.socket | None = None) -> Iterator[int]:
        """One daemon, until the block ends; its PID."""
        account = ("--reuid", user, "--regid", user, "--clear-groups")
        number = None if given is None else given.fileno()
        daemon = ("/usr/bin/python3", "-I", ARCHIVE, "doorwardd", *arguments)
        command = self.words(*self.traced(name, account, *daemon, given=number))
        passed = [] if number is None else [number]
        with (
            (self.folder / f"{name}.log").open("wb") as log,
            subprocess.Popen(command, stderr=log, pass_fds=passed, env={"PATH": os.environ["PATH"]}) as process,
        ):
            try:
                yield process.pid
            finally:
                process.send_signal(signal.SIGTERM)

    def person(self, network: Namespace, *command: str, name: str = "doorward-client") -> str:
        """What a command of the person at the client prints; the trace has the name of a profile."""
        account = ("--reuid", "ann", "--regid", str(GUEST), "--clear-groups", "env", "HOME=/home/ann")
        words = self.words(*self.traced(name, account, *command), network=network)
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def planted(self, name: str, code: str) -> None:
        """Trace a line of Python, as root."""
        account = ("--reuid", "root", "--regid", "root", "--clear-groups")
        words = self.words(*self.traced(name, account, "/usr/bin/python3", "-I", "-c", code))
        subprocess.run(words, check=True, capture_output=True, timeout=60)

    def accesses(self, name: str) -> set[Access]:
        """What the program of a trace needed."""
        return apparmor_rules.accesses(self.traces[name].read_text("utf-8"), "/usr/bin/python3", self.root)

    def log(self, name: str) -> str:
        """What a daemon has said."""
        return (self.folder / f"{name}.log").read_text("utf-8")

    def wait_for(self, name: str, words: str, count: int = 1, within: float = 120) -> None:
        """Wait for words in a daemon's log."""
        deadline = time.monotonic() + within
        while self.log(name).count(words) < count:
            assert time.monotonic() < deadline, f"no {words!r} in:\n{self.log(name)}"
            time.sleep(0.05)

    def bound(self, path: str, kind: socket.SocketKind, mode: int = 0o600, owner: int = USER) -> socket.socket:
        """A Unix socket among the host's files."""
        made = socket.socket(socket.AF_UNIX, kind)
        place = self.root / path.lstrip("/")
        made.bind(str(place))
        os.chown(place, owner, owner)
        place.chmod(mode)
        return made

    def write(self, path: str, text: str, mode: int = 0o600, owner: int = 0) -> None:
        """A file of the host."""
        place = self.root / path.lstrip("/")
        place.write_text(text, "utf-8")
        place.chmod(mode)
        os.chown(place, owner, owner)


@contextlib.contextmanager
def host(ns: Namespace, folder: Path) -> Iterator[Host]:
    """A host without a running daemon; `folder` takes the traces and the logs."""
    own = folder / "own"
    own.mkdir()
    text = _OWN.format(user=USER, guest=GUEST)
    with ns.process("unshare", "--mount", "sh", "-euc", text, "sh", str(own)) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "ready\n", keeper.stderr and keeper.stderr.read()
        made = Host(ns, keeper.pid, folder)
        archive.build(made.root / ARCHIVE.lstrip("/"))
        launcher = Template((ROLE / "templates/launcher.j2").read_text("utf-8"), trim_blocks=True)
        made.write(
            "/usr/bin/doorward", launcher.render(item={"arguments": ""}, doorward_python="/usr/bin/python3"), 0o755
        )
        # Root's first command keeps the compiled code, which the daemons read.
        subprocess.run(made.words("/usr/bin/doorward", "--version"), check=True, capture_output=True)
        yield made


@contextlib.contextmanager
def daemons(on: Host, access: str, settings: str) -> Iterator[int]:
    """All three of them, from READY until they are told to end; the PID of the listener."""
    on.write("/etc/doorward/access.conf", access)
    on.write("/etc/doorward/doorwardd.conf", settings, 0o644)
    with contextlib.ExitStack() as stack:
        notified = stack.enter_context(on.bound("/run/systemd/notify", socket.SOCK_DGRAM, 0o666))
        notified.settimeout(150)
        helpers, execs = (
            stack.enter_context(on.bound(f"/run/doorward/{name}.sock", socket.SOCK_SEQPACKET))
            for name in ("helper", "exec")
        )
        helpers.listen()
        execs.listen()
        stack.enter_context(on.unit("doorward-exec", "--exec", given=execs))
        with _told(on):
            assert notified.recv(100) == b"READY=1"
        stack.enter_context(on.unit("doorward-helper", "--helper", given=helpers))
        process = stack.enter_context(on.unit("doorward-listener", "--listener", user="doorward"))
        with _told(on):
            while not notified.recv(4096).startswith(b"READY=1"):
                pass
        yield process


@contextlib.contextmanager
def _told(on: Host) -> Iterator[None]:
    """What the daemons have said, where one does not become ready."""
    try:
        yield
    except TimeoutError as error:
        raise AssertionError("".join(file.read_text("utf-8") for file in on.folder.glob("*.log"))) from error
