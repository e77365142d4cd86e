"""What a start needs and does not have is one sentence with the remedy, before anything is changed."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import doorward
from doorward import archive
from system.doorwardd import ACCESS, command, environment, write

if TYPE_CHECKING:
    from system.netns import Namespace

PYTHON = "/usr/bin/python3"
PACKAGE = Path(doorward.__file__).parent
FORBID_SECCOMP = """
import ctypes, os, sys
library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(library.seccomp_init(0x7fff0000))
assert not library.seccomp_rule_add(context, 0x00050001, library.seccomp_syscall_resolve_name(b"seccomp"), 0)
assert not library.seccomp_load(context)
os.execvp(sys.argv[1], sys.argv[1:])
"""
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: doorward.spa.daemon
        tasks_from: preflight.yml
"""
WITHOUT_FILE = 'mount --bind /dev/null "$0" && exec "$@"'
ONE_USER = ("unshare", "-U", "-r")


def without_capability(name: str) -> tuple[str, ...]:
    return ("setpriv", "--bounding-set", f"-{name}", "--inh-caps", f"-{name}")


def without_library(name: str) -> tuple[str, ...]:
    (library,) = Path("/usr/lib").glob(f"*-linux-gnu/{name}")
    return ("unshare", "-m", "sh", "-c", WITHOUT_FILE, str(library.resolve()))


CASES = {
    "NET_ADMIN": (without_capability("net_admin"), "--cap-add=NET_ADMIN"),
    "NET_RAW": (without_capability("net_raw"), "--cap-add=NET_RAW"),
    "SETUID": (without_capability("setuid"), "--cap-add=SETUID"),
    "SETGID": (without_capability("setgid"), "--cap-add=SETGID"),
    "a namespace of one user": (ONE_USER, "map all of its users"),
    "seccomp": ((sys.executable, "-c", FORBID_SECCOMP), "must allow seccomp(2)"),
    "libseccomp": (without_library("libseccomp.so.2"), "(Debian: package libseccomp2)"),
    "libnftables": (without_library("libnftables.so.1"), "install the package libnftables1 (Debian) or nftables"),
}


def files(folder: Path) -> tuple[str, ...]:
    access, config = write(folder / "access.conf", ACCESS), write(folder / "d.conf", f"FIREWALL_FILE {folder}/f.nft\n")
    return ("-c", str(config), "-a", str(access), "-r", str(folder / "run"))


@pytest.mark.parametrize("case", CASES)
def test_a_start_and_its_check_say_what_is_missing_and_change_nothing(ns: Namespace, tmp_path: Path, case: str) -> None:
    before, remedy = CASES[case]
    given = files(tmp_path)
    for words in (("check", *given), ("-f", *given), given):
        done = ns.run(*before, *command(*words), env=environment(), check=False, timeout=200)
        assert done.returncode == 1, done
        (said,) = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert said.startswith("doorwardd: ")
        assert remedy in said
        assert "Traceback" not in done.stderr
        assert ns.nft("list ruleset") == ""
        assert not (tmp_path / "run").exists()
    assert ns.run(*command("check", *given), env=environment(), check=False).returncode == 0, "nothing else is missing"


def test_root_without_net_admin_is_told_so_by_the_console(ns: Namespace) -> None:
    console = [word for word in command("status") if word != "doorwardd"]
    done = ns.run(*without_capability("net_admin"), *console, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("doorward: nftables cannot be asked: ")
    assert "--cap-add=NET_ADMIN" in done.stderr


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("archive") / "doorward.pyz"
    archive.build(out)
    return out


def said(*argv: str, code: str = "", python: str = PYTHON) -> str:
    """The one line on standard error of a Python that runs `code` before; it ends with 1 and prints nothing."""
    words = (
        "-c",
        f"import runpy, sys; sys.argv = sys.argv[1:]; {code}; runpy.run_path(sys.argv[0], run_name='__main__')",
    )
    done = subprocess.run([python, "-I", *words, *argv], check=False, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (1, ""), done
    (line,) = done.stderr.splitlines()
    return line


COMMANDS = (("doorwardd",), ("doorwardd", "check"), ("knock", "-A", "tcp/22", "-D", "localhost"), ("status",))


@pytest.mark.parametrize("words", COMMANDS)
def test_an_old_python_is_told_what_is_needed_before_anything_else_is_imported(
    packed: Path, words: tuple[str, ...]
) -> None:
    line = said(
        str(packed), *words, code="sys.version_info = (3, 9, 2, 'final', 0); sys.modules['doorward.errors'] = None"
    )
    assert line.startswith("doorward: Python 3.10 or later is needed, and /usr/bin/python3 is Python 3.9: ")
    assert "python3.11-cryptography" in line


def test_a_python_of_2016_can_read_as_far_as_the_sentence(packed: Path) -> None:
    with zipfile.ZipFile(packed) as content:
        for name in ("__main__.py", "doorward/__init__.py", "doorward/__main__.py"):
            source = content.read(name).decode()
            ast.parse(source, feature_version=(3, 6))
            assert "__future__" not in source, "annotations came with 3.7"
    with pytest.raises(SyntaxError):
        ast.parse("if (a := 1): pass", feature_version=(3, 6))


@pytest.mark.parametrize("words", COMMANDS[:2])
def test_a_missing_cryptography_is_named_with_its_package(packed: Path, words: tuple[str, ...]) -> None:
    line = said(str(packed), *words, code="sys.modules['cryptography'] = None")
    assert line.startswith("doorward: the Python package cryptography is needed (")
    assert line.endswith("install python3-cryptography for /usr/bin/python3")


def test_a_cryptography_that_is_too_old_is_named_with_its_version(packed: Path) -> None:
    line = said(
        str(packed), "doorwardd", code="import cryptography; cryptography.__version__ = '3.3.2'", python=sys.executable
    )
    assert "(version 3.3.2 is older than 3.4): install python3-cryptography" in line


@pytest.mark.parametrize("module", ["sqlite3", "ctypes", "argparse"])
def test_a_python_without_all_of_its_modules_is_named(packed: Path, module: str) -> None:
    line = said(str(packed), "doorwardd", "check", code=f"sys.modules[{module!r}] = None")
    assert line.startswith(f"doorward: /usr/bin/python3 lacks its module {module}: install all of Python (")


def test_the_role_names_the_capabilities_that_a_host_lacks(tmp_path: Path) -> None:
    play = write(tmp_path / "play.yml", PLAY)
    where = environment() | {"ANSIBLE_COLLECTIONS_PATH": str(PACKAGE.parents[1] / "collections")}
    argv = [Path(sys.executable).with_name("ansible-playbook"), play]
    said = [
        subprocess.run([*before, *argv], check=False, capture_output=True, text=True, env=where, timeout=60).stdout
        for before in ((), without_capability("net_admin"))
    ]
    # This machine may lack more, such as systemd, which is no part of the question.
    assert ["it lacks CAP_NET_ADMIN: start its container with --cap-add=NET_ADMIN." in one for one in said] == [
        False,
        True,
    ]


def test_a_module_of_ours_that_is_missing_is_a_bug_with_its_traceback(packed: Path) -> None:
    run = "runpy.run_path(sys.argv[1], run_name='__main__')"
    code = f"import runpy, sys; sys.modules['doorward.console'] = None; {run}"
    done = subprocess.run([PYTHON, "-I", "-c", code, packed], check=False, capture_output=True, text=True)
    assert "Traceback" in done.stderr
