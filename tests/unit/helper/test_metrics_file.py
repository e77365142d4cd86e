"""METRICS_FILE: what is in it, whatever a taken-over listener reports, and whatever is in the way of writing it."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import re
import time
from typing import TYPE_CHECKING

from doorward import __version__
from doorward.config.access import Access
from doorward.config.files import Files, Question
from doorward.config.stanza import Client
from doorward.crypto import doorward
from doorward.firewall.standing import Standing, Word
from doorward.helper.messages import Gauges, Numbers, Row
from doorward.helper.metrics_file import POLICIES, MetricsFile, Table
from doorward.record.log import Log
from doorward.values import Reason, Secret
from system.doorwardd import eventually
from unit.making import stanza
from unit.record.test_openmetrics import read_by_both

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENT = Client(doorward.public_key(Secret(b"c" * 32)), "phone")
ACCESS = Access((stanza(name="laptop"), stanza(2, keys=None, clients=(CLIENT,))), ())
GAUGES = Gauges(dropped=1, replay=2, replay_room=3, gnupg=4, orders=5)
TABLE = Table(Standing(), "drop", 7, {"laptop": 2}, 9)
LAST = 1_800_000_000
ROWS = (
    Row(None, Reason.HMAC, 4, 0),
    Row(None, Reason.GRANTED, 3, LAST + 1),
    Row("laptop", Reason.GRANTED, 2, LAST),
    Row("phone", Reason.TAG, 1, 0),
)


@contextlib.contextmanager
def metrics(lines: io.StringIO) -> Iterator[MetricsFile]:
    """A file with its thread, and a log that is written at once."""
    logger = logging.getLogger(f"metrics.{id(lines)}")
    logger.propagate = False
    log = Log(logger, logging.StreamHandler(lines))
    with contextlib.closing(log), contextlib.closing(MetricsFile(log)) as made:
        yield made


def written(made: MetricsFile, path: Path, table: Table | None = TABLE, now: float = 0) -> str:
    """The file after one report; without one that is there already."""
    path.unlink(missing_ok=True)
    made.write(table, now)
    assert eventually(path.exists)
    return path.read_text()


def test_the_file_says_what_listener_and_helper_know(tmp_path: Path) -> None:
    file, key = tmp_path / "a.prom", tmp_path / "host.key"
    key.write_text("")
    os.utime(key, (1000, 1000))
    gone = str(tmp_path / "gone")
    with metrics(io.StringIO()) as made:
        made.read(Files({(Question.SECRET, str(key)): b"", (Question.SECRET, gone): b"", (Question.USER, "x"): b""}))
        made.follow(file, ACCESS)
        made.take(Numbers(ROWS[:1], GAUGES, last=False))
        assert not made.is_due(100)
        made.take(Numbers(ROWS[1:], GAUGES, last=True))
        assert made.is_due(100)
        found = read_by_both(written(made, file, now=100).encode())
    assert not made.is_due(200)
    assert found["doorward_packets_total"] == {(("reason", "hmac"),): 4, (("reason", "granted"),): 3}
    assert found["doorward_verdicts_total"] == {
        (("name", "laptop"), ("reason", "granted")): 2,
        (("name", "phone"), ("reason", "tag")): 1,
    }
    assert found["doorward_last_knock_timestamp_seconds"] == {(("name", "laptop"),): LAST}
    assert found["doorward_live_grants"] == {(("name", ""),): 0, (("name", "laptop"),): 2}
    assert found["doorward_key_timestamp_seconds"] == {(("file", str(key)),): 1000}
    assert found["doorward_build_info"] == {(("version", __version__),): 1}
    assert found["doorward_policy"] == {(("policy", one),): one == "drop" for one in POLICIES}
    assert set(found["doorward_doubt"].values()) == {0}
    plain = {name: values[()] for name, values in found.items() if set(values) == {()}}
    now = time.time()
    for name in ("last_update", "configuration"):
        assert now - 60 < plain.pop(f"doorward_{name}_timestamp_seconds") <= now + 1
    assert plain.pop("doorward_build_timestamp_seconds") <= now
    assert plain == {
        "doorward_last_grant_timestamp_seconds": LAST + 1,
        "doorward_dropped_packets_total": 1,
        "doorward_replay_packets": 2,
        "doorward_replay_packets_max": 3,
        "doorward_gpg_packets": 4,
        "doorward_exec_waiting_orders": 5,
        "doorward_closed": 1,
        "doorward_table_intact": 1,
        "doorward_grants_total": 7,
        "doorward_gate_refused_packets_total": 9,
    }


def state(made: MetricsFile, file: Path, table: Table) -> tuple[float, float, list[str], list[str]]:
    """Whether the host is closed, whether the table is intact, the doubts, the policies in force."""
    found = read_by_both(written(made, file, table).encode())
    words = [
        [labels[0][1] for labels, value in found[name].items() if value]
        for name in ("doorward_doubt", "doorward_policy")
    ]
    return found["doorward_closed"][()], found["doorward_table_intact"][()], *words  # type: ignore[return-value]


def test_what_speaks_against_the_host_is_in_the_words_of_status(tmp_path: Path) -> None:
    file = tmp_path / "a.prom"
    with metrics(io.StringIO()) as made:
        made.follow(file, ACCESS)

        def said(word: Word, kind: str, *, closed: bool | None = False) -> tuple[float, float, list[str], list[str]]:
            return state(made, file, Table(Standing(closed, ((word, "x"),)), kind, 0, {}, 0))

        assert said(Word.CHANGED, "drop") == (0, 0, ["changed"], ["drop"])
        assert said(Word.ABSENT, "none") == (0, 0, ["absent"], ["none"])
        assert said(Word.DORMANT, "drop") == (0, 0, ["dormant"], ["none"])
        assert said(Word.OBSERVE, "observe") == (0, 1, ["observe"], ["observe"])
        assert said(Word.FAILURE, "guard", closed=None) == (0, 1, ["failure"], ["failure"])
        assert said(Word.UNKNOWN, "", closed=None) == (0, 0, ["unknown"], [])
        assert said(Word.OPEN, "drop") == (0, 1, ["open"], ["drop"])


def test_a_daemon_that_opens_nothing_says_nothing_of_a_firewall(tmp_path: Path) -> None:
    with metrics(io.StringIO()) as made:
        made.follow(tmp_path / "a.prom", ACCESS)
        found = read_by_both(written(made, tmp_path / "a.prom", None).encode())
    assert "doorward_closed" not in found
    assert "doorward_replay_packets" in found


def test_a_listener_that_was_taken_over_cannot_make_up_names_or_fill_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "a.prom"
    with metrics(io.StringIO()) as made:
        made.follow(file, ACCESS)
        for number in range(5000):
            made.take(Numbers((Row(f"made-up-{number}", Reason.GRANTED, 1, 1),), GAUGES, last=True))
        made.take(Numbers(ROWS, GAUGES, last=True))
        first = written(made, file, now=100)
        made.take(Numbers(ROWS, GAUGES, last=True))
        assert not made.is_due(100.5), "at most once a second"
        assert made.is_due(101)
    assert "made-up" not in first
    assert 'name="phone"' in first


def test_a_reload_forgets_the_names_that_are_gone_and_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "a.prom"
    with metrics(io.StringIO()) as made:
        made.follow(file, ACCESS)
        made.take(Numbers(ROWS, GAUGES, last=True))
        made.follow(file, Access(ACCESS.stanzas[:1], ()))
        said = written(made, file)
        assert 'name="laptop"' in said
        assert 'name="phone"' not in said
        made.follow(None, ACCESS)
        file.unlink()
        made.take(Numbers(ROWS, GAUGES, last=True))
        assert not made.is_due(1000)
        made.write(TABLE, 1000)
    assert not file.exists(), "no file is configured any more"


def exchange(one: Path, other: Path) -> None:
    """Give each the other's name, with no moment at which one is missing (renameat2(2))."""
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(here, os.fsencode(one), here, os.fsencode(other), both):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one))


def test_what_is_in_the_way_is_one_line_and_its_end_another(tmp_path: Path) -> None:
    folder, lines = tmp_path / "folder", io.StringIO()
    file = folder / "a.prom"
    with metrics(lines) as made:
        made.follow(file, ACCESS)

        def tries(expected: str, count: int) -> None:
            for _ in range(3):
                made.write(TABLE, 0)
                time.sleep(0.05)
            assert eventually(lambda: lines.getvalue().count(expected) == count), lines.getvalue()

        tries("cannot be written: No such file or directory", 1)
        folder.mkdir()
        written(made, file)
        assert eventually(lambda: "is written again" in lines.getvalue())
        elsewhere = tmp_path / "elsewhere"
        elsewhere.symlink_to(elsewhere)  # and after the exchange the folder is there, and the link in its place
        exchange(elsewhere, folder)
        tries("cannot be written: folder is a link, or no folder", 1)
    assert len(re.findall("cannot be written", lines.getvalue())) == 2


def test_a_disk_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    lines = io.StringIO()
    with metrics(lines) as made:
        made.follow(tmp_path / "a.prom", ACCESS)
        made.close()  # the thread ends: as on a disk that hangs, nothing is taken out of the queue any more
        for _ in range(5):
            made.write(TABLE, 0)
        assert eventually(lambda: "the disk does not answer" in lines.getvalue())
        assert lines.getvalue().count("the disk does not answer") == 1
