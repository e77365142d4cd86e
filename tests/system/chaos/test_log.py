"""A log that nobody reads, and one that is closed: lines are lost, verdicts are not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING

from system.chaos.scene import ended, listener_of
from system.doorwardd import Running, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.chaos.scene import Scene

PIPE_BYTES = 4096  # the smallest pipe: full after some thirty lines
KNOCKS = 60


@contextlib.contextmanager
def unread(scene: Scene) -> Iterator[tuple[Running, int]]:
    """Yield a daemon whose log goes into a small pipe, and the end of it that nobody reads."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        with scene.daemon(stderr=writer, hears=False) as daemon:
            os.close(writer)
            assert eventually(lambda: bool(scene.knock()) and any(map(scene.witness.times, sources(scene))))
            yield daemon, reader
    finally:
        os.close(reader)


def sources(scene: Scene) -> list[str]:
    """Return what was asked for so far."""
    return [knock.source for knock in scene.knocks]


def test_verdicts_do_not_wait_for_a_log_that_nobody_reads(scene: Scene) -> None:
    with unread(scene) as (daemon, reader):
        for _ in range(KNOCKS):
            scene.knock()
        assert eventually(lambda: all(scene.witness.times(knock.source) for knock in scene.knocks[-KNOCKS:]))
        read = Running(daemon.process, scene.folder)
        daemon.process.stderr = os.fdopen(os.dup(reader))
        collecting = threading.Thread(target=read.take, daemon=True)
        collecting.start()
        scene.check(read)
    collecting.join(10)


def test_a_daemon_whose_log_nobody_reads_ends_when_it_is_told(scene: Scene) -> None:
    with unread(scene) as (daemon, _):
        child = listener_of(daemon)
        for _ in range(KNOCKS):
            scene.knock()
        assert eventually(lambda: all(scene.witness.times(knock.source) for knock in scene.knocks[-KNOCKS:]))
        daemon.process.terminate()
        assert eventually(lambda: ended(child), 8), "it waits for its log"
        daemon.process.wait(10)
    with scene.daemon() as daemon:
        scene.check(daemon)


def test_a_log_that_is_closed_costs_lines_and_no_verdict(scene: Scene) -> None:
    with scene.daemon() as daemon:
        assert daemon.process.stderr is not None
        knocks = [scene.knock() for _ in range(KNOCKS)]
        daemon.wait_for("reason=granted", KNOCKS)
        os.dup2(os.open(os.devnull, os.O_RDONLY), daemon.process.stderr.fileno())  # the only reader of the pipe is gone
        knocks = [scene.knock() for _ in range(KNOCKS)]
        assert eventually(lambda: all(scene.witness.times(knock.source) == 1 for knock in knocks))
        for knock in knocks:
            scene.send(knock)
        last = scene.knock()
        assert eventually(lambda: scene.witness.times(last.source) == 1)
        assert all(scene.witness.times(knock.source) == 1 for knock in knocks), "a replay was accepted"
        assert not ended(listener_of(daemon))
    with scene.daemon() as daemon:
        scene.check(daemon)
