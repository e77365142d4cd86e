"""The memory of packets that were seen: sqlite, one row a packet, written before anything opens.

Where the store cannot say whether a packet is new, it raises, and that packet is never new again. It is bounded by
refusing, never by forgetting, and forgets only packets that are too old to be accepted.

Whether it is complete is decided inside it: the store and its lock file share a random mark, and the lock file counts
the packets. A store without the mark, or with fewer packets, has forgotten some: its floor is raised.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import sqlite3
import stat
import struct
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from doorward.errors import ReplayError
from doorward.linux import privileges
from doorward.wire.doorward import CODE_STEP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENT_MAX: Final = 1024  # packets of one client; who sends more is refused, and nobody else
ROWS_MAX: Final = 1_000_000  # about 70 MB; at MAX_SPA_PACKET_AGE 120 that is 4 000 authentic packets a second
UNSAVED_MAX: Final = 20_000  # some 5 MB; twice the packets from the future that the gate lets through
_LOG_FRAMES: Final = 256  # 1 MB; a packet takes two, and a checkpoint a minute starts the log again
_ROOM: Final = 1 << 18  # bytes; a store that is new takes half of them
_AUTOCHECKPOINT: Final = 1000  # frames, sqlite's default: the bound of a log that is not pruned
_APPLICATION_ID: Final = 0x646F6F72  # "door"
_MAGIC: Final = b"SQLite format 3\0"  # sqlite.org/fileformat.html
_HEADER: Final = 100  # bytes
_OWNER_AT: Final = 68  # the place of the application ID in it
_STEPS_MAX: Final = 100_000  # of sqlite's machine, for one statement of a view; a look-up takes some twenty
# The lock file: the mark, the packets remembered so far, and the newest time of one that could not be written, or 0.
_RECORD: Final = struct.Struct(">16sQQ")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen (
    packet BLOB PRIMARY KEY,     -- SHA-256 of the sealed bytes, or a client's public key and the nonce
    made   INTEGER NOT NULL,     -- Unix seconds, by its maker's clock
    until  INTEGER NOT NULL      -- Unix seconds from which it may be forgotten
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_until ON seen (until);
CREATE TABLE IF NOT EXISTS floor (
    time INTEGER NOT NULL        -- Unix seconds; a packet made then or earlier is taken for seen
);
CREATE TABLE IF NOT EXISTS client_floor (
    client BLOB PRIMARY KEY,     -- the beginning of the names of a client's packets
    time   INTEGER NOT NULL      -- Unix seconds; a packet of the client made then or earlier is taken for seen
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS code_step (
    name BLOB PRIMARY KEY,       -- of a client and the secret of its one-time codes; empty: of all
    step INTEGER NOT NULL        -- the last one that was used
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (
    mark   BLOB NOT NULL,        -- 16 random bytes, as in the lock file
    pruned INTEGER NOT NULL      -- packets that were remembered and may be forgotten by now
);
"""
# The name of a client's packet is its public key, 32 bytes, and the packet's nonce; all other names have 32 bytes.
_ABOVE: Final = b"\xff" * 13  # behind a public key: above all its packets
_OF_CLIENT: Final = """
SELECT count(*) FROM (SELECT 1 FROM seen WHERE packet > ? AND packet < ? AND length(packet) > 32 LIMIT ?)
"""
_NEWEST: Final = "SELECT max(made) FROM seen WHERE until < ? AND length(packet) <= 32"
_FLOOR: Final = "SELECT time FROM client_floor WHERE client = ?"
_RAISE_ONE: Final = """
INSERT INTO client_floor VALUES (?, ?) ON CONFLICT (client) DO UPDATE SET time = max(time, excluded.time)
"""
_STEP: Final = "SELECT coalesce(max(step), -1) FROM code_step WHERE name IN (?, x'')"
_RAISE_STEP: Final = """
INSERT INTO code_step VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET step = max(step, excluded.step)
"""
_RAISE_ALL: Final = """
INSERT INTO client_floor
SELECT substr(packet, 1, 32), max(made) FROM seen WHERE until < ? AND length(packet) > 32 GROUP BY 1
ON CONFLICT (client) DO UPDATE SET time = max(time, excluded.time)
"""
_INTEGER_MAX: Final = (1 << 63) - 1  # of sqlite
_OBJECTS: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"


class _FloodError(ReplayError):
    """A client has sent too many packets; the store itself is well."""


class Past(enum.Enum):
    """The packets that a store knows when it is opened."""

    COMPLETE = enum.auto()  # all that it ever remembered
    NONE = enum.auto()  # it is new
    LOST = enum.auto()  # it, its log or a part of it was removed, replaced, or could not be written


class ReplayStore:
    """The packets seen so far. One process writes them; every method raises ReplayError when it cannot answer."""

    def __init__(self, path: Path, *, if_new: int = -1, if_lost: int = -1, rows_max: int = ROWS_MAX) -> None:
        """Open or make the store at `path`, mode 0600.

        A new store takes packets made up to `if_new` (Unix seconds) for seen, one that may have forgotten packets
        those made up to `if_lost`. synchronous=FULL: a grant is acted on only when its packet is on the disk, so that
        a power cut inside the window does not make the packet new again.
        """
        self._rows_max = rows_max
        self._rows = self._count = 0
        self._floor = -1
        self._unsaved: dict[bytes, tuple[int, int]] = {}  # packets that could not be written: made, until
        self._newest_unsaved = 0
        self._lock = -1
        self._mark = b""
        try:
            self._lock = _lock(path)
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=0.2)
            self._open_or_close(if_new, if_lost)
        except (sqlite3.Error, OSError) as error:
            self._release()
            msg = f"the replay store {path} cannot be used: {error}; {_remedy(error, path.parent)}"
            raise ReplayError(msg) from error

    def _open_or_close(self, if_new: int, if_lost: int) -> None:
        """Close the connection where the file is another program's."""
        try:
            self._open(if_new, if_lost)
        except (sqlite3.Error, OSError):
            self._database.close()
            raise

    def _open(self, if_new: int, if_lost: int) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        (owner,) = self._database.execute("PRAGMA application_id").fetchone()
        if owner not in {0, _APPLICATION_ID}:
            msg = "belongs to another program"
            raise sqlite3.DatabaseError(msg)
        self._database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._database.executescript(_SCHEMA)
        (damage,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        (self._rows,) = self._database.execute("SELECT count(*) FROM seen").fetchone()
        self.past, unsaved = self._recall()
        if self.past is not Past.COMPLETE:
            self._begin(if_new if self.past is Past.NONE else if_lost)
        elif unsaved:
            with self._transaction():
                self._write_floor(min(unsaved, if_lost))
            self._note()
        (self._floor,) = self._database.execute("SELECT coalesce(max(time), -1) FROM floor").fetchone()
        self._lengthen_log()

    @property
    def floor(self) -> int:
        """Unix seconds; a packet made then or earlier is taken for seen."""
        return self._floor

    @property
    def size(self) -> int:
        """The number of packets that it holds."""
        return self._rows

    @property
    def room(self) -> int:
        """The number of packets that it can hold; beyond it every packet is refused."""
        return self._rows_max

    def _recall(self) -> tuple[Past, int]:
        """Compare the store with its lock file; also the newest time of packets that could not be written, or 0."""
        self._mark, pruned = self._database.execute("SELECT mark, pruned FROM mark").fetchone() or (b"", 0)
        self._count = pruned + self._rows
        record = os.pread(self._lock, _RECORD.size + 1, 0)
        if not record and not self._mark:
            return Past.NONE, 0
        mark, count, unsaved = _RECORD.unpack(record) if len(record) == _RECORD.size else (b"", 0, 0)
        return Past.COMPLETE if mark and mark == self._mark and count <= self._count else Past.LOST, unsaved

    def _begin(self, floor: int) -> None:
        """Mark the store and its lock file, the floor first: a crash in between shows as another loss."""
        self._mark = os.urandom(16)
        with self._transaction():
            self._write_floor(floor)
            if self.past is Past.LOST:
                self._database.execute(_RAISE_STEP, (b"", floor // CODE_STEP + 1))
            self._database.execute("DELETE FROM mark")
            self._database.execute("INSERT INTO mark VALUES (?, ?)", (self._mark, self._count - self._rows))
        self._note()
        os.fsync(self._lock)

    def _note(self) -> None:
        """Write into the lock file how many packets the store must know, and the time of those it could not take.

        It follows the store, and need not wait for the disk. It overwrites itself, for which a full disk has room.
        """
        os.pwrite(self._lock, _RECORD.pack(self._mark, self._count, self._newest_unsaved), 0)

    def _lengthen_log(self) -> None:
        """Give the write-ahead log its length beforehand.

        An overwrite takes the disk one write; an append takes another one for the file system's journal. Where there is
        no room for it, the log stays short. Nothing waits for the disk meanwhile, so this is done only while the log
        holds nothing that is not in the database, and on the disk.
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
        """Move the log into the database, so that the log starts again, and say whether all of it was moved.

        Frames that are in use, or have no room, are moved the next time.
        """
        try:
            busy, frames, moved = self._database.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        except sqlite3.OperationalError:
            return False
        return not busy and frames == moved

    def remember(self, packet: bytes, made: int, until: int, *, client: bytes = b"") -> bool:
        """Keep a packet until at least `until`; return whether it was new. Durable when it returns.

        `made` is the time inside the packet; both in Unix seconds. A packet made before the store began is not new,
        nor is one that could not be written before: its first sender got no grant, and no other sender gets one.
        `client` is the beginning of the packet's name where that names its sender: then it is bounded, and its past
        forgotten, by itself.
        """
        made, until = min(made, _INTEGER_MAX), min(until, _INTEGER_MAX)
        if made <= self._floor or packet in self._unsaved:
            return False
        try:
            return self._save(packet, made, until, client)
        except _FloodError:
            raise
        except ReplayError:
            self._keep_unsaved(packet, made, until)
            raise

    def use_step(self, name: bytes, step: int) -> bool:
        """Keep the step of a one-time code as used; return whether it is later than all used before. Durable.

        One row a name, which is never forgotten: so neither a restart nor a clock that steps back makes a code new. A
        store that was lost takes the codes of the floor's time and before for used.
        """
        try:
            with self._transaction():
                (last,) = self._database.execute(_STEP, (name,)).fetchone()
                if step <= last:
                    return False
                self._database.execute(_RAISE_STEP, (name, step))
        except (sqlite3.Error, OSError) as error:
            msg = f"the replay store cannot be written: {error}"
            raise ReplayError(msg) from error
        return True

    def _knows_client(self, client: bytes, made: int) -> bool:
        """Whether a packet of a client is older than one that was forgotten.

        Raises:
            _FloodError: the client has too many packets here; it stays refused, also when there is room again.
        """
        row = self._database.execute(_FLOOR, (client,)).fetchone()
        if row is not None and made <= row[0]:
            return True
        (count,) = self._database.execute(_OF_CLIENT, (client, client + _ABOVE, CLIENT_MAX)).fetchone()
        if count >= CLIENT_MAX:
            self._database.execute(_RAISE_ONE, (client, made))
            msg = f"more than {CLIENT_MAX} packets of this client in the last minutes"
            raise _FloodError(msg)
        return False

    def _save(self, packet: bytes, made: int, until: int, client: bytes) -> bool:
        """Write a packet, after those that could not be written before."""
        if self._rows + len(self._unsaved) >= self._rows_max:
            msg = f"the replay store is full: {self._rows} packets"
            raise ReplayError(msg)
        try:
            if self._unsaved:
                self._save_unsaved()
            if client and self._knows_client(client, made):
                return False
            cursor = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (packet, made, until))
            self._add(cursor.rowcount)
        except (sqlite3.Error, OSError) as error:
            msg = f"the replay store cannot be written: {error}"
            raise ReplayError(msg) from error
        return cursor.rowcount == 1

    def _save_unsaved(self) -> None:
        """Write the packets that could not be written before, all or none."""
        rows = [(packet, made, until) for packet, (made, until) in self._unsaved.items()]
        with self._transaction():
            count = self._database.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", rows).rowcount
            self._write_floor(self._floor)
        self._unsaved.clear()
        self._newest_unsaved = 0
        self._add(count)

    def _add(self, count: int) -> None:
        self._rows += count
        self._count += count
        self._note()

    def _keep_unsaved(self, packet: bytes, made: int, until: int) -> None:
        """Keep a packet that could not be written.

        The lock file has its time: where the process ends before it is written, the next one raises the floor. Where
        too many are kept, the floor takes the place of the older half.
        """
        self._unsaved[packet] = made, until
        self._newest_unsaved = max(self._newest_unsaved, made)
        if len(self._unsaved) > UNSAVED_MAX:
            oldest = sorted(self._unsaved, key=self._unsaved.__getitem__)[: UNSAVED_MAX // 2]
            self._floor = max(self._floor, *(self._unsaved.pop(one)[0] for one in oldest))
        with suppress(OSError):  # the disk fails, and may come back
            self._note()

    def is_whole(self) -> bool:
        """Whether every packet is on the disk. Those that could not be written are written now, if that is possible.

        While they are not, no packet is remembered, and none opens anything.
        """
        if self._unsaved and self._rows + len(self._unsaved) < self._rows_max:
            with suppress(sqlite3.Error, OSError):
                self._save_unsaved()
        return not self._unsaved

    def prune(self, now: float) -> int:
        """Forget the packets that may be forgotten at `now` (Unix seconds); return how many.

        Forgotten packets raise the floor, so that they are not new again when the clock steps back or a longer age is
        accepted. The write-ahead log starts again.
        """
        try:
            self._checkpoint("PASSIVE")
            if self._unsaved:
                self._save_unsaved()
            with self._transaction():
                passed = (int(now),)
                if self._database.execute("SELECT 1 FROM seen WHERE until < ? LIMIT 1", passed).fetchone() is None:
                    return 0
                (newest,) = self._database.execute(_NEWEST, passed).fetchone()
                if newest is not None:
                    self._write_floor(newest)
                self._database.execute(_RAISE_ALL, passed)
                count = self._database.execute("DELETE FROM seen WHERE until < ?", passed).rowcount
                self._database.execute("UPDATE mark SET pruned = pruned + ?", (count,))
        except (sqlite3.Error, OSError) as error:
            msg = f"the replay store cannot be pruned: {error}"
            raise ReplayError(msg) from error
        self._rows -= count
        self._floor = self._floor if newest is None else max(self._floor, newest)
        return count

    def _write_floor(self, time: int) -> None:
        """Raise the written floor."""
        self._database.execute("INSERT INTO floor VALUES (?)", (time,))
        self._database.execute("DELETE FROM floor WHERE time < (SELECT max(time) FROM floor)")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction: all that the block writes is on the disk, or nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # or sqlite itself has rolled it back
                self._database.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Write everything back and let go of the file."""
        if self._unsaved:
            with suppress(sqlite3.Error, OSError):  # else the next start raises the floor
                self._save_unsaved()
        self._database.close()
        self._release()

    def _release(self) -> None:
        """Let another process have the store."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remedy(error: Exception, folder: Path) -> str:
    """The remedy for a store that cannot be opened. A new one would help neither a full nor a read-only disk."""
    number, flags, room = getattr(error, "errno", None), 0, _ROOM
    with suppress(OSError):
        status = os.statvfs(folder)
        flags, room = status.f_flag, status.f_bavail * status.f_frsize
        room = 0 if status.f_files and not status.f_favail else room
    if number == errno.EROFS or flags & os.ST_RDONLY:
        return f"the file system of {folder} is read-only: mount it writable"
    if number in {errno.ENOSPC, errno.EDQUOT} or room < _ROOM:
        return f"the file system of {folder} is full: make room on it"
    return "doorwardd --rotate-digest-cache begins a new one"


class ReplayView:
    """A replay store as it stands, for root's commands: its writer has fewer rights, and may have been taken over.

    It is opened as the owner of its folder, and nothing in it is evaluated but the tables that we make.
    """

    def __init__(self, path: Path) -> None:
        """Open the store at `path`.

        Raises:
            ReplayError: it cannot be read, or is not as we make it.
        """
        try:
            with acting_as_owner(path.parent):
                _refuse_special(path)
                self._database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)
                self._open_or_close()
        except (sqlite3.Error, OSError) as error:
            msg = f"the replay store {path} cannot be read: {error}"
            raise ReplayError(msg) from error

    def _open_or_close(self) -> None:
        try:
            self._open()
        except sqlite3.Error:
            self._database.close()
            raise

    def _open(self) -> None:
        """Open the files, and compare the schema with ours (sqlite.org/security.html)."""
        self._database.set_progress_handler(lambda: 1, _STEPS_MAX)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "query_only = ON"):
            self._database.execute(f"PRAGMA {pragma}")
        with closing(sqlite3.connect(":memory:")) as ours:
            ours.executescript(_SCHEMA)
            expected = ours.execute(_OBJECTS).fetchall()
        if self._database.execute(_OBJECTS).fetchmany(len(expected) + 1) != expected:
            msg = "its tables are not those of a replay store"
            raise sqlite3.DatabaseError(msg)
        (self._floor,) = self._database.execute("SELECT coalesce(max(time), -1) FROM floor").fetchone()

    def has(self, packet: bytes) -> bool:
        """Whether a packet was remembered."""
        return self._row("SELECT 1 FROM seen WHERE packet = ?", packet) is not None

    def _row(self, query: str, name: bytes) -> tuple[int] | None:
        try:
            with closing(self._database.execute(query, (name,))) as rows:
                found: tuple[int] | None = rows.fetchone()
                return found
        except sqlite3.Error as error:
            msg = f"the replay store cannot be read: {error}"
            raise ReplayError(msg) from error

    def remember(self, packet: bytes, made: int, until: int, *, client: bytes = b"") -> bool:  # noqa: ARG002  as there
        """Whether the packet would be new, as ReplayStore.remember() says it; nothing is kept."""
        floor = self._row(_FLOOR, client)
        if made <= self._floor or (floor is not None and made <= floor[0]):
            return False
        return not self.has(packet)

    def use_step(self, name: bytes, step: int) -> bool:
        """Whether a one-time code would be new, as ReplayStore.use_step() says it; nothing is kept."""
        (last,) = self._row(_STEP, name) or (-1,)
        return step > last

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def _refuse_special(path: Path) -> None:
    """Refuse a pipe or a device in the place of one of the files: to open it could wait for ever."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists() and not stat.S_ISREG(file.stat().st_mode):
            msg = f"{file} is not a file"
            raise OSError(msg)


def lock_file(path: Path) -> Path:
    """The lock file of a store: written with every packet that the store remembers."""
    return path.with_name(path.name + ".lock")


def _lock(path: Path) -> int:
    """The descriptor whose lock makes this process the only writer, until it ends."""
    descriptor = os.open(lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        msg = "another process uses it"
        raise OSError(errno.EBUSY, msg) from None
    return descriptor


def rotate(path: Path, now: int, skew: int) -> Path:
    """Put the store aside and begin a new one; return where the old one is.

    The old one's packets stay refused: packets made up to `now` + `skew` (the accepted age) are taken for seen, so
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
            ReplayStore(path, if_new=now + skew, if_lost=now + skew).close()
    except OSError as error:
        msg = f"the replay store {path} cannot be put aside: {error.strerror}"
        raise ReplayError(msg) from error
    return old


def is_foreign(path: Path) -> bool:
    """Whether a file at `path` is another program's, such as the digest cache of fwknopd; it is not changed.

    Raises:
        OSError: it cannot be read.
    """
    if not path.exists():
        return False
    with acting_as_owner(path.parent), path.open("rb") as file:
        header = file.read(_HEADER)
    owner = int.from_bytes(header[_OWNER_AT : _OWNER_AT + 4], "big")
    return bool(header) and not (header.startswith(_MAGIC) and owner in {0, _APPLICATION_ID})


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[None]:
    """Act as the owner of `folder` in the block, where root may.

    The owner can put links there; followed by root, they would make any file the owner's.

    Raises:
        OSError: there is no such folder, or its owner cannot be acted as.
    """
    owner = folder.stat()
    with privileges.acting_as(owner.st_uid, owner.st_gid):
        yield
