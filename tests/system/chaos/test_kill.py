"""kill -9 of either process at every step of a grant, then a new start."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from system.chaos.scene import STEPS, ended, listener_of
from system.chaos.steps import HELPER, LISTENER
from system.doorwardd import eventually

if TYPE_CHECKING:
    from system.chaos.scene import Scene

ACTED = [*HELPER][[*HELPER].index("after the nft transaction") :]


@pytest.mark.parametrize("victim", ["listener", "helper"])
@pytest.mark.parametrize("step", [*LISTENER, *HELPER])
def test_a_kill_at_a_step_of_a_grant_harms_nothing(scene: Scene, step: str, victim: str) -> None:
    with scene.daemon(script=(str(STEPS), step), stdin=subprocess.PIPE) as daemon:
        child = listener_of(daemon)
        knock = scene.knock()
        assert daemon.process.stdout is not None
        assert daemon.process.stdout.readline() == "paused\n"
        os.kill(child if victim == "listener" else daemon.process.pid, signal.SIGKILL)
        assert daemon.process.stdin is not None
        daemon.process.stdin.write("go on" if victim != ("listener" if step in LISTENER else "helper") else "")
        daemon.process.stdin.close()
        assert daemon.process.wait(10) != 0
        assert eventually(lambda: ended(child)), "the listener outlives its helper"
    if victim == "helper" and step in HELPER:
        assert scene.witness.times(knock.source) == (step in ACTED)
    with scene.daemon() as daemon:
        scene.check(daemon)
