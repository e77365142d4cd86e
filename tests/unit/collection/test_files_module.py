"""The module doorward.spa.files: files that are given are there after it, and are the same in a second run."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from unit.collection_plugins import ansible, module

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ansible
NAME = "doorward.spa.files"


def asked(root: Path) -> dict[str, Any]:
    return {
        "root": str(root),
        "files": [
            {"path": "/etc/new/unit.service", "content": "[Unit]\nDescription=100 %\n"},
            {"path": "/etc/aid", "content": "echo here\n", "mode": "0755", "validate": "sh -n %s"},
            {"path": "/etc/old", "state": "absent"},
        ],
    }


def test_files_are_written_once_with_their_modes_and_old_ones_are_gone(tmp_path: Path) -> None:
    root = tmp_path / "the root"
    old, aid, unit = (root / name for name in ("etc/old", "etc/aid", "etc/new/unit.service"))
    old.parent.mkdir(parents=True)
    old.write_text("old")
    aid.write_text("echo before\n")
    aid.chmod(0o600)
    paths = ["/etc/new/unit.service", "/etc/aid", "/etc/old"]
    planned = module(tmp_path, NAME, "--check", **asked(root))
    assert (planned["changed"], planned["paths"]) == (True, paths)
    assert (old.read_text(), aid.read_text(), unit.exists()) == ("old", "echo before\n", False)
    shown = ansible(tmp_path, "ansible", "localhost", "--diff", "-m", NAME, "-a", json.dumps(asked(root)))
    assert "-echo before\n+echo here\n" in shown
    assert (old.exists(), aid.read_text()) == (False, "echo here\n")
    assert unit.read_text() == "[Unit]\nDescription=100 %\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (unit.parent, unit, aid)] == [0o755, 0o644, 0o755]
    again = module(tmp_path, NAME, **asked(root))
    assert (again["changed"], again["paths"]) == (False, [])
    unit.chmod(0o666)
    assert module(tmp_path, NAME, **asked(root))["paths"] == ["/etc/new/unit.service"], "anybody could write it"
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"path": "/etc/aid", "content": "if", "validate": "sh -n %s"}, "/etc/aid is not valid, and nothing was chang"),
        ({"path": "etc/aid", "content": "x"}, "'etc/aid' does not begin with /"),
        ({"path": "/etc/aid"}, "state is present but all of the following are missing: content"),
        ({"path": "/etc/aid", "content": "x", "mode": "rwx"}, "invalid literal for int() with base 8"),
        ({"path": "/etc/aid/below", "content": "x"}, "Not a directory"),
    ],
)
def test_nothing_is_written_where_one_file_is_wrong(tmp_path: Path, wrong: dict[str, str], told: str) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/aid").write_text("before")
    first = {"path": "/etc/first", "content": "first"}
    refused = module(tmp_path, NAME, check=False, root=str(root), files=[first, wrong])
    assert refused["failed"]
    assert told in refused["msg"]
    assert (root / "etc/aid").read_text() == "before"
    assert [path.name for path in (root / "etc").iterdir()] == ["aid"]
