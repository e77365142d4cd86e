"""The replay store: durable, exclusive about what is new, and closed when it cannot say."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.errors import ReplayError
from doorward.replay import UNSAVED_MAX, Past, ReplayStore, ReplayView, acting_as_owner, lock_file, rotate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONE, TWO, THREE = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


def knows(path: Path, packet: bytes) -> bool:
    with contextlib.closing(ReplayView(path)) as view:
        return view.has(packet)


def test_a_packet_is_new_once(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay.db")
    assert [store.remember(ONE, 50, 100), store.remember(ONE, 50, 100), store.remember(TWO, 50, 100)] == [
        True,
        False,
        True,
    ]
    assert knows(tmp_path / "replay.db", ONE)
    assert not knows(tmp_path / "replay.db", THREE)
    store.close()


def test_a_packet_stays_known_after_a_restart(tmp_path: Path) -> None:
    first = ReplayStore(tmp_path / "replay.db")
    first.remember(ONE, 50, 100)
    first.close()
    second = ReplayStore(tmp_path / "replay.db")
    assert not second.remember(ONE, 50, 100)
    second.close()


def remember_one_and_die(path: Path) -> None:
    """Have another process remember a packet, and be killed with the store open."""
    code = (
        "import os, pathlib, sys; from doorward.replay import ReplayStore;"
        f"store = ReplayStore(pathlib.Path({str(path)!r})); assert store.remember({ONE!r}, 50, 100);"
        "os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert ended.returncode == -9


def test_a_packet_stays_known_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    remember_one_and_die(path)
    store = ReplayStore(path)
    assert not store.remember(ONE, 50, 100)
    store.close()


def test_pruning_forgets_what_is_too_old_and_nothing_else(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay.db")
    store.remember(ONE, 50, 100)
    store.remember(TWO, 50, 101)
    assert store.prune(101.5) == 1
    assert [knows(tmp_path / "replay.db", one) for one in (ONE, TWO)] == [False, True]
    store.close()


def log_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def test_the_log_has_its_length_beforehand_and_begins_anew_with_each_pruning(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    length = log_bytes(path)
    assert length > 1 << 20
    for start in range(0, 1000, 100):
        for number in range(start, start + 100):
            assert store.remember(number.to_bytes(32, "big"), 50, 100)
        store.prune(60)
        assert log_bytes(path) == length
    for number in range(200):
        store.remember((2000 + number).to_bytes(32, "big"), 50, 100)
    assert log_bytes(path) > length, "without a pruning it grows"
    assert all(knows(path, number.to_bytes(32, "big")) for number in (0, 999, 2199))
    store.close()


def test_a_log_that_somebody_reads_keeps_its_packets_and_its_length(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    remember_one_and_die(path)
    os.truncate(path.with_name("replay.db-wal"), 32 + 2 * (24 + 4096))  # header and two frames (sqlite.org/fileformat)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM seen").fetchone() == (1,)
    store = ReplayStore(path)
    assert log_bytes(path) < 1 << 16, "nothing is written without waiting for the disk while the log holds packets"
    assert not store.remember(ONE, 50, 100)
    assert store.remember(TWO, 50, 100)
    reader.execute("COMMIT")
    reader.close()
    store.close()
    again = ReplayStore(path)
    assert log_bytes(path) > 1 << 20
    assert [knows(path, ONE), knows(path, TWO)] == [True, True]
    again.close()


def test_a_disk_without_room_for_the_log_keeps_its_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        store = ReplayStore(disk / "replay.db")
        assert log_bytes(disk / "replay.db") == 0
        assert all(store.remember(bytes([number]) * 32, 50, 100) for number in range(10))
        store.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_store_refuses_and_forgets_nothing(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay.db", rows_max=1)
    store.remember(ONE, 50, 100)
    with pytest.raises(ReplayError, match="full"):
        store.remember(TWO, 50, 100)
    assert knows(tmp_path / "replay.db", ONE)
    store.prune(1000)
    assert store.remember(THREE, 51, 2000)
    store.close()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    ReplayStore(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 50, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_store_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    path.write_bytes(content)
    with pytest.raises(ReplayError, match="cannot be used"):
        ReplayStore(path)


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA application_id = 7")
    database.close()
    with pytest.raises(ReplayError, match="belongs to another program"):
        ReplayStore(path)


def test_a_locked_store_refuses(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ReplayError, match="locked"):
        store.remember(ONE, 50, 100)
    other.execute("ROLLBACK")
    assert store.remember(TWO, 50, 100)
    other.close()
    store.close()


def fill(store: ReplayStore) -> None:
    for number in range(10_000):
        store.remember(number.to_bytes(32, "big"), 50, 100)


def test_a_full_disk_refuses(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], check=True)
    try:
        store = ReplayStore(disk / "replay.db")
        assert store.remember(ONE, 50, 100)
        with pytest.raises(OSError, match="No space"):
            (disk / "rest").write_bytes(bytes(1 << 20))
        with pytest.raises(ReplayError, match=r"full|I/O"):
            fill(store)
        store.close()
        (disk / "rest").unlink()
        again = ReplayStore(disk / "replay.db")
        assert not again.remember(ONE, 50, 100)
        again.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_store_open_for_reading_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    store.remember(ONE, 50, 100)
    with contextlib.closing(ReplayView(path)) as view:
        assert [view.remember(ONE, 50, 100), view.remember(TWO, 50, 100), view.has(TWO)] == [False, True, False]
    assert store.remember(TWO, 50, 100)
    store.close()


def test_a_closed_store_answers_no_question(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay.db")
    store.close()
    with pytest.raises(ReplayError):
        store.prune(0)
    with pytest.raises(ReplayError):
        store.remember(ONE, 50, 1)


def test_a_new_store_takes_what_was_made_before_for_seen(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    path.write_bytes(b"damaged" * 1000)
    old = rotate(path, now=1000, skew=120)
    assert old.read_bytes().startswith(b"damaged")
    for _ in range(2):
        store = ReplayStore(path)
        assert not store.remember(ONE, 1120, 2000)
        store.close()
    store = ReplayStore(path)
    assert store.remember(ONE, 1121, 2000)
    store.close()


def test_a_store_can_be_begun_where_there_is_none(tmp_path: Path) -> None:
    rotate(tmp_path / "replay.db", now=1000, skew=120)
    assert (tmp_path / "replay.db").exists()


def test_a_store_that_cannot_be_put_aside_is_reported(tmp_path: Path) -> None:
    (tmp_path / "replay.db-old").mkdir()
    (tmp_path / "replay.db").write_bytes(b"x")
    with pytest.raises(ReplayError, match="put aside"):
        rotate(tmp_path / "replay.db", now=1000, skew=120)


def test_a_store_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    with pytest.raises(ReplayError, match="another process uses it"):
        ReplayStore(path)
    with pytest.raises(ReplayError, match="another process uses it"):
        rotate(path, now=0, skew=0)
    store.close()
    ReplayStore(path).close()


@pytest.fixture
def anothers_folder() -> Iterator[Path]:
    """Return a folder that belongs to another user, as the state folder does; every folder above it can be passed."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outer:  # pytest's own folder is root's alone
        Path(outer).chmod(0o711)
        folder = Path(outer, "state")
        folder.mkdir(mode=0o700)
        os.chown(folder, 1234, 1234)
        yield folder


def test_a_new_store_belongs_to_whom_its_folder_belongs(anothers_folder: Path) -> None:
    rotate(anothers_folder / "replay.db", now=0, skew=0)
    assert {name.stat().st_uid for name in anothers_folder.iterdir()} == {1234}
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_a_rotation_by_root_follows_no_link_to_what_is_not_the_folders_owners(anothers_folder: Path) -> None:
    secret = anothers_folder.parent / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    (anothers_folder / "replay.db-mine").symlink_to(secret)
    rotate(anothers_folder / "replay.db", now=0, skew=0)
    assert secret.stat().st_uid == 0
    assert secret.read_text() == "root's"


@pytest.mark.parametrize("name", ["replay.db.lock", "replay.db"])
def test_root_makes_no_file_where_a_link_in_anothers_folder_points(anothers_folder: Path, name: str) -> None:
    nologin = anothers_folder.parent / "nologin"
    (anothers_folder / name).symlink_to(nologin)
    with contextlib.suppress(ReplayError):
        rotate(anothers_folder / "replay.db", now=0, skew=0)
    with contextlib.suppress(ReplayError), acting_as_owner(anothers_folder):
        ReplayStore(anothers_folder / "replay.db").close()
    assert not nologin.exists()
    (anothers_folder / name).unlink(missing_ok=True)
    (anothers_folder / name).symlink_to(nologin)
    with contextlib.suppress(ReplayError):
        ReplayStore(anothers_folder / "replay.db").close()
    assert nologin.exists(), "as root itself the link would have been followed"


def test_a_store_that_could_not_be_opened_is_not_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    path.write_bytes(b"damaged" * 1000)
    with pytest.raises(ReplayError, match="not a database") as kept:  # with its traceback, the failed store lives on
        ReplayStore(path)
    rotate(path, now=0, skew=0)
    assert kept.value.__traceback__


def test_what_was_forgotten_is_not_new_again_when_the_clock_steps_back(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    assert store.remember(b"p" * 32, 100, 340)
    assert store.prune(10_000) == 1
    assert not store.remember(b"p" * 32, 100, 340)
    assert store.remember(b"q" * 32, 101, 341), "made later than anything that was forgotten"
    store.close()
    store = ReplayStore(path)
    assert not store.remember(b"p" * 32, 100, 340)
    store.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.execute("ROLLBACK")
    other.close()


def refused(store: ReplayStore, packet: bytes, made: int = 50) -> None:
    with pytest.raises(ReplayError):
        store.remember(packet, made, 100)


@pytest.mark.parametrize("before", ["at once", "after another packet", "after a pruning", "after a restart"])
def test_a_packet_that_could_not_be_written_is_never_new(before: str, tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    with locked(path):
        refused(store, ONE)
        assert not store.remember(ONE, 50, 100), "also while the store is locked"
    if before == "after another packet":
        assert store.remember(TWO, 50, 100)
    if before == "after a pruning":
        store.prune(60)
    if before == "after a restart":
        store.close()
        store = ReplayStore(path)
        assert store.past is Past.COMPLETE
    assert not store.remember(ONE, 50, 100)
    assert before == "at once" or knows(path, ONE)
    store.close()


def test_a_packet_that_was_refused_by_a_full_store_is_not_new_when_there_is_room(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay.db", rows_max=1)
    store.remember(ONE, 50, 100)
    refused(store, TWO, made=60)
    store.prune(101)
    assert not store.remember(TWO, 60, 300)
    store.close()


def test_a_packet_that_could_not_be_written_before_kill_9_raises_the_floor(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    code = (
        "import os, pathlib, sqlite3, sys; from doorward.errors import ReplayError;"
        "from doorward.replay import ReplayStore;"
        f"store = ReplayStore(pathlib.Path({str(path)!r}));"
        f"other = sqlite3.connect({str(path)!r}, isolation_level=None); other.execute('BEGIN EXCLUSIVE')\n"
        f"try: store.remember({ONE!r}, 50, 100)\nexcept ReplayError: os.kill(os.getpid(), 9)"
    )
    assert ended(code) == -9
    for _ in range(2):
        store = ReplayStore(path, if_lost=5000)
        assert [store.past, store.floor] == [Past.COMPLETE, 50]
        assert not store.remember(ONE, 50, 100)
        store.close()
    store = ReplayStore(path)
    assert store.remember(TWO, 51, 100)
    store.close()


def test_more_packets_than_can_be_kept_unwritten_raise_the_floor(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path, rows_max=0)
    packets = [number.to_bytes(32, "big") for number in range(UNSAVED_MAX + 1)]
    for number, packet in enumerate(packets):
        refused(store, packet, made=number)
    assert not any(store.remember(packet, number, 100) for number, packet in enumerate(packets))
    store.close()
    again = ReplayStore(path)
    assert again.past is Past.COMPLETE
    assert not any(again.remember(packet, number, 100) for number, packet in enumerate(packets))
    assert again.remember(b"another", UNSAVED_MAX, 100)
    again.close()


def ended(code: str) -> int:
    """Have another process run some code, and return its exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode


def empty(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.touch()


def remove(path: Path) -> None:
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        file.unlink()


def remove_log(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()
    path.with_name(path.name + "-shm").unlink()


def put(content: bytes) -> Callable[[Path], object]:
    return lambda path: lock_file(path).write_bytes(content)


LOSSES: dict[str, Callable[[Path], object]] = {
    "an empty file": empty,
    "no file": remove,
    "no write-ahead log": lambda path: path.with_name(path.name + "-wal").unlink(),
    "neither log nor its index": remove_log,
    "no lock file": lambda path: lock_file(path).unlink(),
    "an empty lock file": lambda path: os.truncate(lock_file(path), 0),
    "another store's lock file": put(os.urandom(16) + bytes(16)),
    "a lock file of another format": put(b"17\n"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_store_that_may_have_forgotten_raises_its_floor(name: str, tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    remember_one_and_die(path)
    LOSSES[name](path)
    for past in (Past.LOST, Past.COMPLETE):
        store = ReplayStore(path, if_new=-1, if_lost=50)
        assert store.past is past
        assert not store.remember(ONE, 50, 100)
        store.close()
    store = ReplayStore(path)
    assert store.remember(TWO, 51, 100)
    store.close()


def test_an_older_copy_of_the_store_has_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    ReplayStore(path).close()
    copy = path.read_bytes()
    store = ReplayStore(path)
    store.remember(ONE, 50, 100)
    store.close()
    path.write_bytes(copy)
    store = ReplayStore(path, if_lost=50)
    assert store.past is Past.LOST
    assert not store.remember(ONE, 50, 100)
    store.close()


def test_a_store_that_pruned_its_packets_has_forgotten_none(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    assert store.past is Past.NONE
    store.remember(ONE, 50, 100)
    store.prune(1000)
    store.remember(TWO, 60, 2000)
    store.close()
    for _ in range(2):
        store = ReplayStore(path, if_new=500, if_lost=500)
        assert store.past is Past.COMPLETE
        store.close()
    store = ReplayStore(path)
    assert store.remember(THREE, 61, 2000)
    store.close()


def test_a_new_store_takes_packets_of_before_its_beginning_for_seen(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path, if_new=50, if_lost=500)
    assert store.past is Past.NONE
    assert [store.remember(ONE, 50, 100), store.remember(TWO, 51, 100)] == [False, True]
    store.close()
    with contextlib.closing(ReplayView(path)) as view:
        assert not view.remember(ONE, 50, 100), "explain says the same"


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT zeroblob(32) AS packet, i AS made FROM n"
)
HOSTILE = {
    "a view in the place of the table": f"DROP TABLE seen; CREATE VIEW seen AS {ENDLESS}",
    "a view in the place of the floor": f"DROP TABLE floor; CREATE VIEW floor AS SELECT made AS time FROM ({ENDLESS})",  # noqa: S608  the attack itself
    "a computed column": "DROP TABLE floor; CREATE TABLE floor (x, time AS (length(hex(zeroblob(x)))));"
    "INSERT INTO floor VALUES (4000)",
    "a floor of many rows": f"INSERT INTO floor SELECT made FROM ({ENDLESS} LIMIT 200000)",  # noqa: S608  the attack itself
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_view_evaluates_nothing_that_the_stores_writer_left_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    ReplayStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.executescript(HOSTILE[name])
    with pytest.raises(ReplayError, match="cannot be read"):
        ReplayView(path)


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_view_waits_for_no_pipe(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    ReplayStore(path).close()
    place = path.with_name(path.name + suffix)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    with pytest.raises(ReplayError, match="is not a file"):
        ReplayView(path)


def test_root_reads_a_store_as_its_owner(anothers_folder: Path) -> None:
    secret = anothers_folder.parent / "secret.db"
    ReplayStore(secret).close()
    (anothers_folder / "replay.db").symlink_to(secret)
    with pytest.raises(ReplayError, match="unable to open"):
        ReplayView(anothers_folder / "replay.db")
    (anothers_folder / "replay.db").unlink()
    rotate(anothers_folder / "replay.db", now=0, skew=0)
    assert not knows(anothers_folder / "replay.db", ONE)
    assert os.geteuid() == 0


CLIENT, OTHER = b"c" * 32, b"d" * 32


def nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def test_a_clients_packets_are_new_once_over_restarts_too(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    for first in (True, False):
        store = ReplayStore(path)
        try:
            assert store.remember(CLIENT + nonce(1), 50, 178, client=CLIENT) is first
            assert store.remember(OTHER + nonce(1), 50, 178, client=OTHER) is first, "another client's, the same nonce"
        finally:
            store.close()


def test_forgetting_a_clients_packets_raises_its_floor_and_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    assert store.remember(CLIENT + nonce(1), 3600, 3728, client=CLIENT), "the clock is an hour ahead"
    assert store.remember(CLIENT + nonce(2), 3500, 3628, client=CLIENT)
    assert store.remember(OTHER + nonce(1), 3600, 9999, client=OTHER)
    assert store.prune(3800) == 2
    assert store.floor == -1, "of packets without a client nothing was forgotten"
    assert not store.remember(CLIENT + nonce(1), 3600, 3728, client=CLIENT)
    assert not store.remember(CLIENT + nonce(3), 100, 228, client=CLIENT), "the clock is back"
    assert store.remember(OTHER + nonce(2), 100, 228, client=OTHER)
    assert store.remember(ONE, 100, 340)
    store.close()
    again = ReplayStore(path)
    try:
        assert not again.remember(CLIENT + nonce(1), 3600, 3728, client=CLIENT), "after a restart too"
        assert again.remember(CLIENT + nonce(4), 3601, 3729, client=CLIENT)
        assert again.prune(4000) == 3
        assert again.floor == 100
        view = ReplayView(path)
        known = [view.remember(CLIENT + nonce(9), made, made, client=CLIENT) for made in (100, 101, 3601, 3602)]
        assert known == [False, False, False, True]
        assert view.remember(OTHER + nonce(9), 101, 101, client=OTHER)
        view.close()
    finally:
        again.close()


def test_a_client_that_floods_is_refused_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doorward.replay.CLIENT_MAX", 3)
    store = ReplayStore(tmp_path / "replay.db")
    try:
        for number in range(3):
            assert store.remember(CLIENT + nonce(number), 50, 178, client=CLIENT)
        for number in range(3, 6):
            with pytest.raises(ReplayError, match="more than 3 packets of this client"):
                store.remember(CLIENT + nonce(number), 60 + number, 190, client=CLIENT)
        assert store.remember(OTHER + nonce(0), 50, 178, client=OTHER)
        assert store.remember(ONE, 50, 178)
        store.prune(180)
        assert not store.remember(CLIENT + nonce(3), 63, 190, client=CLIENT), "refused once, refused for good"
        assert store.remember(CLIENT + nonce(7), 66, 194, client=CLIENT), "there is room again"
    finally:
        store.close()


def test_a_clients_packet_that_could_not_be_written_stays_refused_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.replay.CLIENT_MAX", 2)
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    try:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ReplayError, match="cannot be written"):
            store.remember(CLIENT + nonce(1), 50, 178, client=CLIENT)
        assert not store.remember(CLIENT + nonce(1), 50, 178, client=CLIENT)
        other.execute("ROLLBACK")
        other.close()
        assert store.remember(CLIENT + nonce(2), 50, 178, client=CLIENT)
        with pytest.raises(ReplayError, match="more than 2"):
            store.remember(CLIENT + nonce(3), 50, 178, client=CLIENT)
    finally:
        store.close()


def test_a_store_of_before_clients_had_floors_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    assert store.remember(ONE, 50, 178)
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE client_floor")
    database.close()
    store = ReplayStore(path)
    try:
        assert store.past is Past.COMPLETE
        assert not store.remember(ONE, 50, 178)
        assert store.remember(CLIENT + nonce(1), 50, 178, client=CLIENT)
    finally:
        store.close()


def test_a_store_says_that_it_cannot_be_written_and_writes_what_it_owes_once_it_can(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path)
    assert store.is_whole()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ReplayError):
            store.remember(ONE, 50, 100)
        assert not store.is_whole()
        other.execute("ROLLBACK")
    assert not knows(path, ONE)
    assert store.is_whole()
    assert knows(path, ONE)
    assert not store.remember(ONE, 50, 100)
    store.close()


def test_a_full_store_is_not_made_larger_by_what_it_owes(tmp_path: Path) -> None:
    path = tmp_path / "replay.db"
    store = ReplayStore(path, rows_max=1)
    assert store.remember(ONE, 50, 100)
    with pytest.raises(ReplayError, match="full"):
        store.remember(TWO, 50, 100)
    assert not store.is_whole()
    assert not knows(path, TWO)
    store.close()
