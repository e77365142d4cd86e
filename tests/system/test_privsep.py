"""A taken-over listener can do nothing but what a stanza allows; a taken-over worker of gpg, nothing but its work."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.config import private_key
from doorward.config.private_key import KeyPair
from doorward.crypto.doorward import public_key
from doorward.linux import privileges
from doorward.values import PublicKey, Secret
from system import netns
from system.doorwardd import HMAC_KEY, KEY, command, doorwardd, environment, eventually, send, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

SCRIPT = Path(__file__).with_name("taken_over.py")
ACCESS = f"SOURCE 192.0.2.0/24\n{KEY}\n{HMAC_KEY}\nOPEN_PORTS tcp/22\n"
CLIENT = PublicKey(bytes([7]) * 32)
REFUSED = {
    "connect the UDP server's socket": "PermissionError",
    "send on the UDP server's socket": "PermissionError",
    "write on the UDP server's socket": "OSError",  # EDESTADDRREQ: it has no peer, and connect is refused
    "change the UDP server's socket": "PermissionError",
    "open an INET socket": "PermissionError",
    "open an INET6 socket": "PermissionError",
    "open a PACKET socket": "PermissionError",
    "open a NETLINK socket": "PermissionError",
    "open a UNIX socket": "PermissionError",
    "send on the capture socket": "PermissionError",
    "send to an address on the capture socket": "PermissionError",
    "write on the capture socket": "OSError",  # ENXIO: it is bound to no interface, and bind is refused
    "rebind the capture socket": "PermissionError",
    "take the capture filter off": "PermissionError",
    "be root again": "PermissionError",
    "run a program": "PermissionError",
    "trace the helper": "PermissionError",
    "write another PID into the PID file": "KeyError",  # no such descriptor
    "kill the helper": "PermissionError",
    "fork": "PermissionError",
    "make a user namespace in a child": "PermissionError",
    "make one by clone3": "OSError",  # ENOSYS, so that threads are made another way
    "signal itself as any process of its user": "PermissionError",
    "type into the terminal": "PermissionError",
    "open the terminal": "OSError",  # ENXIO: its session has none
    "have a process of its user signalled": "PermissionError",
    "choose the signal": "PermissionError",
    "set the limits of a process of its user": "PermissionError",
    "make memory that is written and run": "PermissionError",
    "be in a thread that was there before": "PermissionError",
    "leave its namespaces": "PermissionError",
    "use io_uring": "PermissionError",
    "read /etc/shadow": "PermissionError",
    "read access.conf": "PermissionError",
    "write outside its state": "PermissionError",
    "open another port": "refused: no stanza allows it: tcp/23 is not in OPEN_PORTS",
    "open a longer window": "refused: no stanza allows it: window 301",
    "open for another network": "refused: no stanza allows it: source 198.51.100.1",
    "lead connections to another port": "refused: no stanza allows it: local NAT",
    "lead connections to another host": "refused: no stanza allows it: forwarding",
    "have AUDIT_FILE opened where none is configured": "no AUDIT_FILE is configured",
    "let more tags pass than clients have": "refused: 4 tags, where 3 can be live",
    "let them pass in several messages": "refused: 7 tags, where 3 can be live",
    "let tags of another time pass": "refused: tags of an epoch that is +9 from now",
    "let others pass at once": "refused: tags a second time within 1 s",
    "send the helper nonsense": "it ended",
}


class Screen:
    """A terminal's other end."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self) -> bytes:
        """The next output, or b"" when no process has the terminal any more."""
        try:
            return os.read(self.descriptor, 65536)
        except OSError:
            return b""

    def read_to(self, words: bytes) -> bytes:
        """The output up to these words."""
        shown = b""
        while words not in shown:
            more = self.read()
            assert more, shown.decode()
            shown += more
        return shown


@contextlib.contextmanager
def terminal(host: Namespace, *argv: str) -> Iterator[tuple[subprocess.Popen[str], Screen]]:
    """Run a program on a new terminal; yield its process and the terminal."""
    ours, theirs = os.openpty()
    standard = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    try:
        with host.process("setsid", "--ctty", *argv, **standard, env=environment()) as process:
            os.close(theirs)
            yield process, Screen(ours)
    finally:
        os.close(ours)


def report(shown: bytes) -> dict[str, str]:
    """The outcomes that an intruder printed on its terminal."""
    (line,) = (line for line in shown.decode().splitlines() if line.endswith("}"))
    found: dict[str, str] = json.loads(line[line.index("{") :])  # after what it typed
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("taken_over")
    write(folder / "access.conf", f"{ACCESS}SOURCE 192.0.2.0/24\nCLIENT {CLIENT}\nOPEN_PORTS tcp/80\n")
    pair = KeyPair(Secret(b"h" * 32), public_key(Secret(b"h" * 32)))
    write(folder / "host.key", private_key.text(pair))
    write(
        folder / "doorwardd.conf",
        f"FIREWALL_FILE {folder}/none.nft;\nHOST_KEY_FILE {folder}/host.key\n"
        "ENABLE_UDP_SERVER Y\nUDPSERV_PORT 53\nPCAP_FILTER udp port 62201\n",
    )
    files = ("-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf"), "-r", str(folder / "run"))
    with netns.network("host") as (host,), terminal(host, sys.executable, str(SCRIPT), "-f", *files) as (_, screen):
        yield report(b"".join(iter(screen.read, b"")))


@pytest.mark.parametrize("attempt", REFUSED)
def test_a_listener_that_was_taken_over_cannot(outcomes: dict[str, str], attempt: str) -> None:
    assert outcomes[attempt] == REFUSED[attempt]


def test_the_attempts_would_have_been_seen_to_succeed(outcomes: dict[str, str]) -> None:
    """The same program can do what is allowed, so a refusal is a refusal and not a broken program."""
    allowed = {"open what a stanza allows", "start a thread", "let strangers' tags pass"}  # which open no door
    assert {attempt: outcomes[attempt] for attempt in allowed} == dict.fromkeys(allowed, "done")
    assert set(outcomes) == {*REFUSED, *allowed}


def processes(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_listener_has_no_capability_and_the_helper_has_three(pair: Pair, tmp_path: Path) -> None:
    with doorwardd(pair[0], tmp_path) as daemon:
        (listener,) = processes(daemon.process.pid)
        theirs, ours = status(listener), status(daemon.process.pid)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(theirs[name], 16) == 0, name
    assert int(ours["CapEff"], 16) == int(ours["CapBnd"], 16) == 1 << 10 | 1 << 12 | 1 << 13
    assert (theirs["Seccomp"], theirs["NoNewPrivs"], ours["NoNewPrivs"]) == ("2", "1", "1")
    assert "0" not in theirs["Uid"].split()
    assert theirs["Groups"] == ""


def test_a_process_of_another_user_reads_neither_keys_nor_store_nor_memory_and_signals_nobody(pair: Pair) -> None:
    account = pwd.getpwnam("games")
    assert account.pw_uid not in {0, privileges.account().pw_uid}
    other = ("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outer:  # pytest's own folder is root's alone
        folder = Path(outer)
        folder.chmod(0o755)
        with doorwardd(pair[0], folder) as daemon:
            (listener,) = processes(daemon.process.pid)
            pids = (daemon.process.pid, listener)
            places = [folder / "access.conf", folder / "run/replay.db", *(f"/proc/{pid}/environ" for pid in pids)]
            attempts = [("cat", str(place)) for place in places] + [("sh", "-c", f"kill -0 {pid}") for pid in pids]
            as_root = [pair[0].run(*words, check=False, text=False).returncode for words in attempts]
            as_other = [pair[0].run(*other, *words, check=False, text=False).returncode for words in attempts]
    assert as_root == [0] * len(attempts)
    assert 0 not in as_other, list(zip(attempts, as_other, strict=True))


@pytest.mark.parametrize("which", ["helper", "listener"])
def test_neither_process_outlives_the_other(pair: Pair, tmp_path: Path, which: str) -> None:
    host, client = pair
    with doorwardd(host, tmp_path) as daemon:
        (listener,) = processes(daemon.process.pid)
        os.kill(daemon.process.pid if which == "helper" else listener, 9)
        assert eventually(lambda: not Path(f"/proc/{listener}").exists() or status(listener)["State"].startswith("Z"))
        assert daemon.process.wait(10) != 0
    with doorwardd(host, tmp_path) as daemon:
        send(client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS), host.ipv4)
        daemon.wait_for("reason=granted")


WORKER = Path(__file__).with_name("taken_over_worker.py")
WORKERS_REFUSED = {
    "type into the terminal": "PermissionError",
    "open the terminal": "OSError",  # ENXIO: its session has none
    "have a process of its user signalled": "PermissionError",
    "choose the signal": "PermissionError",
    "set the limits of its supervisor": "PermissionError",
    "kill its supervisor": "PermissionError",
    "kill all processes of its user": "PermissionError",
    "trace its supervisor": "PermissionError",
    "open an INET socket": "PermissionError",
    "open an INET6 socket": "PermissionError",
    "open a NETLINK socket": "PermissionError",
    "leave its namespaces": "PermissionError",
    "use io_uring": "PermissionError",
    "load a program into the kernel": "PermissionError",
}


@pytest.fixture(scope="module")
def workers_outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("taken_over_worker")
    with netns.namespace() as host, terminal(host, sys.executable, str(WORKER), str(folder)) as (_, screen):
        yield report(b"".join(iter(screen.read, b"")))


@pytest.mark.parametrize("attempt", WORKERS_REFUSED)
def test_a_worker_of_gpg_that_was_taken_over_cannot(workers_outcomes: dict[str, str], attempt: str) -> None:
    assert workers_outcomes[attempt] == WORKERS_REFUSED[attempt]


def test_a_worker_of_gpg_can_do_its_work(workers_outcomes: dict[str, str]) -> None:
    assert workers_outcomes["run a program"] == workers_outcomes["open a UNIX socket"] == "done"
    assert set(workers_outcomes) == {*WORKERS_REFUSED, "run a program", "open a UNIX socket"}


@pytest.fixture
def on_a_terminal(pair: Pair, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Screen]]:
    """A daemon in the foreground of a terminal, with listener and TCP reader."""
    write(tmp_path / "access.conf", ACCESS)
    write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\nENABLE_TCP_SERVER Y\nTCPSERV_PORT 62201\n")
    files = ("-c", str(tmp_path / "doorwardd.conf"), "-a", str(tmp_path / "access.conf"), "-r", str(tmp_path / "run"))
    with terminal(pair[0], *command("-f", *files)) as (process, screen):
        yield process, screen


def test_no_process_that_reads_strangers_bytes_has_the_terminal(
    on_a_terminal: tuple[subprocess.Popen[str], Screen],
) -> None:
    process, screen = on_a_terminal
    screen.read_to(b"listening for knocks")  # through the pipe
    readers = processes(process.pid)
    assert len(readers) == 2
    for pid in readers:
        opened = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
        assert "/dev/null" in opened
        assert not [one for one in opened if one.startswith("/dev/pts")], opened
        assert os.getsid(pid) == pid != os.getsid(process.pid)


def test_ctrl_c_ends_every_process(on_a_terminal: tuple[subprocess.Popen[str], Screen]) -> None:
    process, screen = on_a_terminal
    screen.read_to(b"listening for knocks")
    readers = processes(process.pid)
    os.write(screen.descriptor, b"\x03")
    shown = b"".join(iter(screen.read, b""))
    assert process.wait(10) == 0
    assert b"SIGINT: stopping" in shown
    assert b"stopped after 0 packets" in shown  # the listener's last words
    assert not [pid for pid in readers if Path(f"/proc/{pid}").exists()]


def test_every_thread_of_the_listener_has_the_filter_and_every_thread_of_the_helper_its_three_capabilities(
    pair: Pair, tmp_path: Path
) -> None:
    with doorwardd(pair[0], tmp_path) as daemon:
        (listener,) = processes(daemon.process.pid)
        theirs, ours = threads(listener), threads(daemon.process.pid)
    assert len(theirs) > 1
    assert len(ours) > 1
    assert {one["Seccomp"] for one in theirs} == {"2"}
    assert {one["NoNewPrivs"] for one in (*theirs, *ours)} == {"1"}
    assert {int(one[name], 16) for one in ours for name in ("CapEff", "CapBnd")} == {1 << 10 | 1 << 12 | 1 << 13}


def threads(pid: int) -> list[dict[str, str]]:
    return [status(int(one.name)) for one in Path(f"/proc/{pid}/task").iterdir()]


def test_without_libseccomp_nothing_starts_and_the_package_is_named(ns: Namespace, tmp_path: Path) -> None:
    write(tmp_path / "access.conf", ACCESS)
    write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\n")
    files = ("-c", str(tmp_path / "doorwardd.conf"), "-a", str(tmp_path / "access.conf"), "-r", str(tmp_path / "run"))
    ctypes.CDLL("libseccomp.so.2")
    library = next(path for path in Path("/proc/self/maps").read_text().split() if "libseccomp.so.2" in path)
    hidden = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0"; exec "$@"', library)
    for arguments in (("-f", *files), files, ("check", *files)):
        ended = ns.run(*hidden, *command(*arguments), env=environment(), check=False)
        assert ended.returncode == 1
        assert ended.stderr == (
            "doorwardd: libseccomp.so.2 is missing (Debian: package libseccomp2): "
            "no process can be confined without it\n"
        )
    assert not (tmp_path / "run").exists()
    assert not ns.nft("list ruleset")
