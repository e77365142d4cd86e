"""The action doorward.spa.rotation: this controller's new pair takes the old one's place once every host accepts it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from unit.collection_plugins import module

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ansible


def key(folder: Path, **arguments: Any) -> dict[str, Any]:
    """What the action doorward.spa.key says of the host web."""
    given: dict[str, Any] = {"host": "web", "clients": ["controller"], "private_key_file": str(folder / "own.key")}
    return module(folder, "doorward.spa.key", **{**given, "folder": str(folder / "keys"), **arguments})


def rotation(folder: Path, state: str, *options: str, hosts: tuple[str, ...] = ("localhost",)) -> dict[str, Any]:
    given: dict[str, Any] = {"state": state, "hosts": hosts, "private_key_file": str(folder / "own.key")}
    options = ("-i", "localhost,", "-c", "local", *options)
    return module(folder, "doorward.spa.rotation", *options, check=False, **{**given, "folder": str(folder / "keys")})


def done(**said: object) -> tuple[str, str]:
    """The variables of a host that the play has had to do with."""
    return "-e", json.dumps({"rotate_done": said})


def public(folder: Path) -> str:
    return str(key(folder)["stanzas"][0]["public_key"])


def test_the_new_pair_is_made_once_and_used_when_every_host_accepts_it(tmp_path: Path) -> None:
    old = public(tmp_path)
    first, again = rotation(tmp_path, "begun"), rotation(tmp_path, "begun")
    assert (first["old"], first["changed"], again["changed"]) == (old, True, False)
    assert first["new"] == again["new"] != old
    assert (tmp_path / "own.key.new").stat().st_mode & 0o777 == 0o600
    assert public(tmp_path) == old, "connections use the old one"

    refused = rotation(tmp_path, "switched")
    assert refused["failed"]
    assert "localhost (the run ended before it)" in refused["msg"]
    assert public(tmp_path) == old
    assert not (tmp_path / "keys/.revoked.json").exists()

    assert rotation(tmp_path, "switched", *done(accepted=True))["changed"]
    assert public(tmp_path) == first["new"]
    assert old.split()[1] in (tmp_path / "own.key.old").read_text(encoding="utf-8")
    assert not (tmp_path / "own.key.new").exists()
    [revoked] = json.loads((tmp_path / "keys/.revoked.json").read_text(encoding="utf-8"))["revoked"]
    assert (revoked["keys"], revoked["waiting"]) == ([old], ["localhost"])
    assert not rotation(tmp_path, "switched", *done(accepted=True))["changed"]


def test_an_unfinished_rotation_is_finished_before_another_one_begins(tmp_path: Path) -> None:
    public(tmp_path)
    rotation(tmp_path, "begun")
    rotation(tmp_path, "switched", *done(accepted=True))
    assert rotation(tmp_path, "begun")["new"] == "", "the old key still has to be taken out of localhost"
    key(tmp_path, host="localhost", enrolled=True)  # as a roll-out ends
    assert rotation(tmp_path, "begun")["new"]


@pytest.mark.parametrize(
    ("said", "why"),
    [({"failed": True, "msg": "a knock opens nothing"}, "a knock opens nothing"), ({}, "the run ended before it")],
)
def test_a_host_that_does_not_accept_it_keeps_the_old_pair_in_use(
    tmp_path: Path, said: dict[str, object], why: str
) -> None:
    public(tmp_path)
    rotation(tmp_path, "begun")
    refused = rotation(tmp_path, "switched", *done(**said))
    assert refused["failed"]
    assert f"localhost ({why})" in refused["msg"]
    assert not (tmp_path / "own.key.old").exists()


def test_enrolled_hosts_beyond_the_run_count_and_symmetric_ones_do_not(tmp_path: Path) -> None:
    mark = key(tmp_path)["enrolment"]
    key(tmp_path, host_mark=mark, enrolled=True)
    rotation(tmp_path, "begun")
    refused = rotation(tmp_path, "switched", *done(accepted=True))
    assert "web (enrolled by this controller, and not in this inventory)" in refused["msg"]
    key(tmp_path, host_mark=mark, enrolled=False)
    assert rotation(tmp_path, "switched", *done(symmetric=True))["changed"]


def test_check_mode_makes_nothing(tmp_path: Path) -> None:
    public(tmp_path)
    assert rotation(tmp_path, "begun", "--check")["changed"]
    assert not (tmp_path / "own.key.new").exists()
    rotation(tmp_path, "begun")
    rotation(tmp_path, "switched", "--check", *done(accepted=True))
    assert (tmp_path / "own.key.new").exists()


def test_without_a_pair_there_is_nothing_to_replace(tmp_path: Path) -> None:
    refused = rotation(tmp_path, "begun")
    assert refused["failed"]
    assert "no pair to be replaced" in refused["msg"]
