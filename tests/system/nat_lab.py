"""A laptop behind two NATs and a public host, in namespaces: real masquerading, real sshd, a site that tells addresses.

client 192.168.1.23 ── home 192.168.1.1 ╌ 100.64.0.2 ── carrier 100.64.0.1 ╌ 203.0.114.7 ── host 203.0.114.9
                                                                                         └─ site 203.0.114.80
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from system import netns
from unit.client.web import certificate, site

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from system.netns import Namespace

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
HOST, CARRIER, OTHER, SITE = "203.0.114.9", "203.0.114.7", "203.0.114.8", "203.0.114.80"
OWN, HOME, BEHIND_CARRIER, GATEWAY = "192.168.1.23", "192.168.1.1", "100.64.0.2", "100.64.0.1"
MASQUERADE = """\
add table ip nat
flush table ip nat
table ip nat {{ chain c {{ type nat hook postrouting priority 100; oifname "{}" {}; }}; }}
"""


@dataclass
class Lab:
    """The namespaces, and the client's home."""

    client: Namespace
    home: Namespace
    carrier: Namespace
    host: Namespace
    web: Namespace
    folder: Path
    asked: list[str] = field(default_factory=list)  # the addresses that the site saw
    answer: str = ""  # of the site; empty is the asker's address

    def translate(self, words: str = "masquerade") -> None:
        """Have the carrier translate so."""
        self.carrier.nft(MASQUERADE.format("eth0", words))

    def carry(self, address: str) -> None:
        """Give the carrier this address alone."""
        self.carrier.run("ip", "-4", "addr", "flush", "dev", "eth0")
        self.carrier.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")

    def environment(self) -> dict[str, str]:
        """The client's, with a home of its own and the site's authority."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LOGNAME": "alice",
            "PYTHONPATH": str(DAEMON),
            "SSL_CERT_FILE": str(self.folder / "test.pem"),
        }

    def doorward(self, *words: str, told: str = "") -> subprocess.CompletedProcess[str]:
        """Run `doorward` at the client, with a text on standard input."""
        program = (sys.executable, "-m", "doorward")
        return self.client.run(*program, *words, check=False, env=self.environment(), input=told)

    def ssh(self, *options: str, words: str = "echo inside") -> subprocess.CompletedProcess[str]:
        """Run a command at the host through the real ssh."""
        own = ["BatchMode=yes", f"IdentityFile={self.folder}/client_key", f"UserKnownHostsFile={self.folder}/known"]
        flags = [flag for option in (*own, *options) for flag in ("-o", option)]
        command = ["ssh", "-F", "none", *flags, f"root@{HOST}", words]
        return self.client.run(*command, env=self.environment(), check=False)

    def ssh_that_knocks(self, *connect: str) -> subprocess.CompletedProcess[str]:
        """The same with `doorward connect` as ProxyCommand."""
        words = [sys.executable, "-m", "doorward", "connect", *connect]
        return self.ssh(f"ProxyCommand={' '.join(words)} %h %p", "ProxyUseFdpass=yes")

    def tell(self, connection: socket.socket, _request: str) -> None:
        """Answer as the site."""
        peer = connection.getpeername()[0]
        self.asked.append(peer)
        body = (self.answer or peer).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[tuple[Lab, str]]:
    """Yield the lab with sshd running, and the URL of the site."""
    with contextlib.ExitStack() as stack:
        host, carrier, web = stack.enter_context(netns.network("host", "carrier", "web"))
        home, client = (stack.enter_context(netns.namespace(label)) for label in ("home", "client"))
        for member, there in ((host, HOST), (carrier, CARRIER), (web, SITE)):
            member.run("ip", "-4", "addr", "flush", "dev", "eth0")
            member.run("ip", "addr", "add", f"{there}/24", "dev", "eth0")
        _line(client, f"{OWN}/24", home, f"{HOME}/24", "lan")
        _line(home, f"{BEHIND_CARRIER}/24", carrier, f"{GATEWAY}/24", "access")
        client.run("ip", "route", "add", "default", "via", HOME)
        home.run("ip", "route", "add", "default", "via", GATEWAY)
        for router in (home, carrier):
            router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        home.nft(MASQUERADE.format("access", "masquerade"))
        made = Lab(client, home, carrier, host, web, folder)
        made.translate()
        _keys(folder)
        stack.enter_context(_sshd(host, folder))
        pem = certificate(folder, SITE)
        stack.enter_context(web.inside())  # all of this lab's programs name their namespace
        yield made, stack.enter_context(site(made.tell, pem, SITE))


def _line(one: Namespace, own: str, other: Namespace, there: str, name: str) -> None:
    subprocess.run(
        ["ip", "-n", one.name, "link", "add", name, "type", "veth", "peer", "name", name, "netns", other.name],
        check=True,
        capture_output=True,
    )
    for member, address in ((one, own), (other, there)):
        member.run("ip", "addr", "add", address, "dev", name)
        member.run("ip", "link", "set", name, "up")


def _keys(folder: Path) -> None:
    for name in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    (folder / "known").write_text(f"{HOST} {(folder / 'host_key.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPidFile none\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own chroot for its unprivileged part


@contextlib.contextmanager
def _sshd(host: Namespace, folder: Path) -> Iterator[None]:
    log = folder / "sshd.log"
    with log.open("w") as stream:
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
        with host.process(*command, stdout=stream, stderr=stream):
            end = time.monotonic() + 20
            while "Server listening on" not in log.read_text():
                assert time.monotonic() < end
                time.sleep(0.02)
            yield
