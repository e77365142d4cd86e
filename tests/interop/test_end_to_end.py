"""Each carrier with each message type, from a client's process to a connection: real daemons, real packet filters.

Every knock asks for an address of its own, from which the client then connects to port 22 of the host. Who answers says
what the daemon has done: the host's own service at that port, another one of the host under that port's number (local
NAT), or one behind it (NAT). A command leaves a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from doorward.values import DigestType, EncryptionMode
from doorward.wire.fwknop import WITH_NAT, MessageType
from interop.formats import COMBINATIONS, DAEMON_FILE, INNER, OPTIONS, PORT, SERVICE, TARGET
from interop.peers import TESTS, write_client_file
from interop.road import acceptor
from interop.road import road as addressed_road
from system import netns
from system.doorwardd import doorwardd, eventually, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interop.formats import Combination
    from system.netns import Namespace

CHOSEN: Final = tuple(
    combination
    for combination in COMBINATIONS
    if combination.digest is DigestType.SHA256
    and (combination.way.mode, combination.way.hmac) == (EncryptionMode.CBC, DigestType.SHA256)
)
WAY: Final = CHOSEN[0].way
STRANGER: Final = "10.128.255.1"
LOCAL: Final = frozenset({MessageType.LOCAL_NAT, MessageType.LOCAL_NAT_TIMEOUT})
EACH = pytest.mark.parametrize("combination", CHOSEN, ids=lambda one: f"{one.carrier}-{one.type.name.lower()}")


def access_file() -> str:
    """Return the stanza for both daemons; the ports are closed to everybody but those who knocked."""
    return (
        f"SOURCE ANY\n{WAY.lines()}OPEN_PORTS {SERVICE}, tcp/{INNER}\nFW_ACCESS_TIMEOUT 300\n"
        "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody\n"
    )


@dataclass(frozen=True)
class Scene:
    """A host with its services, a client with all the addresses it knocks for, and where commands leave files."""

    host: Namespace
    client: Namespace
    folder: Path
    log: Callable[[], str] = str

    @property
    def left(self) -> Path:
        """Where commands leave files."""
        return self.folder / "left"

    def options(self, combination: Combination) -> list[str]:
        """Return the words for either client."""
        what = OPTIONS[combination.type]
        if combination.type is MessageType.COMMAND:
            what = ("-C", f"touch {self.left}/{combination.source}")
        named = ("-n", WAY.name, "-a", str(combination.source), "-P", combination.carrier)
        return ["--rc-file", str(self.folder / "fwknoprc"), "--no-save-args", *named, *what]

    def answer(self, source: str, within: float = 5.0) -> str:
        """Return who answers a connection from `source` to the host's port 22; nobody is an empty text."""
        with self.client.inside(), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as dialler:
            dialler.settimeout(within)
            dialler.bind((source, 0))
            try:
                dialler.connect((self.host.ipv4, SERVICE.port))
                return dialler.recv(100).decode()
            except OSError:
                return ""

    def effect(self, combination: Combination) -> str:
        """Return what one knock has led to."""
        if combination.type is MessageType.COMMAND:
            there = eventually((self.left / str(combination.source)).exists, within=5)
            return "the command ran" if there else ""
        return self.answer(str(combination.source))


def expected(combination: Combination) -> str:
    """Return what a knock has to lead to."""
    if combination.type is MessageType.COMMAND:
        return "the command ran"
    if combination.type in LOCAL:
        return "ghost"
    return "behind" if combination.type in WITH_NAT else "host"


@contextlib.contextmanager
def service(where: Namespace, port: int, name: str) -> Iterator[None]:
    """Answer every connection with a name."""
    with where.inside():
        accepting = socket.create_server(("0.0.0.0", port))  # noqa: S104  in a namespace

    def serve() -> None:
        while True:
            try:
                connection, _ = accepting.accept()
            except OSError:  # closed: the block has ended
                return
            with connection, contextlib.suppress(OSError):
                connection.sendall(name.encode())

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield
    finally:
        accepting.shutdown(socket.SHUT_RDWR)
        accepting.close()
        server.join(10)


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    """Yield hosts, addresses and services; the inner host is behind the host."""
    with (
        addressed_road() as (host, client),
        netns.namespace("inner", 9) as inner,
        tempfile.TemporaryDirectory(prefix="dw", dir="/tmp") as name,
        service(host, SERVICE.port, "host"),
        service(host, INNER, "ghost"),
    ):
        host.run("ip", "link", "add", "inner0", "type", "veth", "peer", "name", "eth0", "netns", inner.name)
        for where, command in (
            (host, "addr add 192.168.1.1/24 dev inner0"),
            (host, "link set inner0 up"),
            (host, "route add 10.128.0.0/16 dev eth0"),
            (inner, f"addr add {TARGET}/24 dev eth0"),
            (inner, "link set eth0 up"),
            (inner, "route add default via 192.168.1.1"),
        ):
            where.run("ip", *command.split())
        addresses = [*(str(combination.source) for combination in CHOSEN), STRANGER]
        client.run("ip", "-batch", "-", input="".join(f"addr add {one}/32 dev eth0\n" for one in addresses))
        host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1")
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "left").mkdir()
        (folder / "left").chmod(0o777)
        write_client_file(folder)
        with service(inner, INNER, "behind"):
            yield Scene(host, client, folder)


@pytest.fixture(scope="module")
def fwknopd_by_doorward() -> Iterator[Scene]:
    """What our client's knocks have led to at a running fwknopd."""
    with scene() as made, acceptor(made.host), fwknopd(made) as log:
        assert made.answer(STRANGER, within=0.3) == ""
        lines = [json.dumps(made.options(combination)) for combination in CHOSEN]
        done = made.client.run(
            sys.executable,
            str(TESTS / "interop/our_client.py"),
            input="\n".join(lines),
            env={**os.environ, "HOME": str(made.folder), "PYTHONPATH": str(TESTS.parent / "daemon")},
        )
        assert {json.loads(line)[0] for line in done.stdout.splitlines()} == {0}, done.stdout
        yield replace(made, log=log.read_text)


@contextlib.contextmanager
def fwknopd(made: Scene) -> Iterator[Path]:
    """Run fwknopd on the host, which lets nothing in by itself; yield its log."""
    for chain in ("INPUT", "FORWARD"):
        made.host.run("iptables", "-P", chain, "DROP")
        made.host.run("iptables", "-A", chain, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
    made.host.run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "ACCEPT")
    write(made.folder / "access.conf", access_file())
    write(made.folder / "fwknopd.conf", DAEMON_FILE)
    files = ["-c", "fwknopd.conf", "-a", "access.conf", "-d", "digests", "-p", "pid", "-r", str(made.folder)]
    log = made.folder / "fwknopd.log"
    with (
        log.open("w") as out,
        made.host.process("fwknopd", "-f", *files, cwd=made.folder, stdout=out, stderr=out),
    ):
        assert eventually(lambda: "Starting fwknopd main event loop" in log.read_text()), log.read_text()
        yield log


@pytest.fixture(scope="module")
def doorwardd_by_fwknop() -> Iterator[Scene]:
    """What the real client's knocks have led to at a running doorwardd."""
    with scene() as made:
        config = f"{DAEMON_FILE}ENABLE_TCP_SERVER Y;\n"
        with doorwardd(made.host, made.folder, access_file(), config) as daemon:
            assert made.answer(STRANGER, within=0.3) == ""
            for combination in CHOSEN:
                made.client.run(
                    "fwknop",
                    *made.options(combination),
                    env={"HOME": str(made.folder), "PATH": "/usr/bin:/bin"},
                    stdin=subprocess.DEVNULL,
                )
            daemon.wait_for("verdict=", count=len(CHOSEN))
            yield replace(made, log=lambda: "\n".join(daemon.lines))


@EACH
def test_fwknopd_does_what_our_client_asks_for(combination: Combination, fwknopd_by_doorward: Scene) -> None:
    came = eventually(lambda: fwknopd_by_doorward.effect(combination) == expected(combination))
    assert came, fwknopd_by_doorward.log()


def test_fwknopd_lets_nobody_else_in(fwknopd_by_doorward: Scene) -> None:
    assert fwknopd_by_doorward.answer(STRANGER, within=0.3) == ""


@EACH
def test_doorwardd_does_what_fwknops_client_asks_for(combination: Combination, doorwardd_by_fwknop: Scene) -> None:
    assert doorwardd_by_fwknop.effect(combination) == expected(combination), doorwardd_by_fwknop.log()


def test_doorwardd_lets_nobody_else_in(doorwardd_by_fwknop: Scene) -> None:
    assert doorwardd_by_fwknop.answer(STRANGER, within=0.3) == ""
