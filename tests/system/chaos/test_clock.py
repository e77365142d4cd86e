"""Clocks that jump, forward and backward by years: on our processes alone, through libfaketime."""

from __future__ import annotations

import glob
import time
from typing import TYPE_CHECKING

import pytest

from system.doorwardd import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from system.chaos.scene import Scene
    from system.doorwardd import Running

LIBRARIES = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")  # noqa: PTH207  an absolute pattern
JUMPS = {"ten years forward": "+3650d", "ten years back": "-3650d", "an hour forward": "+1h", "an hour back": "-1h"}


def faked(clock: Path) -> dict[str, str]:
    """Return the environment in which the clock of the day is what a file says; the steady clock stays the kernel's."""
    assert LIBRARIES, "the package faketime is not installed"
    return {
        "LD_PRELOAD": LIBRARIES[0],
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }


def jump(clock: Path, offset: str) -> None:
    """Set the clock of whoever reads the file."""
    new = clock.with_suffix(".new")
    new.write_text(offset + "\n")
    new.chmod(0o644)
    new.replace(clock)


def refused(scene: Scene, daemon: Running) -> str:
    """Return the audit line of a knock that is good by the true clock."""
    knock = scene.knock()
    line = daemon.wait_for(f"origin_port={knock.port} ")
    assert scene.witness.times(knock.source) == 0
    return line


@pytest.mark.parametrize("offset", JUMPS)
def test_a_clock_that_jumps_while_the_daemon_runs_and_jumps_back(scene: Scene, offset: str) -> None:
    clock = scene.folder / "clock"
    jump(clock, "+0")
    with scene.daemon(extra=faked(clock)) as daemon:
        scene.granted(daemon, scene.knock())
        time.sleep(1.1)  # what is knocked later is from a later second: a prune takes the first one's for seen
        jump(clock, JUMPS[offset])
        assert ("reason=clock" if "years" in offset else "verdict=denied") in refused(scene, daemon)
        time.sleep(1.1)  # a prune in between raises the floor to this second
        jump(clock, "+0")
        scene.check(daemon)


def test_a_store_pruned_by_a_clock_far_ahead_accepts_no_replay_afterwards(scene: Scene) -> None:
    clock = scene.folder / "clock"
    jump(clock, "+0")
    with scene.daemon(extra=faked(clock)) as daemon:
        knock = scene.knock()
        scene.granted(daemon, knock)
        time.sleep(1.1)  # what is knocked later is from a later second
    jump(clock, "+3650d")
    with scene.daemon(extra=faked(clock)) as daemon:  # prunes at its start
        refused(scene, daemon)
        time.sleep(1.1)
    jump(clock, "+0")
    with scene.daemon(extra=faked(clock)) as daemon:
        scene.check(daemon)


def test_a_clock_years_off_at_boot_is_named_and_mended_in_the_run(scene: Scene) -> None:
    clock = scene.folder / "clock"
    jump(clock, "-7300d")
    with scene.daemon(extra=faked(clock)) as daemon:
        assert "reason=clock" in refused(scene, daemon)
        jump(clock, "+0")
        scene.check(daemon)


def test_a_door_closes_on_time_whatever_the_clock_of_the_day_does(scene: Scene) -> None:
    clock = scene.folder / "clock"
    jump(clock, "+0")
    with scene.daemon(extra=faked(clock)) as daemon:
        knock = scene.knock()
        scene.granted(daemon, knock)
        jump(clock, "-3650d")
        assert eventually(lambda: knock.source not in scene.open_sources(), 2)
        scene.host.nft("flush ruleset\n")
        daemon.wait_for("OUR TABLE WAS REMOVED")
        assert knock.source not in scene.open_sources()
        jump(clock, "+0")
        scene.check(daemon)
