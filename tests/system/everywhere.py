"""A hidden host, and hosts behind it: real sshd and doorwardd in namespaces, and a client with files of its own.

                        ┌ plain 10.80.0.2
client 10.77.0.2 ── web1 10.77.0.1
                        └ inner 10.81.0.2 ── deep 10.82.0.2
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from system import doorwardd, netns
from system.nat_lab import _line as line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
WEB1, CLIENT = "10.77.0.1", "10.77.0.2"
INNER, INSIDE, DEEP, DEEPER = "10.81.0.2", "10.81.0.1", "10.82.0.2", "10.82.0.1"
PLAIN, BESIDE = "10.80.0.2", "10.80.0.1"
RC = f"[default]\n{doorwardd.KEY}\n{doorwardd.HMAC_KEY}\n"
ACCESS = (
    f"SOURCE ANY\n{doorwardd.KEY}\n{doorwardd.HMAC_KEY}\n"
    "OPEN_PORTS tcp/22, tcp/2222, udp/60000-60010\nREQUIRE_SOURCE_ADDRESS Y\n"
)
GATEWAY = f"NAT_TARGETS {PLAIN}:22\n"
NAMES = {"web1": WEB1, "plain": PLAIN, "inner": INNER, "deep": DEEP}


@dataclass
class Place:
    """The namespaces, what runs in them, and the client's files."""

    client: Namespace
    outsider: Namespace
    hosts: dict[str, Namespace]
    folder: Path
    runtime: Path  # short, for sockets
    daemons: dict[str, Running] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The client's, with a home of its own."""
        own = {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.runtime), "PYTHONPATH": str(DAEMON)}
        return {"PATH": os.environ["PATH"], "LOGNAME": "alice", **own}

    def doorward(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `doorward` at the client."""
        return self.run(sys.executable, "-m", "doorward", *words)

    def run(self, *words: str, told: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program at the client, with a text on standard input."""
        return self.client.run(*words, env=self.environment(), check=False, input=told)

    def configure(self, *blocks: str) -> str:
        """Write the client's ssh_config: blocks in front of what every host has; return its path."""
        path = self.folder / "config"
        common = (
            f"Host *\n    User root\n    BatchMode yes\n    IdentityFile {self.folder}/client_key\n"
            f"    UserKnownHostsFile {self.folder}/known\n    HostKeyAlias lab\n    LogLevel ERROR\n"
        )
        names = "".join(f"Host {name}\n    HostName {there}\n" for name, there in NAMES.items())
        path.write_text("".join(blocks) + names + common)
        return str(path)

    def block(self, *words: str) -> str:
        """The lines of `doorward ssh-config`."""
        done = self.doorward("ssh-config", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ssh(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the real ssh with the client's files."""
        return self.run("ssh", "-F", str(self.folder / "config"), *words)

    def forget(self) -> None:
        """Close what is open, and end the shared connections to jump hosts."""
        for name in self.daemons:
            self.hosts[name].nft("flush set inet doorward open4\nflush set inet doorward open6")
        for control in (self.runtime / "doorward-ssh").glob("*"):
            if control.is_socket():
                self.run("ssh", "-F", "none", "-o", f"ControlPath={control}", "-O", "exit", "lab")

    def knocks(self, name: str) -> int:
        """Return how many knocks a host has answered with a line so far."""
        return len(self.daemons[name].verdicts)

    def comes_to(self, count: int, name: str) -> bool:
        """Say whether a host has answered so many knocks, and no more; its lines may come after the connection."""
        return doorwardd.eventually(lambda: self.knocks(name) >= count) and self.knocks(name) == count

    def sees(self, who: Namespace, address: str = WEB1, within: float = 0.3) -> bool:
        """Say whether anything comes back from port 22, be it a refusal."""
        with who.inside():
            dialler = socket.socket()
        with dialler:
            dialler.settimeout(within)
            try:
                dialler.connect((address, 22))
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
            return True


@contextlib.contextmanager
def place(folder: Path) -> Iterator[Place]:
    """Yield the lab; what belongs to it is closed."""
    with contextlib.ExitStack() as stack:
        web1, client, outsider = stack.enter_context(netns.network("web1", "client", "outsider"))
        plain, inner, deep = (stack.enter_context(netns.namespace(label)) for label in ("plain", "inner", "deep"))
        line(web1, f"{BESIDE}/24", plain, f"{PLAIN}/24", "beside")
        line(web1, f"{INSIDE}/24", inner, f"{INNER}/24", "inside")
        line(inner, f"{DEEPER}/24", deep, f"{DEEP}/24", "deeper")
        web1.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        plain.run("ip", "route", "add", "default", "via", BESIDE)
        runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dw-")))
        hosts = {"web1": web1, "plain": plain, "inner": inner, "deep": deep}
        made = Place(client, outsider, hosts, folder, runtime)
        _files(folder)
        for name, host in made.hosts.items():
            _sshd(stack, host, folder, name)
        assert made.sees(outsider, within=5)
        for name in ("web1", "inner", "deep"):
            (folder / name).mkdir()
            access, config = (ACCESS + GATEWAY, "ENABLE_IPT_FORWARDING Y\n") if name == "web1" else (ACCESS, "")
            running = doorwardd.doorwardd(made.hosts[name], folder / name, access, config)
            made.daemons[name] = stack.enter_context(running)
        yield made
        made.forget()


def _files(folder: Path) -> None:
    for name in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    (folder / "known").write_text(f"lab {(folder / 'host_key.pub').read_text()}")
    doorwardd.write(folder / ".fwknoprc", RC)
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own chroot for its unprivileged part


def _sshd(stack: contextlib.ExitStack, host: Namespace, folder: Path, name: str) -> None:
    log = folder / f"sshd-{name}.log"
    stream = stack.enter_context(log.open("w"))
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
    stack.enter_context(host.process(*command, stdout=stream, stderr=stream))
    end = time.monotonic() + 20
    while "Server listening on" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
