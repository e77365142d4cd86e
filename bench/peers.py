"""The daemons that are measured side by side, each in a namespace of its own with the same guarded echo service."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "daemon"), str(ROOT / "tests")]

from doorward.crypto import symmetric  # noqa: E402  the paths come first
from doorward.values import (
    Secret,  # noqa: E402
    SymmetricKeys,  # noqa: E402
)
from doorward.wire import fwknop  # noqa: E402
from doorward.wire.fwknop import Message, MessageType  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from system.netns import Namespace

KNOCK_PORT = 62201
ECHO_PORT = 7777
KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
ACCESS = f"SOURCE ANY\nKEY {'k' * 32}\nHMAC_KEY {'h' * 64}\nOPEN_PORTS udp/{ECHO_PORT}\nFW_ACCESS_TIMEOUT 30\n"
_ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", {ECHO_PORT}))
while True:
    s.sendto(*s.recvfrom(64))
"""
_GUARD = f"iptables -A INPUT -p udp --dport {ECHO_PORT} -j DROP"


@dataclass(frozen=True)
class Peer:
    """One daemon and how it is started in a namespace; `start` returns its process."""

    name: str
    start: Callable[[Namespace, Path], subprocess.Popen[bytes]]


def knock(source: str) -> bytes:
    """Return a fresh packet that asks for the echo service for `source`."""
    digits = "".join(str(byte % 10) for byte in os.urandom(16))
    text = f"{source},udp/{ECHO_PORT}"
    message = Message(digits, "bench", int(time.time()), fwknop.VERSION, MessageType.ACCESS, text)
    return symmetric.seal(fwknop.serialize(message), KEYS, os.urandom(8))


def _write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def _doorwardd(host: Namespace, folder: Path) -> subprocess.Popen[bytes]:
    config = _write(folder / "doorwardd.conf", f"FIREWALL_FILE {folder}/none.nft;\n")
    access = _write(folder / "access.conf", ACCESS)
    argv = [sys.executable, "-m", "doorward", "doorwardd", "-f", "-c", config, "-a", access, "-r", str(folder / "run")]
    return _start(host, folder, argv)


def _fwknopd(host: Namespace, folder: Path, extra: str) -> subprocess.Popen[bytes]:
    host.run("sh", "-c", _GUARD)
    config = _write(folder / "fwknopd.conf", f"PCAP_INTF eth0;\nFWKNOP_RUN_DIR {folder}/run;\n{extra}")
    access = _write(folder / "access.conf", ACCESS)
    return _start(host, folder, ["fwknopd", "-f", "-c", config, "-a", access])


def _fwknopd_default(host: Namespace, folder: Path) -> subprocess.Popen[bytes]:
    return _fwknopd(host, folder, "")


def _fwknopd_udp(host: Namespace, folder: Path) -> subprocess.Popen[bytes]:
    return _fwknopd(host, folder, f"ENABLE_UDP_SERVER Y;\nUDPSERV_PORT {KNOCK_PORT};\n")


def _start(host: Namespace, folder: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "log").open("wb")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    return subprocess.Popen(host.command(*argv), stdout=log, stderr=log, env=environment)


PEERS = (
    Peer("doorwardd", _doorwardd),
    Peer("fwknopd", _fwknopd_default),
    Peer("fwknopd-udp-server", _fwknopd_udp),
)


@contextlib.contextmanager
def running(peer: Peer, host: Namespace, folder: Path) -> Iterator[int]:
    """Yield the PID of a peer with its echo service, both ended with the block."""
    echo = subprocess.Popen(host.command(sys.executable, "-c", _ECHO))
    daemon = peer.start(host, folder)
    try:
        yield daemon.pid
    finally:
        for process in (daemon, echo):
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def add_sources(client: Namespace, count: int) -> list[str]:
    """Give `client` so many addresses of its own and return them."""
    sources = [f"10.77.{1 + number // 250}.{1 + number % 250}" for number in range(count)]
    commands = "".join(f"addr add {source}/16 dev eth0\n" for source in sources)
    client.run("ip", "-batch", "-", input=commands)
    return sources


def routes(*hosts: Namespace) -> None:
    """Let the hosts answer to the sources of add_sources()."""
    for host in hosts:
        host.run("ip", "route", "add", "10.77.0.0/16", "dev", "eth0")


def open_socket(client: Namespace, source: str, target: tuple[str, int]) -> socket.socket:
    """Return a connected UDP socket of a namespace, bound to one of its addresses."""
    with client.inside():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((source, 0))
    made.connect(target)
    made.setblocking(False)
    return made
