"""The action doorward.spa.keypair: a pair is made once, and only its public half is told."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from unit.collection_plugins import ansible, module

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ansible


def test_a_pair_is_made_once_in_a_file_of_its_owner_and_its_private_half_is_not_told(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"path": str(tmp_path / "keys/ci.key"), "comment": "ci"}
    planned = module(tmp_path, "doorward.spa.keypair", "--check", **asked)
    assert (planned["changed"], planned["public_key"]) == (True, "")
    assert not (tmp_path / "keys").exists()
    made, again = (module(tmp_path, "doorward.spa.keypair", "-vvv", **asked) for _ in range(2))
    assert (made["changed"], again["changed"]) == (True, False)
    file = tmp_path / "keys/ci.key"
    private, public = (line for line in file.read_text().splitlines() if not line.startswith("#"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made["public_key"] == again["public_key"] == public
    assert public.endswith(" ci")
    shown = ansible(tmp_path, "ansible", "localhost", "-vvv", "-m", "doorward.spa.keypair", "-a", f"path={file}")
    assert private.split()[1] not in shown
    file.chmod(0o644)
    refused = module(tmp_path, "doorward.spa.keypair", check=False, **asked)
    assert refused["failed"]
    assert f"{file} holds a key and others may read it" in refused["msg"]


def test_a_pair_is_vaulted_with_the_secret_of_an_id_or_not_made(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"path": str(tmp_path / "ci.key"), "vault_id": "fleet"}
    refused = module(tmp_path, "doorward.spa.keypair", check=False, **asked)
    assert refused["failed"]
    assert "--vault-id fleet@FILE" in refused["msg"]
    assert not (tmp_path / "ci.key").exists()
    (tmp_path / "password").write_text("open sesame\n")
    made = module(tmp_path, "doorward.spa.keypair", "--vault-id", f"fleet@{tmp_path}/password", **asked)
    assert made["public_key"].startswith("doorward1 ")
    assert (tmp_path / "ci.key").read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;fleet\n")
