"""The action doorward.spa.key and the lookup with symmetric keys, run by ansible."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from unit.collection_plugins import COLLECTION, ansible, module

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ansible


def make(folder: Path, *options: str, check: bool = True, **arguments: object) -> dict[str, Any]:
    arguments = {"host": "web", "folder": str(folder / "keys"), "format": "fwknop", **arguments}
    return module(folder, "doorward.spa.key", *options, check=check, **arguments)


def enrol(folder: Path) -> str:
    mark: str = make(folder)["enrolment"]
    assert make(folder, host_mark=mark, enrolled=True)["changed"]
    return mark


def test_a_key_is_made_once_and_only_its_fingerprint_is_told(tmp_path: Path) -> None:
    planned = make(tmp_path, "--check")
    assert planned["made"] == ["controller"]
    assert not (tmp_path / "keys").exists()
    first, second = make(tmp_path), make(tmp_path)
    assert first["changed"]
    assert not second["changed"]
    assert first["fingerprints"] == second["fingerprints"]
    key = (tmp_path / "keys/web/controller.key").read_text(encoding="utf-8")
    assert key.splitlines()[0].split()[1] not in str(first)


def test_an_interrupted_roll_out_goes_on(tmp_path: Path) -> None:
    make(tmp_path)  # the host never got its mark
    assert not make(tmp_path)["changed"]


def test_an_enrolled_host_stays_enrolled(tmp_path: Path) -> None:
    assert not make(tmp_path, host_mark=enrol(tmp_path))["changed"]


def test_a_reinstalled_host_is_reported_by_name_until_it_is_to_be_enrolled_again(tmp_path: Path) -> None:
    enrol(tmp_path)
    refused = make(tmp_path, check=False)
    assert refused["failed"]
    assert "web was enrolled" in refused["msg"]
    assert not make(tmp_path, reenroll=True)["changed"]


def test_a_host_that_is_enrolled_under_another_name_is_reported_with_that_name(tmp_path: Path) -> None:
    mark = enrol(tmp_path)
    refused = make(tmp_path, check=False, host="www", host_mark=mark)
    assert refused["failed"]
    assert "www is the host that was enrolled as web" in refused["msg"]
    assert "lookup('doorward.spa.key', 'web')" in refused["msg"]
    assert not (tmp_path / "keys/www").exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_host_of_another_controller_is_left_alone(tmp_path: Path, *, known: bool) -> None:
    if known:
        make(tmp_path)
    refused = make(tmp_path, check=False, host_mark="0" * 32)
    assert refused["failed"]
    assert "another controller" in refused["msg"]
    assert (tmp_path / "keys").exists() is known


def test_a_spoilt_key_is_named_and_not_remade(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "keys/web/controller.key"
    file.write_text("KEY_BASE64: c2VjcmV0\n", encoding="utf-8")
    refused = make(tmp_path, check=False)
    assert refused["failed"]
    assert str(file) in refused["msg"]
    assert "c2VjcmV0" not in str(refused)


def test_a_vaulted_key_is_opened_by_the_lookup(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n", encoding="utf-8")
    vault = ("--vault-id", f"fleet@{password}")
    made = make(tmp_path, *vault, vault_id="fleet")
    again = make(tmp_path, *vault, vault_id="fleet")
    assert made["fingerprints"] == again["fingerprints"]
    assert (
        (tmp_path / "keys/web/controller.key")
        .read_text(encoding="utf-8")
        .startswith("$ANSIBLE_VAULT;1.2;AES256;fleet\n")
    )
    text = "{{ lookup('doorward.spa.key', 'web', folder='%s') }}" % (tmp_path / "keys")
    shown = ansible(tmp_path, "ansible", "localhost", "-m", "debug", "-a", f"msg={text}", *vault)
    assert "KEY_BASE64: " in shown
    refused = make(tmp_path, check=False, vault_id="fleet", clients=["alice"])
    assert refused["failed"]
    assert "--vault-id fleet@FILE" in refused["msg"]


INVENTORY = """
a.example.org
b.example.org
b.example.net ansible_host=192.0.2.9
c ansible_host=192.0.2.9 ansible_port=2222
[all:vars]
ansible_connection=doorward.spa.ssh
ansible_ssh_executable={folder}/ssh
doorward_keys_dir={folder}/keys
ansible_spa_key="{{{{ lookup('doorward.spa.key') }}}}"
"""
PLAY = """
- hosts: a.example.org
  gather_facts: false
  tasks:
    - ansible.builtin.raw: "true"
    - ansible.builtin.raw: "true"
      delegate_to: "{{ item }}"
      loop: [b.example.org, b.example.net, c]
"""
# Stands where ssh would: writes down which key the connection plugin gave it, if any.
SSH = """#!/bin/sh
file=$(printf '%s\\n' "$*" | sed -n 's/.*--rc-file \\([^ ]*\\) .*/\\1/p')
{{ sed -n 's/^KEY_BASE64 /key /p' "${{file:-/dev/null}}"; echo .; }} >> {folder}/seen
"""


def test_a_connection_uses_the_key_of_its_own_host_in_delegated_tasks_too(tmp_path: Path) -> None:
    names = ("a.example.org", "b.example.org", "b.example.net")
    for name in names:
        make(tmp_path, host=name)
    (tmp_path / "hosts").write_text(INVENTORY.format(folder=tmp_path), encoding="utf-8")
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    (tmp_path / "ssh").write_text(SSH.format(folder=tmp_path), encoding="utf-8")
    (tmp_path / "ssh").chmod(0o700)
    ansible(tmp_path, "ansible-playbook", "-i", "hosts", "play.yml")
    keys = [(tmp_path / f"keys/{name}/controller.key").read_text(encoding="utf-8").split()[1] for name in names]
    seen = (tmp_path / "seen").read_text(encoding="utf-8").split()
    assert seen == ["key", keys[0], ".", "key", keys[1], ".", "key", keys[2], ".", "."]  # c has no key yet


def test_the_role_readmes_are_those_of_the_argument_specs() -> None:
    script = [sys.executable, str(COLLECTION / "tools/role_readmes.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_host_that_was_taken_off_on_purpose_is_no_reinstalled_one(tmp_path: Path) -> None:
    enrol(tmp_path)
    assert make(tmp_path, reenroll=True, enrolled=False)["changed"]
    assert not make(tmp_path)["changed"]
