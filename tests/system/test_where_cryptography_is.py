"""The helper of the connection plugin finds cryptography wherever Ansible has it: an isolated Python does not.

Each test hides what Debian has installed for Python in a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from doorward import archive
from unit.collection_plugins import COLLECTIONS

SITE = Path(sysconfig.get_path("purelib"))  # of the virtual environment, with Ansible
DEBIAN = "/usr/lib/python3/dist-packages"
PYTHON = f"/usr/bin/python{sysconfig.get_python_version()}"  # as the virtual environment's
HIDING = f'mount -t tmpfs none {DEBIAN} && exec "$@"'
RC_FILE = f"[default]\nKEY_BASE64 {'A' * 43}=\nHMAC_KEY_BASE64 {'A' * 86}==\nENCRYPTION_MODE CTR\n"  # not by libcrypto
NEEDED, FOUND = "the Python package cryptography is needed", "doorward: refused: the host answers"


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection with an archive of these sources."""
    made = tmp_path_factory.mktemp("tree") / "collections"
    shutil.copytree(COLLECTIONS, made, ignore=shutil.ignore_patterns("*.pyz"))
    archive.build(made / "ansible_collections/doorward/spa/roles/daemon/files/doorward.pyz")
    return made


def run(home: Path, words: list[str], *, hidden: bool = True, **environ: str) -> str:
    """Run a program without Debian's packages for Python, and return all that it printed."""
    known = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **environ}
    hiding = ["unshare", "-m", "sh", "-c", HIDING, "sh"] if hidden else []
    done = subprocess.run(
        [*hiding, *words], env=known, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def profile(home: Path) -> str:
    file = home / "fwknoprc"
    file.write_text(RC_FILE)
    file.chmod(0o600)
    return str(file)


def error_of_ansible(home: Path, collections: Path, python: str, *, hidden: bool = True, **environ: str) -> str:
    """The error of a task on a port where nothing listens."""
    variables = f"ansible_connection=doorward.spa.ssh ansible_spa_profile={profile(home)} ansible_port=1"
    words = ["-i", "127.0.0.1,", "all", "-m", "ansible.builtin.raw", "-a", "true", "-T", "3", "-e", variables]
    return run(
        home,
        [python, "-m", "ansible", "adhoc", *words],
        hidden=hidden,
        ANSIBLE_COLLECTIONS_PATH=str(collections),
        **environ,
    )


def test_where_nobody_names_the_folder_it_is_missing(collections: Path, tmp_path: Path) -> None:
    program = collections / "ansible_collections/doorward/spa/roles/daemon/files/doorward.pyz"
    words = [PYTHON, "-I", str(program), "connect", "--rc-file", profile(tmp_path), "--timeout", "2", "127.0.0.1", "1"]
    assert NEEDED in run(tmp_path, words, PYTHONPATH=str(SITE))


def test_after_pip_install_user(collections: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    place = Path(sysconfig.get_path("purelib", "posix_user", {"userbase": str(base)}))
    place.parent.mkdir(parents=True)
    place.symlink_to(SITE)
    assert FOUND in error_of_ansible(tmp_path, collections, PYTHON, PYTHONUSERBASE=str(base))


def test_by_pythonpath(collections: Path, tmp_path: Path) -> None:
    assert FOUND in error_of_ansible(tmp_path, collections, PYTHON, PYTHONPATH=str(SITE))


def test_in_a_virtual_environment_as_pipx_makes_it(collections: Path, tmp_path: Path) -> None:
    assert FOUND in error_of_ansible(tmp_path, collections, sys.executable)


def test_as_debians_package_beside_an_ansible_from_elsewhere(collections: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    for entry in SITE.iterdir():
        if not entry.name.startswith(("cryptography", "_cffi_backend", "cffi")):
            (others / entry.name).symlink_to(entry)
    where = run(tmp_path, [PYTHON, "-c", "import cryptography as c; print(c.__file__)"], hidden=False)
    assert where.startswith(DEBIAN)
    assert FOUND in error_of_ansible(tmp_path, collections, PYTHON, hidden=False, PYTHONPATH=str(others))
