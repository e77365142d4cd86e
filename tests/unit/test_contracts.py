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
BROKEN_IMPORTS = {
    "wire/fwknop.py": "import socket\n",
    "policy.py": "import time\n",
    "values.py": "from doorward.gate import Gate\n",
    "config/reader.py": "import doorward.crypto.symmetric\n",
    "gate.py": "from cryptography.hazmat.primitives import hashes\n",
    "capture/packet.py": "import doorward.client.cli\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "daemon", tmp_path / "daemon", ignore=ignored)
    return tmp_path


def run(tree: Path, tool: str, *arguments: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(tree / "daemon")}
    return subprocess.run(
        [str(BIN / tool), *arguments], cwd=tree, env=environment, check=False, capture_output=True
    ).returncode


def test_the_import_contracts_hold_and_break_with_each_import_that_points_up(tree: Path) -> None:
    assert run(tree, "lint-imports", "--no-cache") == 0
    for name, line in BROKEN_IMPORTS.items():
        file = tree / "daemon/doorward" / name
        whole = file.read_text()
        file.write_text(
            whole.replace("from __future__ import annotations\n", f"from __future__ import annotations\n{line}", 1)
        )
        assert run(tree, "lint-imports", "--no-cache") != 0, name
        file.write_text(whole)
    assert run(tree, "lint-imports", "--no-cache") == 0


def test_mypy_is_strict(tree: Path) -> None:
    shutil.rmtree(tree / "daemon/doorward")
    file = tree / "daemon/one.py"
    file.write_text('"""One."""\n\n\ndef double(number: int) -> int:\n    """Double."""\n    return 2 * number\n')
    assert run(tree, "mypy", "daemon/one.py", "--cache-dir", os.devnull) == 0
    file.write_text(file.read_text().replace("number: int", "number"))
    assert run(tree, "mypy", "daemon/one.py", "--cache-dir", os.devnull) != 0


def test_ruff_has_every_rule_on(tree: Path) -> None:
    assert run(tree, "ruff", "check", "--no-cache", "daemon") == 0
    file = tree / "daemon/doorward/policy.py"
    whole = file.read_text()
    for fault in ("def undocumented(x):\n    return x\n", "import os\n", "eval('1')\n", "x = 'single'\nprint(x)\n"):
        file.write_text(f"{whole}\n\n{fault}")
        assert run(tree, "ruff", "check", "--no-cache", "daemon") != 0, fault
