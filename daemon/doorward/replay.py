"""The memory of packets that were seen: sqlite, one row a packet, written before anything opens.

Where the store cannot say whether a packet is new, it raises and nothing is granted. It is bounded by refusing, never
by forgetting, and forgets only what is too old to be accepted anyway.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from doorward.errors import ReplayError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS_MAX: Final = 1_000_000  # about 70 MB; at MAX_SPA_PACKET_AGE 120 that is 4 000 authentic packets a second
_LOG_FRAMES: Final = 256  # 1 MB; a packet takes two, and a checkpoint a minute begins anew
_AUTOCHECKPOINT: Final = 1000  # frames, sqlite's default: what a log that nobody prunes may come to
_APPLICATION_ID: Final = 0x646F6F72  # "door"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen (
    packet BLOB PRIMARY KEY,     -- SHA-256 of the sealed bytes
    made   INTEGER NOT NULL,     -- Unix seconds, by the clock of whoever made it
    until  INTEGER NOT NULL      -- Unix seconds from which it may be forgotten
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_until ON seen (until);
CREATE TABLE IF NOT EXISTS floor (
    time INTEGER NOT NULL        -- Unix seconds; a packet made then or earlier is taken for seen
);
"""


class ReplayStore:
    """The packets seen so far. One process writes them; every method raises ReplayError when it cannot answer."""

    def __init__(self, path: Path, rows_max: int = ROWS_MAX, *, read_only: bool = False) -> None:
        """Open or make the store at `path`, mode 0600; `read_only` opens it as it is, for has().

        synchronous=FULL: a grant is acted on only when its packet is on the disk, so that a power cut inside the
        window does not make the packet new again.
        """
        self._rows_max = rows_max
        self._rows = 0
        self._floor = -1
        self._lock: int | None = None
        try:
            if read_only:
                self._database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
                return
            self._lock = _lock(path)
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=0.2)
            self._open_or_close()
        except (sqlite3.Error, OSError) as error:
            self._release()
            msg = f"the replay store {path} cannot be used: {error}; doorwardd --rotate-digest-cache makes a new one"
            raise ReplayError(msg) from error

    def _open_or_close(self) -> None:
        """Leave no connection behind where the file is none of ours."""
        try:
            self._open()
        except sqlite3.Error:
            self._database.close()
            raise

    def _open(self) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        (owner,) = self._database.execute("PRAGMA application_id").fetchone()
        if owner not in {0, _APPLICATION_ID}:
            msg = "belongs to another program"
            raise sqlite3.DatabaseError(msg)
        self._database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._database.executescript(_SCHEMA)
        (self._rows,) = self._database.execute("SELECT count(*) FROM seen").fetchone()
        (self._floor,) = self._database.execute("SELECT coalesce(max(time), -1) FROM floor").fetchone()
        (damage,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        self._lengthen_log()

    def _lengthen_log(self) -> None:
        """Give the write-ahead log its length beforehand.

        To write over what is there and have it on the disk takes the disk one write, to write behind the end takes the
        file system's journal another one. Where there is no room for it, it takes none. Nothing waits for the disk
        meanwhile, so it is done only while the log holds nothing that is not in the database, and on the disk.
        """
        if not self._checkpoint("TRUNCATE"):
            return
        how = "RESTART"
        self._database.execute("PRAGMA user_version = 0")  # from here on the disk knows that the old log counts no more
        self._database.execute("PRAGMA wal_autocheckpoint = 0")
        self._database.execute("PRAGMA synchronous = OFF")
        try:
            for number in range(_LOG_FRAMES):
                self._database.execute(f"PRAGMA user_version = {number}")  # one page each, always the same
        except sqlite3.OperationalError:
            how = "TRUNCATE"
        finally:
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(f"PRAGMA wal_autocheckpoint = {_AUTOCHECKPOINT}")
        self._checkpoint(how)

    def _checkpoint(self, how: str) -> bool:
        """Move what the log holds into the database, so that the log begins anew, and say whether all of it was moved.

        What somebody reads, or has no room, is moved the next time.
        """
        try:
            busy, frames, moved = self._database.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        except sqlite3.OperationalError:
            return False
        return not busy and frames == moved

    def has(self, packet: bytes) -> bool:
        """Say whether a packet was remembered; for explain, which must leave no trace."""
        try:
            with closing(self._database.execute("SELECT 1 FROM seen WHERE packet = ?", (packet,))) as rows:
                return rows.fetchone() is not None
        except sqlite3.Error as error:
            msg = f"the replay store cannot be read: {error}"
            raise ReplayError(msg) from error

    def remember(self, packet: bytes, made: int, until: int) -> bool:
        """Keep a packet until at least `until`; return whether it was new. Durable when it returns.

        `made` is the time inside the packet; both in Unix seconds. What was made before the store began is not new.
        """
        if made <= self._floor:
            return False
        if self._rows >= self._rows_max:
            msg = f"the replay store is full: {self._rows} packets"
            raise ReplayError(msg)
        try:
            cursor = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (packet, made, until))
        except (sqlite3.Error, OverflowError) as error:
            msg = f"the replay store cannot be written: {error}"
            raise ReplayError(msg) from error
        self._rows += cursor.rowcount
        return cursor.rowcount == 1

    def prune(self, now: float) -> int:
        """Forget what may be forgotten at `now` (Unix seconds); return how many.

        What is forgotten raises the floor, so that it does not become new again when the clock steps back or a longer
        age is accepted. The write-ahead log begins anew.
        """
        try:
            self._checkpoint("PASSIVE")
            with self._transaction():
                passed = (int(now),)
                (newest,) = self._database.execute("SELECT max(made) FROM seen WHERE until < ?", passed).fetchone()
                if newest is None:
                    return 0
                self._write_floor(newest)
                count = self._database.execute("DELETE FROM seen WHERE until < ?", passed).rowcount
        except sqlite3.Error as error:
            msg = f"the replay store cannot be pruned: {error}"
            raise ReplayError(msg) from error
        self._rows -= count
        self._floor = max(self._floor, newest)
        return count

    def raise_floor(self, time: int) -> None:
        """Take every packet made at `time` (Unix seconds) or earlier for seen: a new store knows none of them."""
        try:
            with self._transaction():
                self._write_floor(time)
        except sqlite3.Error as error:
            msg = f"the replay store cannot be written: {error}"
            raise ReplayError(msg) from error
        self._floor = max(self._floor, time)

    def _write_floor(self, time: int) -> None:
        """Write a floor where the one that is written is lower."""
        self._database.execute("INSERT INTO floor VALUES (?)", (time,))
        self._database.execute("DELETE FROM floor WHERE time < (SELECT max(time) FROM floor)")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make what is written in the block one change, on the disk as a whole or not at all."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Write everything back and let go of the file."""
        self._database.close()
        self._release()

    def _release(self) -> None:
        """Let another process have the store."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _lock(path: Path) -> int:
    """Return the descriptor whose lock makes this process the only writer, until it ends."""
    descriptor = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        msg = "another process uses it"
        raise OSError(errno.EBUSY, msg) from None
    return descriptor


def was_removed(path: Path) -> bool:
    """Say whether there was a store and is none: its lock file is there, and it is not."""
    return _lock_file(path).exists() and not path.exists()


def rotate(path: Path, now: int, skew: int) -> Path:
    """Put the store aside and begin a new one; return where the old one is.

    What the old one knew is not forgotten: packets made up to `now` + `skew` (the accepted age) are taken for seen, so
    for that long knocks are refused, and no replay is accepted.
    """
    old = path.with_name(path.name + "-old")
    try:
        with acting_as_owner(path.parent):
            os.close(_lock(path))
            if path.exists():
                path.replace(old)
            for suffix in ("-wal", "-shm"):  # they belong to the old file, and would be taken for the new one's
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            store = ReplayStore(path)
            store.raise_floor(now + skew)
            store.close()
    except OSError as error:
        msg = f"the replay store {path} cannot be put aside: {error.strerror}"
        raise ReplayError(msg) from error
    return old


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[None]:
    """Touch files in the block as whom `folder` belongs to, where root may.

    Whoever the folder belongs to can put links there; followed by root, they would make any file theirs.

    Raises:
        OSError: there is no such folder, or its owner cannot be acted as.
    """
    owner = folder.stat()
    if os.geteuid() or not owner.st_uid:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    try:
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
