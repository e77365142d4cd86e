"""Reloads in storms and with files that are broken or half written, while knocks arrive."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from system.chaos.scene import ACCESS
from system.doorwardd import write

if TYPE_CHECKING:
    from system.chaos.scene import Scene

HANGUPS = 1000


def test_a_thousand_hangups_while_knocks_arrive_lose_no_knock(scene: Scene) -> None:
    with scene.daemon() as daemon:
        knocks = []
        for number in range(HANGUPS):
            daemon.signal(signal.SIGHUP)
            if number % 50 == 0:
                knocks.append(scene.knock())
        for knock in knocks:
            scene.granted(daemon, knock)
        daemon.wait_for("was read again")
        scene.check(daemon)


def test_a_broken_file_changes_nothing(scene: Scene) -> None:
    with scene.daemon() as daemon:
        for broken in (ACCESS.replace("KEY_BASE64", "KEY_BASE65"), "", "\0\xff" * 1000, "SOURCE " * 100_000):
            write(scene.folder / "access.conf", broken)
            daemon.signal(signal.SIGHUP)
            scene.granted(daemon, scene.knock())
        daemon.wait_for("the old one stays")
        scene.check(daemon)


def test_a_file_read_half_written_changes_nothing_or_all(scene: Scene) -> None:
    """Every knock is granted, since no half of the file is a file: the last line is what makes it good."""
    with scene.daemon() as daemon:
        for length in range(0, len(ACCESS), 7):
            write(scene.folder / "access.conf", ACCESS[:length])
            daemon.signal(signal.SIGHUP)
            scene.knock()
        write(scene.folder / "access.conf", ACCESS)
        daemon.signal(signal.SIGHUP)
        scene.check(daemon)


def test_a_file_that_is_gone_changes_nothing_until_it_is_back(scene: Scene) -> None:
    with scene.daemon() as daemon:
        (scene.folder / "access.conf").unlink()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the old one stays")
        scene.granted(daemon, scene.knock())
        write(scene.folder / "access.conf", ACCESS)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        scene.check(daemon)
