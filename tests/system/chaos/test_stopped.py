"""Processes that stand still, and come back."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from doorward.listener.loop import PATIENCE
from system.chaos.scene import ended, listener_of
from system.doorwardd import eventually

if TYPE_CHECKING:
    from system.chaos.scene import Scene


@pytest.mark.parametrize("which", ["listener", "helper"])
def test_knocks_are_granted_once_a_process_that_stood_still_goes_on(scene: Scene, which: str) -> None:
    with scene.daemon() as daemon:
        pid = listener_of(daemon) if which == "listener" else daemon.process.pid
        os.kill(pid, signal.SIGSTOP)
        knocks = [scene.knock() for _ in range(3)]
        time.sleep(1)
        assert not any(scene.witness.times(knock.source) for knock in knocks)
        os.kill(pid, signal.SIGCONT)
        for knock in knocks:
            scene.granted(daemon, knock)
        scene.check(daemon)


def test_a_helper_that_stands_still_too_long_opens_nothing_when_it_goes_on(scene: Scene) -> None:
    with scene.daemon() as daemon:
        child = listener_of(daemon)
        daemon.signal(signal.SIGSTOP)
        knock = scene.knock()
        assert eventually(lambda: ended(child), PATIENCE + 5), "the listener waits for ever"
        daemon.signal(signal.SIGCONT)
        assert daemon.process.wait(10) != 0
        assert scene.witness.times(knock.source) == 0, "a door opened for a knock that was given up"
    with scene.daemon() as daemon:
        scene.check(daemon)


def test_a_listener_that_stood_still_while_its_helper_was_killed_ends(scene: Scene) -> None:
    with scene.daemon() as daemon:
        child = listener_of(daemon)
        os.kill(child, signal.SIGSTOP)
        scene.knock()
        daemon.signal(signal.SIGKILL)
        daemon.process.wait(10)
        os.kill(child, signal.SIGCONT)
        assert eventually(lambda: ended(child))
    with scene.daemon() as daemon:
        scene.check(daemon)
