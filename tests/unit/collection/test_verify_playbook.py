"""doorward.spa.verify where no host is reached: each has its row, the report is written, and the run fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from unit.collection_plugins import ansible

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ansible

HOSTS = """\
all:
  vars:
    ansible_connection: doorward.spa.ssh
    ansible_ssh_common_args: -F /dev/null
  hosts:
    refused:
      ansible_host: 127.0.0.1
      ansible_port: 1
    unknown:
      ansible_host: nowhere.invalid
    "broken":
      ansible_host: 127.0.0.1
      ansible_port: 1
      doorward_max_age: "{{ lookup('ansible.builtin.file', '/nonexistent') }}"
    outsider:
      ansible_connection: local
"""


def verify(folder: Path, *options: str) -> str:
    (folder / "hosts.yml").write_text(HOSTS, encoding="utf-8")
    given = ("-i", str(folder / "hosts.yml"), "-e", "doorward_outsider=outsider", *options)
    return ansible(folder, "ansible-playbook", "doorward.spa.verify", *given, check=False)


def test_hosts_that_are_not_reached_have_rows_of_their_own(tmp_path: Path) -> None:
    files = [str(tmp_path / "report.html"), str(tmp_path / "new/report.json")]
    shown = verify(tmp_path, "-e", json.dumps({"doorward_report": files}))
    assert "3 of 3 hosts are not well" in shown
    said = json.loads((tmp_path / "new/report.json").read_text(encoding="utf-8"))
    assert {host["host"]: host["state"] for host in said["hosts"]} == dict.fromkeys(
        ("broken", "refused", "unknown"), "not reached"
    ), "the outsider is no host of the report"
    reasons = {host["host"]: host["line"] for host in said["hosts"]}
    assert "refused" in reasons["refused"]
    assert "nowhere.invalid" in reasons["unknown"]
    assert "/nonexistent" in reasons["broken"]
    assert all(line in shown for line in reasons.values())
    assert "3 of 3 hosts are not well" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600


def test_a_limit_keeps_the_report_to_its_hosts(tmp_path: Path) -> None:
    shown = verify(tmp_path, "--limit", "refused", "-e", f"doorward_report={tmp_path}/one.json")
    said = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert [host["host"] for host in said["hosts"]] == ["refused"]
    assert "1 of 1 hosts is not well" in shown
