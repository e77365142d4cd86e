"""Hosts whose port 22 is behind a door: a real sshd each, with doorwardd, Debian's fwknopd or nothing before it.

What ssh.py and playbook.py share: the hosts, the files of a client, and what a command took on it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import peers

from doorward import archive
from doorward.config import private_key
from doorward.config.private_key import KeyPair
from doorward.crypto import doorward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from system.netns import Namespace

INTERPRETER: Final = "/usr/bin/python3"  # with the distribution's python3-cryptography
WINDOW_SECONDS: Final = 30
SSH_PORT, OPEN_PORT = 22, 2222  # the same sshd; the daemons guard the first one alone
READY_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 0.15  # without an answer a port counts as closed; an open one here answers within 1 ms
REST_SECONDS: Final = 0.4  # after a question that was answered: sshd has begun a process for it
_GUARD: Final = (
    "iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"
    f" && iptables -A INPUT -p tcp --dport {SSH_PORT} -j DROP"
    f" && iptables -A INPUT -p udp --dport {peers.KNOCK_PORT} -j DROP"
)


@dataclass(frozen=True)
class Host:
    """A host, the log of its daemon, and the command that ends all grants."""

    namespace: Namespace
    log: Path
    closing: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The address that ssh dials."""
        return self.namespace.ipv4

    @property
    def knocks(self) -> int:
        """How many packets doorwardd has judged so far, granted or not."""
        return count_verdicts(self.log.read_text(encoding="utf-8", errors="replace"))

    def is_open(self, client: Namespace, port: int = SSH_PORT) -> bool:
        """Whether the port answers the client."""
        with client.inside():
            dialler = socket.socket()
        with dialler:
            dialler.settimeout(SILENCE_SECONDS)
            try:
                dialler.connect((self.address, port))
            except OSError:
                return False
        time.sleep(REST_SECONDS)
        return True

    def await_listening(self) -> None:
        """Wait until doorwardd hears, and has closed what it guards."""
        end = time.monotonic() + READY_SECONDS
        while "listening for knocks" not in self.log.read_text(encoding="utf-8", errors="replace"):
            if time.monotonic() > end:
                message = f"doorwardd in {self.namespace.name} does not start: {self.log.read_text()}"
                raise SystemExit(message)
            time.sleep(0.02)

    def close(self) -> None:
        """End all grants."""
        self.namespace.run(*self.closing)


def count_verdicts(log: str) -> int:
    """The packets that a log of doorwardd speaks of."""
    return sum(line.startswith("verdict=") for line in log.splitlines())


@dataclass(frozen=True)
class Cost:
    """What a command took: the time until it ended, and the CPU time of it and of all that it waited for."""

    wall_ms: float
    cpu_ms: float


def median(costs: Sequence[Cost], unit: str) -> float:
    """The median of `wall_ms` or `cpu_ms`."""
    values: list[float] = [getattr(cost, unit) for cost in costs]
    return statistics.median(values)


def more(costs: Sequence[Cost], plain: Sequence[Cost], unit: str) -> float:
    """The median of what each took more than the plain one of the same turn."""
    pairs = zip(costs, plain, strict=True)
    values: list[float] = [getattr(cost, unit) - getattr(base, unit) for cost, base in pairs]
    return statistics.median(values)


def timed(client: Namespace, argv: Sequence[str], environment: dict[str, str], log: Path) -> Cost:
    """Run a command at the client.

    Raises:
        SystemExit: it failed; the text has what it printed.
    """
    with log.open("wb") as stream, client.inside():
        start = time.perf_counter()
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        _pid, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = f"{' '.join(argv)}: exit {process.returncode}\n{log.read_text(errors='replace')[-4000:]}"
        raise SystemExit(message)
    return Cost(took * 1000, (usage.ru_utime + usage.ru_stime) * 1000)


def await_ready(ways: Iterable[Callable[[], Cost]]) -> None:
    """Go each way until it leads through once: the daemons have started, and everything is warm."""
    for go in ways:
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                go()
                break
            except SystemExit:
                if time.monotonic() > end:
                    raise


def write_keys(folder: Path) -> None:
    """Make the keys of sshd and of the one who logs in, sshd's settings, and both sides' key pairs of doorward 1."""
    for name in ("host.pair", "client.pair"):
        private = doorward.generate(os.urandom)
        _write(folder / name, private_key.text(KeyPair(private, doorward.public_key(private), name)))
    for name in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
    (folder / "known_hosts").write_text(f"door {(folder / 'host_key.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        f"Port {SSH_PORT}\nPort {OPEN_PORT}\nPermitRootLogin yes\nPidFile none\nSubsystem sftp internal-sftp\n"
        "MaxStartups 100\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own chroot for its unprivileged part


def public_line(pair: Path) -> str:
    """The public half of a file with a key pair, as access.conf and ~/.fwknoprc have it."""
    return str(private_key.parse(str(pair), pair.read_bytes()).public)


def login(folder: Path) -> str:
    """The lines of ssh_config by which the client logs in."""
    return (
        f"Host *\n    User root\n    BatchMode yes\n    IdentityFile {folder}/client_key\n    HostKeyAlias door\n"
        f"    UserKnownHostsFile {folder}/known_hosts\n"
    )


def build_archive(folder: Path) -> Path:
    """The package as the one file that hosts and clients run."""
    made = folder / "doorward.pyz"
    archive.build(made)
    return made


@contextlib.contextmanager
def open_host(namespace: Namespace, folder: Path) -> Iterator[Host]:
    """Yield a host that anybody reaches."""
    with _sshd(namespace, folder):
        yield Host(namespace, folder / "none")


@contextlib.contextmanager
def hidden_host(namespace: Namespace, folder: Path, program: Path, keys: str) -> Iterator[Host]:
    """Yield a host behind doorwardd, which guards port 22; whether it hears already is not said.

    Its first stanza is for `keys`, its second for the client's key pair.
    """
    home = folder / namespace.name
    home.mkdir(mode=0o700)
    _write(home / "doorwardd.conf", f"FIREWALL_FILE {home}/none.nft;\nHOST_KEY_FILE {folder}/host.pair;\n")
    _write(home / "access.conf", _stanza(keys) + _stanza(f"CLIENT {public_line(folder / 'client.pair')}\n"))
    files = ("-c", str(home / "doorwardd.conf"), "-a", str(home / "access.conf"), "-r", str(home / "run"))
    argv = [INTERPRETER, "-I", str(program), "doorwardd", "-f", *files]
    with _sshd(namespace, folder), _daemon(namespace, argv, home / "log"):
        yield Host(namespace, home / "log", ("nft", "flush set inet doorward open4"))


@contextlib.contextmanager
def fwknop_host(namespace: Namespace, folder: Path, keys: str) -> Iterator[Host]:
    """Yield a host behind Debian's fwknopd in its default mode, closed by iptables as fwknop's manual has it."""
    home = folder / namespace.name
    home.mkdir(mode=0o700)
    _write(home / "fwknopd.conf", f"PCAP_INTF eth0;\nFWKNOP_RUN_DIR {home}/run;\n")
    _write(home / "access.conf", _stanza(keys))
    namespace.run("sh", "-c", _GUARD)
    argv = ["fwknopd", "-f", "-c", str(home / "fwknopd.conf"), "-a", str(home / "access.conf")]
    with _sshd(namespace, folder), _daemon(namespace, argv, home / "log"):
        yield Host(namespace, home / "log", ("iptables", "-F", "FWKNOP_INPUT"))


def _stanza(keys: str) -> str:
    return f"SOURCE ANY\n{keys}OPEN_PORTS tcp/{SSH_PORT}\nFW_ACCESS_TIMEOUT {WINDOW_SECONDS}\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


@contextlib.contextmanager
def _sshd(host: Namespace, folder: Path) -> Iterator[None]:
    log = folder / f"sshd-{host.number}.log"
    # The home of the one who logs in is empty: what a shell of this machine reads first is not measured.
    script = f"mount -t tmpfs none /root && exec /usr/sbin/sshd -D -e -f {folder}/sshd_config"
    with _daemon(host, ["sh", "-c", script], log):
        end = time.monotonic() + READY_SECONDS
        while log.read_text().count("Server listening on 0.0.0.0") < len((SSH_PORT, OPEN_PORT)):
            if time.monotonic() > end:
                message = f"sshd in {host.name} does not start: {log.read_text()}"
                raise SystemExit(message)
            time.sleep(0.02)
        yield


@contextlib.contextmanager
def _daemon(host: Namespace, argv: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as stream, host.process(*argv, stdout=stream, stderr=stream):
        yield


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    return "\n".join(lines)
