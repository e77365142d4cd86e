"""`ansible-test sanity` on the collection, with every test that ansible-core has for collections.

ansible-test wants the collection in a git work tree below a folder ansible_collections, and makes an environment with
pinned packages for each test that needs some. Both are kept in build/sanity. It would download pip's bootstrap script
from a host that many machines do not reach; the script that it finds in its cache takes the pip that Python brings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
COLLECTIONS: Final = REPOSITORY / "collections"
COLLECTION: Final = Path("ansible_collections/doorward/spa")
BUILD: Final = REPOSITORY / "build/sanity"
HOME: Final = BUILD / "home"
BIN: Final = Path(sys.executable).parent
VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
BOOTSTRAP: Final = "import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n"


def put_bootstrap_script() -> None:
    """Put the script that installs pip where ansible-test looks for it before it downloads one."""
    asked = (
        "import types; from ansible_test._internal import python_requirements as r;"
        f"print(r.get_venv_packages(types.SimpleNamespace(version={VERSION!r}))['pip'])"
    )
    version = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    script = HOME / f".ansible/test/cache/get_pip_{version.replace('.', '_')}.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(BOOTSTRAP, encoding="utf-8")


def copy() -> Path:
    """A fresh copy of the collection's files in a git work tree of their own."""
    root = BUILD / "root"
    shutil.rmtree(root, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", str(COLLECTION)]
    names = subprocess.run(listed, cwd=COLLECTIONS, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (COLLECTIONS / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(COLLECTIONS / name, root / name)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    return root / COLLECTION


def main(arguments: list[str]) -> int:
    """The exit code of ansible-test; without arguments it runs every test."""
    put_bootstrap_script()
    environment = {**os.environ, "HOME": str(HOME), "PATH": f"{BIN}:{os.environ['PATH']}"}
    settings = Path.home() / ".config/pip/pip.conf"
    if settings.exists():  # under another HOME pip would not look there
        environment.setdefault("PIP_CONFIG_FILE", str(settings))
    for variable in ("ANSIBLE_HOME", "ANSIBLE_COLLECTIONS_PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(variable, None)
    command = [str(BIN / "ansible-test"), "sanity", "--local", "--requirements", "--python", VERSION, "--color", "no"]
    return subprocess.run([*command, *arguments], cwd=copy(), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
