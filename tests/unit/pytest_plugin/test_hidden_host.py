"""What the pytest plugin sees of sockets on this machine, and what it says where nothing is proven."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import doorward_pytest
from doorward import archive
from doorward_pytest import HiddenHost, NotProvenError, plugin, probe

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[3]
TEST = """
def test_it(hidden_host):
    assert hidden_host.{}
"""
WITHOUT_PYTEST = "import sys; sys.modules['pytest'] = None; import doorward, doorward_pytest; print(len(sys.modules))"


@contextlib.contextmanager
def udp_that(answers: bool) -> Iterator[int]:  # noqa: FBT001  the name reads with it
    """A UDP port that answers each packet, or none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("127.0.0.1", 0))
        here.settimeout(5)

        def answer() -> None:
            with contextlib.suppress(OSError):
                here.sendto(b"!", here.recvfrom(100)[1])

        thread = threading.Thread(target=answer, daemon=True)
        if answers:
            thread.start()
        yield here.getsockname()[1]


@contextlib.contextmanager
def silent_tcp() -> Iterator[int]:
    """A TCP port that no longer answers: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = full.getsockname()[1]
        for _ in range(3):
            dialling = stack.enter_context(socket.socket())
            dialling.setblocking(False)  # noqa: FBT003  the standard library's own argument
            dialling.connect_ex(("127.0.0.1", port))
        yield port


@contextlib.contextmanager
def open_tcp() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as accepting:
        yield accepting.getsockname()[1]


def refusing_tcp() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port: int = closing.getsockname()[1]
    return port


def test_silence_is_dark_and_every_kind_of_answer_is_not() -> None:
    with silent_tcp() as silent, open_tcp() as accepting, udp_that(answers=False) as quiet:
        assert HiddenHost("127.0.0.1", silent, knock_port=quiet).is_dark()
        seen = HiddenHost("127.0.0.1", accepting, knock_port=quiet).is_dark()
        assert not seen
        assert repr(seen).startswith(f"<tcp/{accepting} of 127.0.0.1 (127.0.0.1) accepts connections; ")
        assert not HiddenHost("127.0.0.1", refusing_tcp(), knock_port=quiet).is_dark()
        assert not HiddenHost("127.0.0.1", silent, knock_port=quiet).is_dark(silent, accepting)
        assert "udp/1 of 127.0.0.1 (127.0.0.1) refuses" in repr(HiddenHost("127.0.0.1", silent, knock_port=1).is_dark())
        with udp_that(answers=True) as talking:
            assert not HiddenHost("127.0.0.1", silent, knock_port=talking).is_dark()


def test_a_port_opens_only_where_it_accepts() -> None:
    with open_tcp() as accepting:
        assert HiddenHost("127.0.0.1", accepting).opens()
    assert not HiddenHost("127.0.0.1", refusing_tcp()).opens(within=0)


def test_a_witness_that_is_not_seen_proves_nothing() -> None:
    with silent_tcp() as silent, open_tcp() as accepting, udp_that(answers=False) as quiet:
        assert HiddenHost("127.0.0.1", silent, knock_port=quiet, witness=("127.0.0.1", accepting)).is_dark()
        with pytest.raises(NotProvenError, match=r"the witness is not seen: tcp/.* refuses"):
            HiddenHost("127.0.0.1", silent, knock_port=quiet, witness=("127.0.0.1", refusing_tcp())).is_dark()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (HiddenHost("name.invalid"), "cannot be asked: "),
        (HiddenHost("127.0.0.1", outsider=("/nowhere/ssh",)), "/nowhere/ssh: "),
        (HiddenHost("127.0.0.1", outsider=("false",)), "false ended with 1"),
        (HiddenHost("127.0.0.1", outsider=("echo",)), "the probe printed no answers"),
    ],
)
def test_what_cannot_be_asked_is_not_dark(host: HiddenHost, words: str) -> None:
    with pytest.raises(NotProvenError, match=words):
        host.is_dark()


def test_a_knock_that_is_not_sent_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "daemon"))
    with pytest.raises(NotProvenError, match="nowhere"):
        HiddenHost("127.0.0.1", profile=f"{tmp_path}/nowhere#web").knock()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web", ("web", 22)),
        ("web:2222", ("web", 2222)),
        ("192.0.2.7:2222", ("192.0.2.7", 2222)),
        ("fd00::1", ("fd00::1", 22)),
        ("[fd00::1]:2222", ("fd00::1", 2222)),
        ("[fd00::1]", ("fd00::1", 22)),
    ],
)
def test_a_host_is_named_with_or_without_its_port(text: str, place: tuple[str, int]) -> None:
    assert plugin._place(text, 22) == place  # noqa: SLF001  what the options are read with


def test_a_port_of_words_is_a_mistake_of_the_command_line() -> None:
    with pytest.raises(pytest.UsageError, match="'web:ssh' is not HOST:PORT"):
        plugin._place("web:ssh", 22)  # noqa: SLF001  as above


def inner(folder: Path, body: str, *options: str) -> str:
    """What another pytest prints about a test."""
    (folder / "test_inner.py").write_text(TEST.format(body))
    words = [sys.executable, "-m", "pytest", "-p", "doorward_pytest.plugin", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "daemon")}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100)
    return done.stdout + done.stderr


def test_pytest_runs_a_test_once_for_each_host_and_shows_what_was_seen(tmp_path: Path) -> None:
    with open_tcp() as accepting:
        hosts = [f"--hidden-host=127.0.0.1:{accepting}", f"--hidden-host=localhost:{accepting}"]
        assert "2 passed" in inner(tmp_path, "opens()", *hosts)
        shown = inner(tmp_path, "is_dark()", hosts[0], "--hidden-host-knock-port=1")
    assert "1 failed" in shown
    assert f"assert <tcp/{accepting} of 127.0.0.1 (127.0.0.1) accepts connections; udp/1 of" in shown
    assert "give --hidden-host=HOST[:PORT]" in inner(tmp_path, "is_dark()")


def test_the_archive_of_the_hosts_has_nothing_of_it_and_pytest_is_needed_only_by_the_plugin(tmp_path: Path) -> None:
    archive.build(tmp_path / "doorward.pyz")
    with zipfile.ZipFile(tmp_path / "doorward.pyz") as packed:
        assert not [name for name in packed.namelist() if "pytest" in name]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "daemon")}
    subprocess.run([sys.executable, "-c", WITHOUT_PYTEST], env=environment, check=True, capture_output=True)


def test_an_old_python_elsewhere_can_run_the_probe() -> None:
    ast.parse(Path(probe.__file__).read_text("utf-8"), feature_version=(3, 6))
    assert "__future__" not in Path(probe.__file__).read_text("utf-8")
    assert doorward_pytest.KNOCK_PORT == 62201
