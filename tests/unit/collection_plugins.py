"""The collection's plugins as modules, and ansible as a program, for the tests of the collection."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COLLECTIONS = Path(__file__).resolve().parents[2] / "collections"
COLLECTION = COLLECTIONS / "ansible_collections" / "doorward" / "spa"


def plugin(name: str) -> Any:
    """Return a module of the collection, such as `plugin_utils._key_text`."""
    if str(COLLECTIONS) not in sys.path:
        sys.path.append(str(COLLECTIONS))
    return importlib.import_module(f"ansible_collections.doorward.spa.plugins.{name}")


def ansible(folder: Path, program: str, *arguments: str, check: bool = True, collections: Path = COLLECTIONS) -> str:
    """Run a program of ansible-core with nothing of the caller's settings and return all that it printed."""
    binaries = Path(sys.executable).parent
    environment = {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(COLLECTIONS.parent / "daemon"),  # where no archive was made the sources take its place
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
        "PYTHONPYCACHEPREFIX": str(COLLECTIONS.parent / "build/bytecode"),  # nothing beside the sources
    }
    done = subprocess.run(
        [binaries / program, *arguments],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def module(home: Path, name: str, *options: str, check: bool = True, **arguments: object) -> dict[str, Any]:
    """Run one module on localhost and return its result."""
    shown = ansible(home, "ansible", "localhost", "-m", name, "-a", json.dumps(arguments), *options, check=check)
    result: dict[str, Any] = json.loads(shown[shown.index("=> {") + 3 : shown.rindex("}") + 1])
    return result | {"failed": "localhost | FAILED!" in shown}
