"""Containers of a fresh Debian with systemd, without a network: what the packages need comes from their image."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import doorward
from lab import hosts, images
from lab.containers import podman, podman_try
from lab.containers import words as podman_words

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY: Final = Path(__file__).parents[2]
NUMBERS: Final = {"debian-12": 12, "debian-13": 13}
NEXT: Final = f"{doorward.__version__}+next"
_DIAL: Final = """\
import socket, sys
try:
    socket.create_connection((sys.argv[1], 22), timeout=float(sys.argv[2])).close()
except TimeoutError:
    print("silence")
else:
    print("open")
"""


@dataclass(frozen=True)
class Machine:
    """A container with systemd."""

    system: str
    address: str
    name: str
    hostname: str

    def __call__(self, script: str, stdin: str = "") -> str:
        """What a shell script prints on it, as root."""
        return podman("exec", "--interactive", self.name, "sh", "-euc", script, stdin=stdin)

    def fails(self, script: str) -> str:
        """What a script prints that must fail."""
        done = podman_try("exec", "--interactive", self.name, "sh", "-euc", f"exec 2>&1; {script}")
        assert done.returncode != 0, done.stdout
        return done.stdout

    def words(self, command: str) -> list[str]:
        """The command line that gives a command to root's shell, as after a login."""
        login = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
        return podman_words("exec", "--interactive", self.name, *login, "LOGNAME=root", "bash", "-c", f"cd; {command}")

    def run(self, command: str, told: str = "") -> str:
        """All that a command prints."""
        done = subprocess.run(
            self.words(command), input=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        return done.stdout

    def start(self) -> None:
        """Boot it, and make it first where there is none."""
        if podman_try("container", "exists", self.name).returncode:
            image = images.build(self.system)
            options = ("--network=none", "--privileged", "--systemd=always", "--hostname", self.hostname, *hosts.LIMITS)
            podman("run", "--detach", "--name", self.name, *options, image, "/sbin/init")
        else:
            podman("start", self.name)
        self("until systemctl is-system-running | grep -qE 'running|degraded'; do sleep 0.1; done")

    def stop(self) -> None:
        """Shut it down; its file system stays."""
        podman("stop", "--time", "15", self.name)

    def remove(self) -> None:
        """Remove it with its file system."""
        podman_try("rm", "--force", "--time", "2", self.name)

    def take(self, folder: Path) -> None:
        """Get the files of a folder, as /root/new."""
        podman("exec", self.name, "rm", "-rf", "/root/new")
        podman("cp", str(folder), f"{self.name}:/root/new")

    def install(self, folder: Path) -> str:
        """Install both packages with apt."""
        self.take(folder)
        return self("DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install /root/new/*.deb 2>&1")

    def process(self) -> str:
        """The ID of its first process, seen from outside."""
        return podman("inspect", "--format", "{{.State.Pid}}", self.name).strip()

    def dial(self, address: str, seconds: float = 1.0) -> str:
        """What a connection to port 22 of an address meets: `open`, or `silence`."""
        return podman("exec", self.name, "python3", "-c", _DIAL, address, str(seconds)).strip()

    def pid(self) -> str:
        """The ID of doorwardd's process; 0 where it does not run."""
        return self("systemctl show --value -p MainPID doorwardd").strip()


@contextlib.contextmanager
def started(*machines: Machine) -> Iterator[None]:
    """Have new machines run."""
    with contextlib.ExitStack() as stack:
        for machine in machines:
            stack.callback(machine.remove)
            machine.remove()
            machine.start()
        yield


def listen_for_ssh(host: Machine) -> None:
    """Have sshd started in one of both ways in which Debian can do it."""
    ssh = "ssh.socket" if host.system == "debian-13" else "ssh.service"
    host(f"systemctl disable --now ssh.service ssh.socket; systemctl enable --now {ssh}")


def sshd_began_closed(host: Machine) -> bool:
    """Whether sshd started after doorwardd was ready, in this boot."""
    shown = host("systemctl show --value -p ActiveEnterTimestampMonotonic doorwardd ssh.socket ssh.service")
    ready, *sshd = map(int, shown.split())
    return any(sshd) and all(ready < began for began in sshd if began)


def built(folder: Path, version: str) -> Path:
    """The folder, with packages of a version."""
    program = REPOSITORY / "daemon/debian/build.py"
    subprocess.run([sys.executable, program, "--out", folder, "--version", version], check=True, capture_output=True)
    return folder
