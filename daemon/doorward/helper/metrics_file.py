"""METRICS_FILE: what the listener counted and what the helper knows, written for node_exporter's textfile collector.

The helper writes it, since it can: the listener may not rename a file, and holds no folder but its state. A thread does
the writing: a folder that is full, gone, a link, or does not answer costs a line of the log, and no knock.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import doorward
from doorward.firewall.standing import Word
from doorward.frozen import dataclass
from doorward.helper.messages import Gauges
from doorward.linux.published import publish
from doorward.record.openmetrics import Family, Sample, gauge, text
from doorward.values import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from doorward.config.access import Access
    from doorward.config.files import Files
    from doorward.firewall.standing import Standing
    from doorward.helper.messages import Numbers, Row
    from doorward.record.log import Log

_LEAST: Final = 1.0  # seconds between two files, whatever the listener asks for
_DOUBTS: Final = (
    Word.ABSENT, Word.OBSERVE, Word.DORMANT, Word.CHANGED, Word.FAILURE, Word.UNKNOWN, Word.OPEN,
)  # fmt: skip
_NOT_INTACT: Final = frozenset({Word.ABSENT, Word.DORMANT, Word.CHANGED, Word.UNKNOWN})
POLICIES: Final = ("drop", "guard", "observe", "failure", "none")
_OF_DOUBTS: Final = {
    Word.ABSENT: "none", Word.DORMANT: "none", Word.OBSERVE: "observe", Word.FAILURE: "failure",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """What is known of the firewall: `kind` is our table's, empty where nobody knows; `live` counts grants by name."""

    standing: Standing
    kind: str
    opened: int
    live: Mapping[str | None, int]
    refused: int  # packets, by the kernel gate


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one file says."""

    rows: Iterable[Row]
    gauges: Gauges
    table: Table | None
    built: float  # Unix seconds, as all times here
    since: float
    keys: Mapping[str, float]  # files and their times
    now: float


class MetricsFile:
    """The file that the configuration in force names, if it names one."""

    def __init__(self, log: Log) -> None:
        """Write nothing before follow()."""
        self._log = log
        self._path: Path | None = None
        self._names: frozenset[str] = frozenset()
        self._rows: dict[tuple[str | None, Reason], Row] = {}
        self._gauges = Gauges()
        self._files: tuple[str, ...] = ()
        self._keys: dict[str, float] = {}
        self._since = 0.0
        self._built = _build_time()  # now: an upgrade replaces the file while its old code runs
        self._reported = False
        self._rest = 0.0  # seconds of time.monotonic() until which no other file is written
        self._writer: _Writer | None = None

    def read(self, files: Files) -> None:
        """Note which files hold keys; they are those of the next configuration."""
        self._files = tuple(sorted(files.secrets()))

    def follow(self, path: Path | None, access: Access) -> None:
        """Write this file from now on, or none, for a configuration that is in force."""
        clients = (client.name for stanza in access.stanzas for client in stanza.clients)
        self._names = frozenset(filter(None, (*clients, *(stanza.name for stanza in access.stanzas))))
        self._rows = {key: row for key, row in self._rows.items() if key[0] is None or key[0] in self._names}
        self._path, self._since = path, time.time()
        self._keys = {} if path is None else dict(_times(self._files))
        if path is not None:
            self._writer = self._writer or _Writer(self._log)

    def take(self, numbers: Numbers) -> None:
        """Keep what the listener reports of names that the configuration has. It is not trusted."""
        if self._path is None:
            return
        known = (row for row in numbers.rows if row.name is None or row.name in self._names)
        self._rows.update({(row.name, row.reason): row for row in known})
        self._gauges = numbers.gauges
        self._reported |= numbers.last

    def is_due(self, now: float) -> bool:
        """Whether the file is to be written; `now` in seconds of time.monotonic()."""
        return self._reported and now >= self._rest

    def write(self, table: Table | None, now: float) -> None:
        """Have the file written; without a firewall (option -t) it says nothing of it. Raises nothing."""
        self._reported, self._rest = False, now + _LEAST
        if self._path is None or self._writer is None:
            return
        rows, times = tuple(self._rows.values()), (self._built, self._since)
        self._writer.put(self._path, Snapshot(rows, self._gauges, table, *times, self._keys, time.time()))

    def close(self) -> None:
        """End the thread, unless the disk holds it up."""
        if self._writer is not None:
            self._writer.close()


class _Writer:
    """The thread that writes. It logs a failure once, and its end."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: queue.Queue[tuple[Path, Snapshot] | None] = queue.Queue(1)
        self._failed = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, path: Path, said: Snapshot) -> None:
        """Have a file written; one that is not begun yet is left out."""
        try:
            self._waiting.put_nowait((path, said))
        except queue.Full:
            self._fail(path, "the disk does not answer")

    def close(self) -> None:
        """Ask for the end."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(1.0)

    def _run(self) -> None:
        while (order := self._waiting.get()) is not None:
            path, said = order
            try:
                publish(path, text(families(said)))
            except OSError as error:
                self._fail(path, error.strerror or str(error))
            else:
                if self._failed:
                    self._log.warning("METRICS_FILE %s is written again", path)
                self._failed = ""

    def _fail(self, path: Path, why: str) -> None:
        if self._failed != why:  # once, not every 15 seconds
            self._log.error("METRICS_FILE %s cannot be written: %s", path, why)
        self._failed = why


def _times(files: Iterable[str]) -> Iterator[tuple[str, float]]:
    for name in files:
        with suppress(OSError):  # removed since it was read
            yield name, Path(name).stat().st_mtime


def families(said: Snapshot) -> Iterator[Family]:
    """All that the file says; docs/monitoring/README.md has the list."""
    yield gauge(
        "doorward_last_update_timestamp_seconds",
        "When this file was written: both processes of doorwardd were alive then.",
        round(said.now, 3),
    )
    yield gauge("doorward_build_info", "The version that runs.", 1, version=doorward.__version__)
    yield gauge(
        "doorward_build_timestamp_seconds", "When the installed code of doorwardd was last changed.", said.built
    )
    yield gauge(
        "doorward_configuration_timestamp_seconds", "Since when the configuration is in force.", round(said.since, 3)
    )
    yield Family(
        "doorward_key_timestamp_seconds",
        "When a file that holds keys was last changed: they are at least as old.",
        tuple(Sample(round(time_, 3), {"file": name}) for name, time_ in said.keys.items()),
    )
    yield from _of_listener(said)
    if said.table is not None:
        yield from _of_table(said.table)


def _of_listener(said: Snapshot) -> Iterator[Family]:
    rows = sorted(said.rows, key=lambda row: (row.name or "", row.reason))
    yield Family(
        "doorward_packets_total",
        "Packets by the reason of their verdict.",
        tuple(Sample(row.count, {"reason": row.reason.value}) for row in rows if row.name is None),
    )
    yield Family(
        "doorward_verdicts_total",
        "Those of them that have the name of a client or stanza.",
        tuple(
            Sample(row.count, {"reason": row.reason.value, "name": row.name}) for row in rows if row.name is not None
        ),
    )
    granted = [row for row in rows if row.reason is Reason.GRANTED and row.last]
    yield Family(
        "doorward_last_grant_timestamp_seconds",
        "When a knock was granted last.",
        tuple(Sample(row.last, {}) for row in granted if row.name is None),
    )
    yield Family(
        "doorward_last_knock_timestamp_seconds",
        "When the last knock of a client was granted.",
        tuple(Sample(row.last, {"name": row.name}) for row in granted if row.name is not None),
    )
    now = said.gauges
    yield gauge(
        "doorward_dropped_packets_total", "Packets that the kernel dropped for want of buffer space.", now.dropped
    )
    yield gauge("doorward_replay_packets", "Packets in the replay store.", now.replay)
    yield gauge("doorward_replay_packets_max", "Packets that it can hold; then all are refused.", now.replay_room)
    yield gauge("doorward_gpg_packets", "Packets that gpg decrypts, or that wait for it.", now.gnupg)
    yield gauge("doorward_exec_waiting_orders", "Orders that doorward-exec has not taken yet.", now.orders)
    if now.share is not None:
        yield gauge("doorward_share_works", "Whether REPLAY_SHARE answers and is written.", int(now.share))


def _of_table(table: Table) -> Iterator[Family]:
    words = {word for word, _ in table.standing.doubts}
    policy = next((_OF_DOUBTS[word] for word in _OF_DOUBTS if word in words), table.kind)
    yield gauge("doorward_closed", "Whether strangers are kept out, for certain.", int(table.standing.closed is True))
    yield gauge(
        "doorward_table_intact",
        "Whether our table is as its file or doorwardd makes it.",
        int(not words & _NOT_INTACT),
    )
    yield Family(
        "doorward_doubt",
        "What speaks against the host, in the words of `doorward status`.",
        tuple(Sample(int(word in words), {"cause": word.value}) for word in _DOUBTS),
    )
    yield Family(
        "doorward_policy",
        "The policy in force: the table's kind, or that of the failure policy.",
        tuple(Sample(int(one == policy), {"policy": one}) for one in POLICIES),
    )
    yield gauge("doorward_grants_total", "Grants that were opened, renewed ones too.", table.opened)
    live = {None: 0, **table.live}
    yield Family(
        "doorward_live_grants",
        "Grants that have not ended, one for each service and source, by the name of the client or stanza.",
        tuple(Sample(live[name], {"name": name or ""}) for name in sorted(live, key=lambda one: one or "")),
    )
    yield gauge("doorward_gate_refused_packets_total", "Packets that the kernel gate refused.", table.refused)


def _build_time() -> float:
    """When the archive, or the package's file, was last changed."""
    place = Path(doorward.__file__)
    while not os.path.lexists(place):  # within the archive
        place = place.parent
    return round(place.stat().st_mtime, 3)
