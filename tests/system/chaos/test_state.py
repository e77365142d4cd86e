"""The listener's state: a disk that is full or read only, a store that is locked, damaged or deleted."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from doorward.errors import ReplayError
from doorward.listener.copies import MOMENT
from doorward.replay import ReplayStore
from system.doorwardd import command, environment, eventually, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.chaos.scene import Scene


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """Yield a small file system of its own at `folder`; it was there before the daemon, and stays to the end."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0755", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def refused(scene: Scene, lines: list[str]) -> bool:
    """Knock once more and say whether some knock was refused for the store's sake."""
    scene.knock()
    return any("reason=store" in line for line in lines)


def damage(scene: Scene) -> None:
    """Overwrite the store; its log too, since sqlite would heal the one from the other."""
    for name in ("replay.db", "replay.db-wal"):
        store = scene.folder / "run" / name
        with store.open("r+b") as file:
            file.write(b"\xff" * store.stat().st_size)


def test_a_full_disk_opens_nothing_until_there_is_room(scene: Scene) -> None:
    with disk(scene.folder / "run") as run, scene.daemon() as daemon:
        with pytest.raises(OSError, match="No space"):
            (run / "rest").write_bytes(bytes(1 << 20))
        assert eventually(lambda: refused(scene, daemon.lines))
        assert daemon.wait_for("the replay store FAILS: no knock opens anything")
        (run / "rest").unlink()
        assert daemon.wait_for("the replay store is written again"), "by itself, before the next knock"
        scene.check(daemon)


def test_a_start_on_a_full_disk_fails_with_one_sentence(scene: Scene) -> None:
    with disk(scene.folder / "run") as run:
        with pytest.raises(OSError, match="No space"):
            (run / "rest").write_bytes(bytes(1 << 20))
        with scene.daemon(hears=False) as daemon:
            assert daemon.process.wait(10) == 1
            assert daemon.lines == [
                f"doorwardd: the PID file {run}/doorwardd.pid cannot be written: No space left on device"
            ]
        (run / "rest").unlink()
        with scene.daemon() as daemon:
            scene.check(daemon)


def test_a_store_whose_disk_is_full_or_read_only_asks_for_what_helps(tmp_path: Path) -> None:
    with disk(tmp_path / "state") as state:
        with pytest.raises(OSError, match="No space"):
            (state / "rest").write_bytes(bytes(1 << 20))
        with pytest.raises(ReplayError, match=f"the file system of {state} is full: make room on it"):
            ReplayStore(state / "replay.db")
        (state / "rest").unlink()
        ReplayStore(state / "replay.db").close()
        subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
        with pytest.raises(ReplayError, match=f"the file system of {state} is read-only: mount it writable"):
            ReplayStore(state / "replay.db")


def test_a_daemon_killed_on_a_full_disk_starts_when_there_is_room(scene: Scene) -> None:
    with disk(scene.folder / "run") as run:
        with scene.daemon() as daemon:
            scene.granted(daemon, scene.knock())
            with pytest.raises(OSError, match="No space"):
                (run / "rest").write_bytes(bytes(1 << 20))
            assert eventually(lambda: refused(scene, daemon.lines))
            daemon.process.kill()
            daemon.process.wait(10)
        (run / "rest").unlink()
        with scene.daemon() as daemon:
            scene.check(daemon)


def test_a_state_folder_that_is_read_only_opens_nothing(scene: Scene) -> None:
    with disk(scene.folder / "run") as run:
        with scene.daemon() as daemon:
            scene.granted(daemon, scene.knock())
        subprocess.run(["mount", "-o", "remount,ro", str(run)], check=True)
        with scene.daemon(hears=False) as daemon:
            assert daemon.process.wait(10) == 1
        subprocess.run(["mount", "-o", "remount,rw", str(run)], check=True)
        with scene.daemon() as daemon:
            scene.check(daemon)


def test_a_store_that_another_process_has_locked_opens_nothing_until_it_lets_go(scene: Scene) -> None:
    with scene.daemon() as daemon:
        scene.granted(daemon, scene.knock())
        with contextlib.closing(sqlite3.connect(scene.folder / "run/replay.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            knock = scene.knock()
            assert "reason=store" in daemon.wait_for(f"origin_port={knock.port} ")
            assert scene.witness.times(knock.source) == 0
            other.execute("ROLLBACK")
        scene.check(daemon)


def test_a_damaged_store_is_refused_and_the_repair_forgets_nothing(scene: Scene) -> None:
    age = "ENABLE_SPA_PACKET_AGING Y;\nMAX_SPA_PACKET_AGE 1;\n"
    write(scene.folder / "doorwardd.conf", f"FIREWALL_FILE {scene.folder}/firewall.nft;\n{age}", 0o644)
    with scene.daemon() as daemon:
        scene.granted(daemon, scene.knock())
    damage(scene)
    with scene.daemon(hears=False) as daemon:
        assert daemon.process.wait(10) == 1
        assert daemon.wait_for("--rotate-digest-cache")
    argv = scene.host.command(*command("--rotate-digest-cache", "--exit-parse-digest-cache", *scene.files))
    subprocess.run(argv, check=True, env=environment(), capture_output=True, timeout=60)
    with scene.daemon() as daemon:
        for knock in list(scene.knocks):
            scene.send(knock)
        time.sleep(3)  # what the old store knew has become too old by then
        scene.check(daemon)


def test_a_store_that_is_damaged_while_it_is_used_accepts_no_replay(scene: Scene) -> None:
    with scene.daemon() as daemon:
        scene.granted(daemon, scene.knock())
        damage(scene)
        knocks = [*scene.knocks, scene.make()]
        time.sleep(MOMENT)  # a copy of the same moment has no line
        for knock in knocks:
            scene.send(knock)
        assert eventually(lambda: len(daemon.verdicts) > len(knocks))
        assert all(scene.witness.times(knock.source) <= 1 for knock in knocks)


def test_a_store_that_is_deleted_while_it_is_used_forgets_nothing(scene: Scene) -> None:
    with scene.daemon() as daemon:
        scene.granted(daemon, scene.knock())
        for file in (scene.folder / "run").glob("replay.db*"):
            file.unlink()
        scene.check(daemon)


def test_a_pid_file_that_is_deleted_lets_no_second_daemon_in(scene: Scene) -> None:
    with scene.daemon() as daemon:
        (scene.folder / "run/doorwardd.pid").unlink()
        with scene.daemon(hears=False) as second:
            assert second.process.wait(10) == 1
        scene.check(daemon)
    with scene.daemon() as daemon:
        scene.check(daemon)
