"""What the helper leaves in its status file reaches the user of Ansible."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

from unit.collection_plugins import COLLECTIONS, ansible, plugin
from unit.test_status_file import KEYS

if TYPE_CHECKING:
    from pathlib import Path


def test_a_mistake_in_the_options_reaches_ansibles_user(tmp_path: Path) -> None:
    sources = tmp_path / "collections"  # without an archive, which may be an older one
    shutil.copytree(COLLECTIONS, sources, ignore=shutil.ignore_patterns("*.pyz"))
    key = KEYS.replace("\n", "\\n")
    variables = f'ansible_connection=doorward.spa.ssh ansible_spa_source=nonsense ansible_spa_key="{key}"'
    words = ["-i", "127.0.0.1,", "all", "-m", "ansible.builtin.ping", "-e", variables]
    shown = ansible(tmp_path, "ansible", *words, check=False, collections=sources)
    assert "doorward: the helper does not take its options: --source: 'nonsense' is neither" in shown


def test_a_long_reason_arrives_with_its_end_and_one_without_one_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "status"
    told = plugin("connection.ssh").Connection._spa_reason  # noqa: SLF001  what the error of a task is made of
    reason = f"closed after 4 knocks as {'2001:db8:1:2:3:4:5:6 and ' * 30}: key? clock?; try: doorward doctor web1"
    for text, shown in ((f"{reason}\n", reason), ("x" * 2000, "x" * 1000)):
        file.write_text(text)
        assert told(SimpleNamespace(_spa_status=file)) == shown
