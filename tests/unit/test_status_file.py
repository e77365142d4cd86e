"""Every end of `doorward connect` is in the status file: usage, import, signal, bug, and no reason after success."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import cryptography
import pytest

from doorward import archive, status_file

KEYS = f"KEY_BASE64 {'A' * 43}=\nHMAC_KEY_BASE64 {'A' * 86}==\n"
INSTALLED = str(Path(cryptography.__file__).parents[1])


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("archive") / "doorward.pyz"
    archive.build(built)
    return built


@pytest.fixture
def status(tmp_path: Path) -> Path:
    return tmp_path / "status"


def rc_file(folder: Path, more: str = "") -> str:
    file = folder / "fwknoprc"
    file.write_text(f"[default]\n{KEYS}{more}")
    file.chmod(0o600)
    return str(file)


def run(program: Path, *words: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", *flags, str(program), *words]
    environ = {"HOME": str(program.parent)}
    return subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, check=False, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["--status", "a", "host", "22"], "a"),
        (["--bogus", "--status=b"], "b"),
        (["--status", "a", "--status", "b"], "a"),
        (["--status"], None),
        (["host", "22"], None),
        ([], None),
    ],
)
def test_the_file_is_found_in_any_command_line(words: list[str], file: str | None) -> None:
    assert status_file.named(words) == file


def test_a_reason_is_one_line_of_a_private_file(status: Path) -> None:
    status_file.leave(["--status", str(status)], "two\nlines\t\udc80")
    assert status.read_text() == "two lines ?\n"
    assert status.stat().st_mode & 0o777 == 0o600
    status_file.leave(["--status", str(status)], "")
    assert status.read_text() == ""
    status_file.leave(["--status", "/proc/none/such"], "unwritable")
    status_file.leave([], "without a file")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--bogus", "host", "22"], "unrecognized option --bogus"),
        (
            ["--source", "nonsense", "host", "22"],
            "--source: 'nonsense' is neither ",
        ),
        (["host"], "PORT is required"),
        (["host", "99999"], "PORT: '99999' is not a number from 1 to 65535"),
    ],
)
def test_a_mistake_in_the_options_is_in_the_file(words: list[str], reason: str, program: Path, status: Path) -> None:
    assert run(program, "connect", "--status", str(status), *words).returncode == 2
    assert status.read_text().startswith(f"the helper does not take its options: {reason}")


def test_a_missing_cryptography_is_in_the_file_and_is_found_where_ansible_has_it(
    program: Path, tmp_path: Path, status: Path
) -> None:
    """-S hides installed packages, as -I hides a user's and those of PYTHONPATH; CTR needs cryptography everywhere."""
    words = ["connect", "--rc-file", rc_file(tmp_path, "ENCRYPTION_MODE CTR\n"), "--timeout", "1"]
    words += ["--status", str(status), "127.0.0.1", "1"]
    assert run(program, *words, flags=("-S",)).returncode
    assert status.read_text().startswith("the Python package cryptography is needed (No module named 'cryptography')")
    run(program, f"--modules=relative:{INSTALLED}", *words, flags=("-S",))
    assert status.read_text().startswith("closed after 1 knock")


def test_a_connection_needs_no_cryptography_by_default(program: Path, tmp_path: Path, status: Path) -> None:
    words = ["connect", "--rc-file", rc_file(tmp_path), "--timeout", "1", "--status", str(status), "127.0.0.1", "1"]
    run(program, *words, flags=("-S",))
    assert status.read_text().startswith("closed after 1 knock")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_an_end_by_a_signal_is_in_the_file(number: signal.Signals, program: Path, tmp_path: Path, status: Path) -> None:
    waits = tmp_path / "pipe"  # nobody writes into it
    os.mkfifo(waits)
    command = [sys.executable, "-I", str(program), "connect", "--rc-file", str(waits), "--status", str(status)]
    environ = {"HOME": str(program.parent)}
    helper = subprocess.Popen([*command, "127.0.0.1", "1"], env=environ, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (status.exists() and status.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    helper.send_signal(number)
    assert helper.wait(20)
    assert status.read_text() == f"{status_file.KILLED}\n"


def test_a_bug_is_in_the_file(program: Path, tmp_path: Path, status: Path) -> None:
    broken = tmp_path / "broken.pyz"
    with zipfile.ZipFile(program) as whole, zipfile.ZipFile(broken, "w") as changed:
        for name in whole.namelist():
            content = b"raise RuntimeError('of a test')" if name.endswith("/proxy.py") else whole.read(name)
            changed.writestr(name, content)
    done = run(broken, "connect", "--status", str(status), "host", "22")
    assert status.read_text() == "the helper failed, which is a bug: RuntimeError: of a test\n"
    assert "RuntimeError: of a test" in done.stderr


def test_the_helper_ends_without_pythons_tidying_up(program: Path, tmp_path: Path) -> None:
    """Ssh waits for the end."""
    changed = tmp_path / "changed.pyz"
    tidying = b"import atexit\natexit.register(print, 'tidied up')\ndef run(*_, **__): print('connected')\n"
    with zipfile.ZipFile(program) as whole, zipfile.ZipFile(changed, "w") as made:
        for name in whole.namelist():
            made.writestr(name, tidying if name.endswith("/proxy.py") else whole.read(name))
    done = run(changed, "connect", "host", "22")
    assert (done.returncode, done.stdout, done.stderr) == (0, "connected\n", "")


def test_a_connection_empties_the_file(program: Path, tmp_path: Path, status: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        words = ["--rc-file", rc_file(tmp_path), "--status", str(status), "127.0.0.1", port]
        answer = threading.Thread(target=_accept, args=(server,))
        answer.start()
        done = run(program, "connect", *words)
        answer.join()
    assert (done.returncode, status.read_text()) == (0, "")


def _accept(server: socket.socket) -> None:
    server.accept()[0].close()
