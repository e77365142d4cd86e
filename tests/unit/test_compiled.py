"""The client's compiled code: made once, kept where only its owner can write, never executed from anywhere else."""

from __future__ import annotations

import hashlib
import marshal
import os
import subprocess
import sys
import time
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import TYPE_CHECKING
from zipimport import zipimporter

import pytest

from doorward import archive, compiled, compiling

if TYPE_CHECKING:
    from collections.abc import Callable

STRANGER = 54321
PLANTED = "this is not the client"
HELP = "Knock, connect, and hand the connection over"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("archive") / "doorward.pyz"
    archive.build(built)
    return built


@pytest.fixture(scope="module")
def made(program: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """The name and the content of the file that this Python makes of the archive."""
    home = tmp_path_factory.mktemp("home")
    run(program, home)
    (file,) = folder_in(home).iterdir()
    return file.name, file.read_bytes()


def folder_in(home: Path) -> Path:
    return home / ".cache" / "doorward"


def run(program: Path, home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(program), *(words or ("connect", "--help"))]
    environ = {"HOME": str(home), "LC_ALL": "C.UTF-8", **more}
    return subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=60)


def key_of(program: Path) -> bytes:
    return hashlib.sha256(program.read_bytes()).digest() + MAGIC_NUMBER + b"\0"


def meaning(content: bytes) -> dict[str, tuple[bool, object]]:
    """The modules of an undamaged file; two Pythons may write the same code in other bytes (marshal)."""
    modules = marshal.loads(content[32:])  # noqa: S302  our own
    return {name: (is_package, marshal.loads(code)) for name, (is_package, code) in modules.items()}  # noqa: S302  as above


def planted(program: Path, content: bytes, key: bytes | None = None) -> bytes:
    """A cache like the real one, whose command says that it was executed."""
    modules = marshal.loads(content[32:])  # noqa: S302  our own
    code = compile(f"raise SystemExit({PLANTED!r})", "planted", "exec")
    body = marshal.dumps({**modules, "doorward.console": (False, marshal.dumps(code))})
    return hashlib.sha256((key or key_of(program)) + body).digest() + body


def place(home: Path, name: str, content: bytes) -> Path:
    folder = folder_in(home)
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    file = folder / name
    file.write_bytes(content)
    file.chmod(0o600)
    return file


def as_it_is(file: Path) -> None:
    """Nothing is wrong with this one."""
    assert file.exists()


def of_a_stranger(file: Path) -> None:
    os.chown(file, STRANGER, -1)


def in_a_strangers_folder(file: Path) -> None:
    os.chown(file.parent, STRANGER, -1)


def writable_by_others(file: Path) -> None:
    file.chmod(0o602)


def readable_by_a_group(file: Path) -> None:
    file.chmod(0o640)


def in_an_open_folder(file: Path) -> None:
    file.parent.chmod(0o777)


def a_link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def in_a_linked_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("elsewhere"))
    file.parent.symlink_to("elsewhere")


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def cut_within_its_digest(file: Path) -> None:
    os.truncate(file, 7)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


REFUSED: tuple[Callable[[Path], None], ...] = (
    of_a_stranger,
    in_a_strangers_folder,
    writable_by_others,
    readable_by_a_group,
    in_an_open_folder,
    a_link,
    in_a_linked_folder,
    a_pipe,
    truncated,
    cut_within_its_digest,
    emptied,
    flipped,
)


def test_the_code_of_the_cache_is_what_runs(program: Path, made: tuple[str, bytes], tmp_path: Path) -> None:
    place(tmp_path, made[0], planted(program, made[1]))
    assert PLANTED in run(program, tmp_path).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("change", REFUSED, ids=lambda change: str(change.__name__))
def test_planted_and_damaged_code_is_never_executed(
    change: Callable[[Path], None], program: Path, made: tuple[str, bytes], tmp_path: Path
) -> None:
    change(place(tmp_path, made[0], planted(program, made[1])))
    done = run(program, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert HELP in done.stdout


def test_the_code_of_another_archive_under_this_ones_name_is_not_executed(
    program: Path, made: tuple[str, bytes], tmp_path: Path
) -> None:
    other = b"another archive".ljust(32, b"\0") + key_of(program)[32:]
    place(tmp_path, made[0], planted(program, made[1], other))
    assert HELP in run(program, tmp_path).stdout


def test_damaged_code_is_made_again(program: Path, made: tuple[str, bytes], tmp_path: Path) -> None:
    file = place(tmp_path, made[0], made[1][:1000])
    assert HELP in run(program, tmp_path).stdout
    assert meaning(file.read_bytes()) == meaning(made[1])


def test_the_file_and_its_folder_belong_to_the_user_alone(program: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        assert HELP in run(program, tmp_path).stdout
    finally:
        os.umask(old)
    (file,) = folder_in(tmp_path).iterdir()
    assert [place.stat().st_mode & 0o777 for place in (folder_in(tmp_path), file)] == [0o700, 0o600]


def test_the_users_own_cache_folder_is_taken(program: Path, tmp_path: Path) -> None:
    cache = tmp_path / "elsewhere"
    assert HELP in run(program, tmp_path, XDG_CACHE_HOME=str(cache)).stdout
    assert len(list((cache / "doorward").iterdir())) == 1
    assert HELP in run(program, tmp_path, XDG_CACHE_HOME="relative").stdout
    assert len(list(folder_in(tmp_path).iterdir())) == 1


@pytest.mark.parametrize("home", ["", "/dev/null", "/proc/self"])
def test_without_a_place_to_keep_it_the_source_runs(home: str, program: Path) -> None:
    done = run(program, Path(), HOME=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert HELP in done.stdout


def test_without_a_home_no_folder_is_looked_for_or_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(os, "makedirs", lambda path, _mode: asked.append(path))
    monkeypatch.setattr(os, "open", lambda path, _flags: asked.append(path))
    with pytest.raises(FileNotFoundError):
        compiled._open_folder({})  # noqa: SLF001  the folder that it would make is the machine's own /doorward
    assert asked == []


def test_many_processes_at_once_make_one_file(program: Path, made: tuple[str, bytes], tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(program), "connect", "--help"]
    environ = {"HOME": str(tmp_path)}
    started = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert all(HELP in each.communicate(timeout=60)[0] for each in started)
    (file,) = folder_in(tmp_path).iterdir()
    assert (file.name, meaning(file.read_bytes())) == (made[0], meaning(made[1]))


def test_old_files_are_removed(program: Path, tmp_path: Path) -> None:
    olds = [place(tmp_path, "0.cpython-1", b"")]
    olds += [olds[0].with_name(f"{number}.cpython-1") for number in range(1, compiling.KEPT + 2)]
    for age, old in enumerate(olds):
        old.touch()
        os.utime(old, (time.time() - 1000 + age,) * 2)
    run(program, tmp_path)
    left = {file.name for file in folder_in(tmp_path).iterdir()}
    assert len(left) == compiling.KEPT
    assert {old.name for old in olds[-compiling.KEPT + 1 :]} < left


def test_the_daemon_and_roots_commands_leave_nothing_in_a_home(program: Path, tmp_path: Path) -> None:
    assert run(program, tmp_path, "doorwardd", "--help").returncode == 0
    assert run(program, tmp_path, "--version", "connect").returncode == 0
    run(program, tmp_path, "status")
    assert not folder_in(tmp_path).exists()
    assert run(program, tmp_path).returncode == 0
    assert folder_in(tmp_path).exists()


def test_a_traceback_shows_the_lines_of_the_source(program: Path, tmp_path: Path) -> None:
    run(program, tmp_path)
    (file,) = folder_in(tmp_path).iterdir()
    modules = marshal.loads(file.read_bytes()[32:])  # noqa: S302  our own
    finder = compiled.Finder(zipimporter(str(program)), modules)
    assert "class Problem" in finder.get_source("doorward.errors")
    spec = finder.find_spec("doorward.client")
    assert spec is not None
    assert spec.origin == f"{program}/doorward/client/__init__.py"
    assert spec.submodule_search_locations == [f"{program}/doorward/client"]
    assert finder.find_spec("doorward.listener") is None
