"""The check that every case ends with fails where it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
        scene.host.nft("insert rule inet doorward guard tcp dport 22 accept\n")
        with pytest.raises(AssertionError, match="open with nothing granted"):
            scene.check(daemon)


def test_the_check_sees_a_replay_that_was_accepted(scene: Scene) -> None:
    with scene.daemon() as daemon:
        scene.granted(daemon, scene.knock())
    for file in (scene.folder / "run").glob("replay.db*"):
        file.unlink()
    with scene.daemon() as daemon, pytest.raises(AssertionError, match="a replay was accepted"):
        scene.check(daemon)


def test_the_check_sees_a_good_knock_that_is_not_granted(scene: Scene) -> None:
    write(scene.folder / "doorwardd.conf", f"FIREWALL_FILE {scene.folder}/none.nft;\nPCAP_INTF lo;\n", 0o644)
    with scene.daemon() as daemon, pytest.raises(AssertionError, match="no 'origin_port="):
        scene.check(daemon)
