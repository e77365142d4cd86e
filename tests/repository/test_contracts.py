"""The checks of `make check` fail when what they keep is broken on purpose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# A module, an import that it must not have, and how the contracts name it.
BROKEN_IMPORTS = {
    "wire/fwknop.py": ("import socket", "doorward.wire.fwknop -> socket"),
    "policy.py": ("import time", "doorward.policy -> time"),
    "values.py": ("from doorward.gate import Gate", "doorward.values -> doorward.gate"),
    "config/reader.py": ("import doorward.crypto.symmetric", "doorward.config.reader -> doorward.crypto.symmetric"),
    "gate.py": ("from cryptography.hazmat.primitives import hashes", "doorward.gate -> cryptography"),
    "listener/captures.py": (
        "from doorward.linux import netlink",
        "doorward.listener.captures -> doorward.linux.netlink",
    ),
    "capture/packet.py": ("import doorward.client.cli", "doorward.capture.packet -> doorward.client.cli"),
}
FUTURE = "from __future__ import annotations\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "daemon", tmp_path / "daemon", ignore=ignored)
    return tmp_path


def output(tree: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree / "daemon")}
    command = [str(BIN / tool), *arguments]
    return subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True)


def run(tree: Path, tool: str, *arguments: str) -> int:
    return output(tree, tool, *arguments).returncode


def test_the_import_contracts_hold_and_break_with_each_import_that_points_up(tree: Path) -> None:
    held = output(tree, "lint-imports", "--no-cache")
    assert held.returncode == 0
    for name, (line, _) in BROKEN_IMPORTS.items():
        file = tree / "daemon/doorward" / name
        file.write_text(file.read_text().replace(FUTURE, f"{FUTURE}{line}\n", 1))
    broken = output(tree, "lint-imports", "--no-cache")
    assert broken.returncode != 0
    assert [shown for _, shown in BROKEN_IMPORTS.values() if f"{shown} (l." not in broken.stdout] == []
    assert not [shown for _, shown in BROKEN_IMPORTS.values() if shown in held.stdout]


def test_a_circle_within_a_room_breaks_a_contract(tree: Path) -> None:
    file = tree / "daemon/doorward/helper/server.py"
    file.write_text(file.read_text().replace(FUTURE, f"{FUTURE}import doorward.helper.process\n", 1))
    broken = output(tree, "lint-imports", "--no-cache")
    assert broken.returncode != 0
    assert ".server -> .process (1 import)" in broken.stdout


def test_mypy_is_strict(tree: Path) -> None:
    shutil.rmtree(tree / "daemon/doorward")
    file = tree / "daemon/one.py"
    file.write_text('"""One."""\n\n\ndef double(number: int) -> int:\n    """Double."""\n    return 2 * number\n')
    assert run(tree, "mypy", "daemon/one.py", "--cache-dir", "cache") == 0
    file.write_text(file.read_text().replace("number: int", "number"))
    assert run(tree, "mypy", "daemon/one.py", "--cache-dir", "cache") != 0


def test_ruff_has_every_rule_on(tree: Path) -> None:
    assert run(tree, "ruff", "check", "--no-cache", "daemon") == 0
    file = tree / "daemon/doorward/policy.py"
    whole = file.read_text()
    for fault in ("def undocumented(x):\n    return x\n", "import os\n", "eval('1')\n", "x = 'single'\nprint(x)\n"):
        file.write_text(f"{whole}\n\n{fault}")
        assert run(tree, "ruff", "check", "--no-cache", "daemon") != 0, fault
