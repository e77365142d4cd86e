"""The client where only Linux's own names are missing (macOS, the BSDs), and where most of POSIX is (Windows).

tests/other_systems.py says what is taken out and what is not. For macOS mypy checks the client by what that system has;
on "Windows" keys, knock and connect with relay run.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from mypy import api

import other_systems
from doorward.crypto.symmetric import unseal
from doorward.values import Secret, SymmetricKeys
from doorward.wire import fwknop

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
KEYS: Final = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
RC_FILE: Final = f"[127.0.0.1]\nKEY {'k' * 32}\nHMAC_KEY {'h' * 64}\n"
# A sample of each kind that must be among the names, so that none is looked for in vain.
MACOS_LACKS: Final = {
    "os": {"pidfd_open", "memfd_create", "O_PATH", "O_TMPFILE", "eventfd", "splice", "getrandom", "pipe2"},
    "socket": {"SO_PEERCRED", "SO_BINDTODEVICE", "AF_PACKET", "AF_NETLINK", "SOCK_CLOEXEC", "SOCK_NONBLOCK"},
    "select": {"epoll", "EPOLLIN", "POLLRDHUP"},
    "fcntl": {"F_ADD_SEALS", "F_SEAL_WRITE"},
    "resource": {"prlimit"},
    "time": {"CLOCK_BOOTTIME"},
}
WINDOWS_LACKS: Final = {
    "os": {"fork", "geteuid", "getuid", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "fchmod", "fchown"},
    "socket": {"AF_UNIX", "send_fds", "SO_PEERCRED"},
    "select": {"poll", "epoll"},
}


def simulated(
    system: str, *words: str, home: Path | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/daemon:{ROOT}/tests"}
    if home is not None:
        environment.pop("HOME", None)
        environment["USERPROFILE"] = str(home)
    argv = [sys.executable, str(ROOT / "tests/other_systems.py"), system, *words]
    return subprocess.run(argv, env=environment, cwd=ROOT, input=stdin, capture_output=True, timeout=250, check=False)


@pytest.mark.parametrize(("system", "lacking"), [("darwin", MACOS_LACKS), ("win32", WINDOWS_LACKS)])
def test_the_names_that_are_taken_out_are_those_that_the_system_lacks(
    system: str, lacking: dict[str, set[str]]
) -> None:
    found = other_systems.lost(system)
    assert not {name: gone - found[name] for name, gone in lacking.items() if gone - found[name]}
    assert not {"open", "replace", "O_CREAT", "O_EXCL"} & found["os"] | {"AF_INET6", "SO_ERROR"} & found["socket"]


def test_no_name_that_only_linux_has_is_in_the_client_or_below_it() -> None:
    """By mypy's knowledge of macOS; the daemon's own modules would be seen."""
    cache = ("--cache-dir", str(ROOT / ".mypy_cache/darwin"), "--platform", "darwin")
    said, _, code = api.run([*cache, "daemon/doorward/client", "daemon/doorward/compiled.py"])
    assert code == 0, said
    said, _, code = api.run([*cache, "daemon/doorward/linux/seqpacket.py"])
    assert code == 1
    assert 'no attribute "memfd_create"' in said


def test_a_module_that_needs_linux_fails_in_such_a_python() -> None:
    done = simulated("darwin", "doorward.capture.packet")
    assert done.returncode == 0
    done = simulated("darwin", "doorward.linux.seqpacket")
    assert b"AttributeError" in done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".fwknoprc").write_text(RC_FILE)
    return tmp_path


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_help_completion_and_a_misspelt_command_leave_out_what_only_a_host_has(system: str, home: Path) -> None:
    shown = simulated(system, "doorward", "--help", home=home)
    assert shown.returncode == 0, shown.stderr
    assert b" knock " in shown.stdout
    assert b" firewall " not in shown.stdout
    shell = simulated(system, "doorward", "completion", "bash", home=home)
    assert shell.returncode == 0, shell.stderr
    assert b"_doorward doorward\n" in shell.stdout
    wrong = simulated(system, "doorward", "knok", home=home)
    assert wrong.returncode == 2
    assert b"Traceback" not in wrong.stderr
    mine = simulated(system, "doorward", "status", home=home)
    assert b"[127.0.0.1] knocks at" in mine.stdout, mine.stderr
    here = simulated(system, "doorward", "--version", home=home)
    assert here.returncode == 0, here.stderr


def test_windows_makes_keys(home: Path) -> None:
    done = simulated("win32", "doorward", "keys", "generate", home=home)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rb"KEY_BASE64: \S{44}\nHMAC_KEY_BASE64: \S{88}\n", done.stdout)
    done = simulated("win32", "doorward", "keys", "generate", "--output", str(home / "new"), home=home)
    assert done.returncode == 0, done.stderr
    assert (home / "new").read_bytes().startswith(b"KEY_BASE64: ")
    assert simulated("win32", "doorward", "keys", "generate", "--output", str(home / "new"), home=home).returncode == 1


def test_windows_knocks(home: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))
        door.settimeout(60)
        where = ("-n", "127.0.0.1", "-D", "127.0.0.1", "-p", str(door.getsockname()[1]))
        done = simulated("win32", "doorward", "-A", "tcp/22", *where, home=home)
        assert done.returncode == 0, done.stderr
        assert fwknop.parse(unseal(door.recv(2048), KEYS)).text == "127.0.0.1,tcp/22"
    assert b"mode" not in done.stderr  # a mode says nothing there, so nothing is said of it
    assert (home / ".fwknop.run").exists()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Says back, in capitals, what it is told."""
    with socket.create_server(("127.0.0.1", 0)) as accepting:

        def serve() -> None:
            connection, _ = accepting.accept()
            with connection:
                while chunk := connection.recv(4096):
                    connection.sendall(chunk.upper())

        serving = threading.Thread(target=serve)
        serving.start()
        yield accepting
        serving.join()


def test_windows_connects_and_relays(home: Path, server: socket.socket) -> None:
    port = str(server.getsockname()[1])
    words = ("doorward", "connect", "127.0.0.1", port)
    done = simulated("win32", *words, home=home, stdin=b"a line\r\nanother\n")
    assert (done.returncode, done.stdout) == (0, b"A LINE\r\nANOTHER\n"), done.stderr


def test_windows_says_what_it_cannot(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = str(closing.getsockname()[1])
    done = simulated("win32", "doorward", "connect", "--timeout", "2", "127.0.0.1", port, home=home)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    done = simulated("win32", "doorward", "status", home=home)
    assert done.returncode in {0, 1}, done.stderr
    assert b"[127.0.0.1] knocks at" in done.stdout
