"""The compiled code, a user's and the host's: made once, where only its owner can write, executed from nowhere else."""

from __future__ import annotations

import hashlib
import marshal
import os
import shutil
import subprocess
import sys
import time
import zipfile
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import TYPE_CHECKING
from zipimport import zipimporter

import pytest

import doorward
from doorward import archive, compiled, compiling

if TYPE_CHECKING:
    from collections.abc import Callable

STRANGER = 54321
PLANTED = "this is not the client"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user, and mount")
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


PLANT = """import hashlib, marshal, sys
from importlib.util import MAGIC_NUMBER
archive, key, words = sys.argv[1:]
modules = marshal.loads(sys.stdin.buffer.read()[32:])
code = marshal.dumps(compile(f"raise SystemExit({words!r})", "planted", "exec"))
body = marshal.dumps({**modules, "doorward.console": (False, code)})
key = bytes.fromhex(key) or hashlib.sha256(open(archive, "rb").read()).digest() + MAGIC_NUMBER + bytes(1)
sys.stdout.buffer.write(hashlib.sha256(key + body).digest() + body)"""


def planted(program: Path, content: bytes, key: bytes = b"", python: str = sys.executable) -> bytes:
    """A cache like the real one, whose command says that it was executed; made by the Python that shall run it."""
    command = [python, "-I", "-c", PLANT, str(program), key.hex(), PLANTED]
    return subprocess.run(command, input=content, check=True, capture_output=True, timeout=60).stdout


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


@needs_root
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


def test_without_a_home_no_folder_is_looked_for_or_made(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def ask(path: object, *_: object) -> None:
        asked.append(path)
        raise FileNotFoundError

    monkeypatch.setattr(os, "mkdir", ask)
    monkeypatch.setattr(os, "open", ask)
    for environ in ({}, {"HOME": ""}, {"XDG_CACHE_HOME": "relative"}):
        compiled.use(zipimporter(str(program)), compiled.of_the_user(environ))
    assert asked == [], "the folder that it would make is the machine's own /doorward"
    compiled.use(zipimporter(str(program)), compiled.of_the_user({"HOME": "/home/ann"}))
    assert set(asked) == {"/home/ann/.cache/doorward", "/home/ann/.cache"}


def test_a_home_that_is_missing_is_not_made(program: Path, tmp_path: Path) -> None:
    """Root's own commands run with the HOME of service accounts, /nonexistent in Debian."""
    home = tmp_path / "nonexistent"
    assert HELP in run(program, home).stdout
    assert not home.exists()
    home.mkdir()
    assert HELP in run(program, home).stdout
    assert folder_in(home).is_dir()


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


# ---- the host's own, for all of the program --------------------------------------------------------------------------

VERSION = f"doorward {doorward.__version__}\n"
HOST_PYTHON = "/usr/bin/python3"  # that of the host, which any account may run; another one may run these tests
NAMES = """import marshal, sys
for name, (_, code) in marshal.loads(sys.stdin.buffer.read()[32:]).items():
    print(marshal.loads(code) and name)"""  # each one's code is whole
AS_ON_A_HOST = 'mount --bind "$1" /var/cache; shift; exec "$@"'

FULL = """mount -t tmpfs -o size=64k,mode=755 none /var/cache/doorward
head -c 60000 /dev/zero > /var/cache/doorward/rest
"$@"
ls -A /var/cache/doorward"""


def on_host(cache: Path, *words: str, account: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command of the archive of a host; `cache` is its /var/cache, where any account can reach the archive."""
    command = ["unshare", "--mount", "sh", "-euc", AS_ON_A_HOST, "sh", str(cache)]
    command += ["setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups"]
    command += [HOST_PYTHON, "-I", "/var/cache/doorward.pyz", *(words or ("--version",))]
    return subprocess.run(command, env={"LC_ALL": "C.UTF-8"}, check=False, capture_output=True, text=True, timeout=60)


def kept(cache: Path) -> list[Path]:
    return list((cache / "doorward").iterdir())


@pytest.fixture
def cache(program: Path, tmp_path: Path) -> Path:
    """/var/cache of a host on which doorward is installed."""
    cache = tmp_path / "cache"
    for folder in (cache, cache / "doorward"):
        folder.mkdir()
        folder.chmod(0o755)
    shutil.copy(program, cache / "doorward.pyz")
    return cache


@pytest.fixture(scope="module")
def made_by_root(program: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """The name and the content of the file that a host's Python makes of the archive."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "doorward").mkdir()
    shutil.copy(program, folder)
    assert on_host(folder).stdout == VERSION
    (file,) = kept(folder)
    return file.name, file.read_bytes()


@pytest.fixture
def on_disk(program: Path, cache: Path, made_by_root: tuple[str, bytes]) -> Path:
    """A file in it like the real one, whose commands say that it was executed."""
    name, content = made_by_root
    file = cache / "doorward" / name
    file.write_bytes(planted(program, content, python=HOST_PYTHON))
    file.chmod(0o644)
    return file


@needs_root
@pytest.mark.parametrize("account", [0, STRANGER])
def test_what_root_has_compiled_on_a_host_is_what_runs_there(cache: Path, on_disk: Path, account: int) -> None:
    assert PLANTED in on_host(cache, account=account).stderr
    in_a_strangers_folder(on_disk)
    assert on_host(cache, account=account).stdout == VERSION


@needs_root
def test_roots_first_command_compiles_the_whole_program_and_everybody_may_read_it(program: Path, cache: Path) -> None:
    old = os.umask(0o077)
    try:
        assert on_host(cache, "doorwardd", "-V").returncode == 0
    finally:
        os.umask(old)
    (file,) = kept(cache)
    assert file.stat().st_mode & 0o777 == 0o644
    members = {name for name in zipfile.ZipFile(program).namelist() if name != "__main__.py"}
    command = [HOST_PYTHON, "-I", "-c", NAMES]
    names = subprocess.run(command, input=file.read_bytes(), check=True, capture_output=True, timeout=60).stdout
    assert set(names.decode().replace(".", "/").split()) == {
        member.removesuffix(".py").removesuffix("/__init__") for member in members
    }


@needs_root
def test_nobody_but_root_writes_it_and_the_program_makes_no_such_folder(cache: Path) -> None:
    os.chown(cache / "doorward", STRANGER, STRANGER)
    assert on_host(cache, account=STRANGER).returncode == 0
    assert kept(cache) == []
    (cache / "doorward").rmdir()
    assert on_host(cache).returncode == 0
    assert not (cache / "doorward").exists()


def writable_by_a_group(file: Path) -> None:
    file.chmod(0o664)


def in_a_folder_that_a_group_writes(file: Path) -> None:
    file.parent.chmod(0o775)


NOT_ROOTS: tuple[Callable[[Path], None], ...] = (
    *(change for change in REFUSED if change is not readable_by_a_group),
    writable_by_a_group,
    in_a_folder_that_a_group_writes,
)


@needs_root
@pytest.mark.parametrize("change", NOT_ROOTS, ids=lambda change: str(change.__name__))
def test_no_other_users_code_and_no_damaged_code_is_executed_on_a_host(
    change: Callable[[Path], None], cache: Path, on_disk: Path
) -> None:
    change(on_disk)
    done = on_host(cache, account=STRANGER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == VERSION


@needs_root
def test_where_it_cannot_be_written_the_source_runs(cache: Path) -> None:
    read_only = ["sh", "-euc", 'mount -t tmpfs -o ro,mode=755 none /var/cache/doorward; exec "$@"', "sh"]
    command = ["unshare", "--mount", "sh", "-euc", AS_ON_A_HOST, "sh", str(cache), *read_only]
    command += [HOST_PYTHON, "-I", "/var/cache/doorward.pyz", "--version"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == VERSION


@needs_root
def test_on_a_full_disk_the_code_is_used_and_not_kept(cache: Path) -> None:
    full = ["sh", "-euc", FULL, "sh"]
    command = ["unshare", "--mount", "sh", "-euc", AS_ON_A_HOST, "sh", str(cache), *full]
    command += [HOST_PYTHON, "-I", "/var/cache/doorward.pyz", "--version"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{VERSION}rest\n"), "only what fills it is there"


def test_an_archive_that_takes_the_others_place_meanwhile_is_not_compiled_under_its_name(tmp_path: Path) -> None:
    """A change puts in another archive whenever it comes, between the digest of the old one and its compilation too."""
    contents = {}
    for name in ("old", "new"):
        with zipfile.ZipFile(tmp_path / name, "w") as packed:
            packed.writestr("doorward/__init__.py", f"WHICH = {name!r}\n")
        contents[name] = (tmp_path / name).read_bytes()
    (tmp_path / "cache").mkdir()
    folder = os.open(tmp_path / "cache", os.O_RDONLY | os.O_DIRECTORY)
    try:
        made = compiling.make((str(tmp_path / "new"), contents["old"]), None, folder, "name", b"key")
    finally:
        os.close(folder)
    assert "old" in marshal.loads(made["doorward"][1]).co_consts  # noqa: S302  made here
