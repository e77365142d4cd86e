"""Revoked clients on the controller: the actions doorward.spa.revocation and doorward.spa.key, run by ansible."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from unit.collection_plugins import ansible, module

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ansible

ALICE, NEW = ("doorward1 " + base64.b64encode(letter * 32).decode() for letter in (b"a", b"n"))


def make(folder: Path, *clients: dict[str, str], check: bool = True, **arguments: object) -> dict[str, Any]:
    given = {"host": "web", "folder": str(folder / "keys"), "private_key_file": str(folder / "own.key")}
    return module(
        folder, "doorward.spa.key", check=check, **{**given, "clients": ["controller", *clients], **arguments}
    )


def warned(folder: Path, *clients: dict[str, str], host: str = "web") -> str:
    """What ansible warns of, in one line, where the keys of a host are made."""
    given = {"host": host, "folder": str(folder / "keys"), "private_key_file": str(folder / "own.key")}
    words = json.dumps({**given, "clients": ["controller", *clients]})
    return " ".join(ansible(folder, "ansible", "localhost", "-m", "doorward.spa.key", "-a", words).split())


def note(folder: Path, client: str, *options: str, state: str = "noted", **arguments: object) -> dict[str, Any]:
    given = {"state": state, "client": client, "hosts": ["localhost"], "folder": str(folder / "keys")}
    own = {"private_key_file": str(folder / "own.key")} if state == "noted" else {}
    options = ("-i", "localhost,", "-c", "local", *options)
    return module(folder, "doorward.spa.revocation", *options, check=False, **{**given, **own, **arguments})


def known(folder: Path) -> dict[str, Any]:
    listed = json.loads((folder / "keys/.revoked.json").read_text(encoding="utf-8"))["revoked"]
    return {each["name"]: each for each in listed}


def names(made: dict[str, Any]) -> list[str]:
    return [stanza["name"] for stanza in made["stanzas"]]


def clients(*entries: dict[str, str]) -> tuple[str, str]:
    return "-e", json.dumps({"doorward_clients": entries})


def test_a_revoked_public_key_does_not_come_back_and_a_new_one_of_that_name_does(tmp_path: Path) -> None:
    alice = {"name": "alice", "public_key": f"{ALICE} alice@laptop"}
    assert names(make(tmp_path, alice)) == ["controller", "alice"]
    assert note(tmp_path, "alice", *clients(alice))["changed"]
    assert not note(tmp_path, "alice", *clients(alice))["changed"]
    assert known(tmp_path)["alice"]["keys"] == [ALICE]
    again = make(tmp_path, alice)
    assert names(again) == ["controller"]
    assert "alice is in doorward_clients with a key that was revoked" in warned(tmp_path, alice)
    other = make(tmp_path, {"name": "bob", "public_key": ALICE})
    assert names(other) == ["controller"], "under no other name either"
    fresh = make(tmp_path, {"name": "alice", "public_key": NEW})
    assert names(fresh) == ["controller", "alice"]
    assert "revoked" not in warned(tmp_path, {"name": "alice", "public_key": NEW})


def test_a_revoked_symmetric_key_is_put_aside_and_the_name_gets_a_new_one(tmp_path: Path) -> None:
    build = {"name": "build", "format": "fwknop"}
    first = make(tmp_path, build, host="localhost")["fingerprints"]["build"]
    note(tmp_path, "build")
    assert known(tmp_path)["build"]["keys"] == [first]
    assert "build was revoked" in warned(tmp_path, build, host="localhost")
    again = make(tmp_path, build, host="localhost")
    assert again["fingerprints"]["build"] != first
    assert (tmp_path / "keys/localhost/build.revoked").is_file()
    assert not make(tmp_path, build, host="localhost")["changed"]


def test_every_enrolled_host_waits_until_it_is_done_or_rolled_out(tmp_path: Path) -> None:
    mark = make(tmp_path)["enrolment"]
    make(tmp_path, host_mark=mark, enrolled=True)
    note(tmp_path, "alice", *clients({"name": "alice", "public_key": ALICE}))
    assert known(tmp_path)["alice"]["waiting"] == ["localhost", "web"]
    told = note(tmp_path, "alice", state="reported")
    assert told["failed"]
    assert told["waiting"] == ["localhost", "web"]
    assert "web (enrolled by this controller, and not in this inventory)" in str(told["msg"])
    make(tmp_path, host_mark=mark, enrolled=True)
    assert known(tmp_path)["alice"]["waiting"] == ["localhost"]


def test_this_controller_is_not_revoked_from_here_under_any_name(tmp_path: Path) -> None:
    own = make(tmp_path)["stanzas"][0]["public_key"]
    refused = note(tmp_path, "controller")
    assert refused["failed"]
    assert "would lock itself out" in refused["msg"]
    refused = note(tmp_path, "alias", *clients({"name": "alias", "public_key": own}))
    assert refused["failed"]
    assert "this controller's own pair" in refused["msg"]
    assert not (tmp_path / "keys/.revoked.json").exists()


def test_a_name_that_nobody_knows_is_an_error_and_is_forgotten(tmp_path: Path) -> None:
    make(tmp_path)
    note(tmp_path, "alise")
    refused = note(tmp_path, "alise", state="reported")
    assert refused["failed"]
    assert "a typo?" in refused["msg"]
    assert known(tmp_path) == {}


@pytest.mark.parametrize("name", ["../../etc", "a b", ".", "x" * 300])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    refused = note(tmp_path, name)
    assert refused["failed"]
    assert "cannot be the name of a client" in refused["msg"]


def test_check_mode_remembers_nothing(tmp_path: Path) -> None:
    assert note(tmp_path, "alice", "--check", *clients({"name": "alice", "public_key": ALICE}))["changed"]
    assert not (tmp_path / "keys/.revoked.json").exists()


def test_a_pair_of_this_controller_that_was_replaced_is_not_used_again(tmp_path: Path) -> None:
    own = make(tmp_path)["stanzas"][0]["public_key"]
    (tmp_path / "keys/.revoked.json").write_text(
        json.dumps({"revoked": [{"name": "old", "since": "now", "keys": [own], "waiting": []}]})
    )
    refused = make(tmp_path, check=False)
    assert refused["failed"]
    assert "was revoked (now)" in refused["msg"]
