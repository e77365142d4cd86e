"""The check that every case ends with fails where it should."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from doorward.replay import ReplayStore
from system.doorwardd import write

if TYPE_CHECKING:
    from system.chaos.scene import Scene


def test_the_check_passes_where_nothing_was_done(scene: Scene) -> None:
    with scene.daemon() as daemon:
        scene.granted(daemon, scene.knock())
        scene.check(daemon)


def test_the_check_sees_a_door_that_is_open_past_its_time(scene: Scene) -> None:
    with scene.daemon() as daemon:
        knock = scene.knock()
        scene.granted(daemon, knock)
        scene.host.nft(f"add element inet doorward open4 {{ {knock.source} . 6 . 23 timeout 10s }}\n")
        with pytest.raises(AssertionError, match=f"{knock.source} is open .* past its time"):
            scene.check(daemon)


def test_the_check_sees_a_door_that_is_open_to_everybody(scene: Scene) -> None:
    with scene.daemon() as daemon:
        scene.host.nft("add element inet doorward open_any { tcp . 22 timeout 60s }\n")
        with pytest.raises(AssertionError, match="open with nothing granted"):
            scene.check(daemon)


def test_the_check_sees_a_replay_that_was_accepted(scene: Scene) -> None:
    with scene.daemon() as daemon:
        scene.granted(daemon, scene.knock())
    run = scene.folder / "run"
    for file in run.glob("replay.db*"):
        file.unlink()
    ReplayStore(run / "replay.db").close()  # planted: one that has forgotten and does not know it
    for file in run.glob("replay.db*"):
        os.chown(file, run.stat().st_uid, run.stat().st_gid)
    with scene.daemon() as daemon, pytest.raises(AssertionError, match="a replay was accepted"):
        scene.check(daemon)


def test_the_check_sees_a_good_knock_that_is_not_granted(scene: Scene) -> None:
    write(scene.folder / "doorwardd.conf", f"FIREWALL_FILE {scene.folder}/none.nft;\nPCAP_INTF lo;\n", 0o644)
    with scene.daemon() as daemon, pytest.raises(AssertionError, match="no 'origin_port="):
        scene.check(daemon)
