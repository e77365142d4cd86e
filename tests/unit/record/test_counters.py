"""The counters and the file that the console reads: written by a process that is not trusted."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from doorward.errors import DoorwardError
from doorward.record.counters import Counters, Published, counters_beside, published
from doorward.values import Reason

if TYPE_CHECKING:
    from pathlib import Path

HEARD = "udp 62201 (server): nothing is in the way"


def test_what_is_counted_can_be_read_while_the_daemon_runs_and_after_it(tmp_path: Path) -> None:
    file = counters_beside(tmp_path / "replay.db")
    counters, writer = Counters(), Published(file)
    assert published(file) is None, "nothing is written yet"
    writer.write(counters, HEARD)
    assert published(file) == ({}, HEARD, "")
    writer.write(counters, HEARD, "/run/vàlkey.sock: works")
    assert published(file) == ({}, HEARD, "/run/v?lkey.sock: works")
    for reason in (Reason.HMAC, Reason.GRANTED, Reason.HMAC):
        counters.count(reason)
    counters.dropped, counters.refused = 7, 8
    writer.write(counters, HEARD)
    assert published(file) == ({"hmac": 2, "granted": 1, "dropped": 7, "refused_in_kernel": 8}, HEARD, "")
    assert counters.total == 3
    written = file.stat().st_mtime_ns
    writer.write(counters, HEARD)
    writer.close()
    assert file.stat().st_mtime_ns == written, "what has not changed is not written again"
    Published(file).close()
    assert published(file) is None, "a new daemon begins with nothing"


def test_every_counter_fits_into_the_file(tmp_path: Path) -> None:
    counters, writer = Counters(), Published(tmp_path / "counters.json")
    counters._counts = dict.fromkeys(Reason, 2**64)  # noqa: SLF001  more than a machine can count to
    counters.dropped = 2**64
    counters.refused = counters.duplicates = 2**64
    writer.write(counters, HEARD + "x" * 4096, "/run" + "x" * 4096)
    writer.close()
    found = published(tmp_path / "counters.json")
    assert found is not None
    assert found[0] == dict.fromkeys([*map(str, Reason), "dropped", "refused_in_kernel", "duplicates"], 2**64)
    assert found[1].startswith(HEARD), "a text without an end is cut"
    assert found[2].startswith("/runx")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"hmac": "1"}',
        b'{"hmac": 1.5}',
        b'{"hmac": true}',
        b'{"\\u001b[2J": 1}',
        b'{"hmac": 1, "verdict=granted": 2}',
        b'{"hmac": 1, "heard": 2}',
        b'{"hmac": 1, "share": 2}',
        b'{"hmac": 1, "share": "works\\u001b[2J"}',
        b'{"hmac": 1, "heard": "udp\\u001b[2J"}',
        b'{"hmac": 1, "heard": "udp\\nopen: any"}',
        b"[" * 2048,
        b'{"hmac": 1}' + b" " * 4096 + b"x",
    ],
)
def test_a_file_with_anything_else_says_nothing_or_what_it_may(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "counters.json"
    file.write_bytes(content)
    assert published(file) in (None, ({"hmac": 1}, "", ""))
    assert (published(file) is None) == (len(content) < 4096)


def test_neither_reader_nor_writer_follows_a_link_or_waits_at_a_pipe(tmp_path: Path) -> None:
    file, other = tmp_path / "counters.json", tmp_path / "other"
    other.write_text(json.dumps({"hmac": 1}))
    file.symlink_to(other)
    assert published(file) is None
    with pytest.raises(DoorwardError, match="cannot be opened"):
        Published(file)
    file.unlink()
    os.mkfifo(file)
    assert published(file) is None
    assert published(tmp_path / "missing.json") is None


def test_a_full_disk_costs_no_packet_its_verdict(tmp_path: Path) -> None:
    writer = Published(tmp_path / "counters.json")
    writer.close()
    writer._descriptor = os.open("/dev/full", os.O_WRONLY)  # noqa: SLF001  a full disk
    writer.write(Counters(), HEARD)
    writer.close()
