"""What `pip install` puts on a machine: both commands, with the sentences that the archive has."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

import pytest

import doorward
import manuals

REPOSITORY: Final = Path(__file__).parents[2]
KEPT: Final = REPOSITORY / "build/pipx"
DEPENDS: Final = ("cryptography",)
COMMANDS: Final = ("doorward", "doorwardd")
# Run in front of a command, as if the Python that it was installed for were another one.
OLD: Final = "sys.version_info = (3, 9, 2, 'final', 0); sys.modules['doorward.errors'] = None"
LACKS: Final = {
    "an old Python, the client": (("doorward", "status"), OLD, "Python 3.10 or later is needed, and "),
    "an old Python, the daemon": (("doorwardd", "check"), OLD, "Python 3.10 or later is needed, and "),
    "no cryptography": (
        ("doorwardd", "check"),
        "sys.modules['cryptography'] = None",
        "the Python package cryptography is needed (",
    ),
    "python3-minimal, the client": (("doorward", "status"), "sys.modules['argparse'] = None", "module argparse"),
    "python3-minimal, the daemon": (("doorwardd",), "sys.modules['argparse'] = None", "module argparse"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this work tree."""
    out = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, REPOSITORY)
    subprocess.run(build, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment into which pip installed the wheel; what it depends on is that of the present Python."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet")
    subprocess.run([*pip, "--disable-pip-version-check", "--no-index", "--no-deps", wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def run(installed: Path, *words: str, first: str = "pass") -> subprocess.CompletedProcess[str]:
    """Run an installed command as its launcher does, after `first`."""
    script = str(installed / "bin" / words[0])
    code = f"import runpy, sys; sys.argv = sys.argv[1:]; {first}; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [str(installed / "bin/python"), "-I", "-c", code, script, *words[1:]]
    return subprocess.run(command, cwd=installed, check=False, capture_output=True, text=True)


def test_pip_installs_both_commands_and_the_manual_pages(installed: Path) -> None:
    for name in COMMANDS:
        said = subprocess.run(
            [installed / "bin" / name, "-V"], cwd=installed, check=True, capture_output=True, text=True
        )
        assert said.stdout.split() == [name, doorward.__version__]
    of_hosts = {"doorward-first-aid.8"}  # of a script that the role and the Debian package put on hosts
    assert {path.name for path in installed.glob("share/man/man?/*")} == {p.file for p in manuals.PAGES} - of_hosts
    assert run(installed, "doorward", "keys", "generate").stdout.startswith("KEY_BASE64: ")
    assert run(installed, "doorwardd", "explain", "--help").stdout.startswith("usage: doorwardd explain")


def test_pytest_finds_the_plugin_and_the_command_loads_nothing_of_it(installed: Path) -> None:
    python = str(installed / "bin/python")
    helped = subprocess.check_output([python, "-I", "-m", "pytest", "--help"], cwd=installed, text=True)
    assert "--hidden-host=HOST[:PORT]" in helped
    code = "import sys; from doorward import console; print([name for name in sys.modules if 'pytest' in name])"
    assert subprocess.check_output([python, "-I", "-c", code], cwd=installed, text=True) == "[]\n"


def test_pip_upgrades_and_leaves_nothing_behind(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    pip = (sys.executable, "-m", "pip", "--python", tmp_path / "bin/python", "--quiet", "--disable-pip-version-check")
    for more in ((), ("--upgrade", "--force-reinstall")):
        subprocess.run([*pip, "install", "--no-index", "--no-deps", *more, wheel], check=True)
    assert list(tmp_path.rglob("doorward*"))
    subprocess.run([*pip, "uninstall", "--yes", "doorward"], check=True)
    assert not list(tmp_path.rglob("doorward*"))


def download() -> None:
    """Keep what the wheel depends on, so that only the first run needs a package index."""
    if not (KEPT / "complete").exists():
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--only-binary=:all:", "--dest", KEPT, *DEPENDS], check=True)
        (KEPT / "complete").touch()


def test_pipx_installs_both_commands(wheel: Path, tmp_path: Path) -> None:
    download()
    folders = {"PIPX_HOME": tmp_path / "home", "PIPX_BIN_DIR": tmp_path / "bin", "PIPX_SHARED_LIBS": KEPT / "shared"}
    environment = {**os.environ, **{name: str(folder) for name, folder in folders.items()}}
    environment.pop("PYTHONPATH", None)
    command = ["pipx", "install", f"--pip-args=--no-index --find-links={KEPT}", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=tmp_path)
    for name in COMMANDS:
        script = [str(tmp_path / "bin" / name), "-V"]
        said = subprocess.run(script, check=True, capture_output=True, text=True, env=environment)
        assert said.stdout.split() == [name, doorward.__version__]


@pytest.mark.parametrize("case", LACKS)
def test_an_installed_command_says_in_one_sentence_what_its_python_lacks(installed: Path, case: str) -> None:
    words, first, sentence = LACKS[case]
    done = run(installed, *words, first=first)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("doorward: ")
    assert sentence in line
