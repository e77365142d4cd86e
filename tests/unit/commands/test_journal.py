"""The journal of command cycles: what is kept, when it is due by which clock, and whom it is refused to."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.commands import journal as commands_journal
from doorward.commands.journal import BACKOFF_MAX, Cycle, Journal, Moment
from doorward.errors import DoorwardError

if TYPE_CHECKING:
    from pathlib import Path

AT = Moment(wall=1_800_000_000.0, steady=1000.0, boot="one")
CYCLE = Cycle(1, "192.0.2.7", ("/bin/close", "192.0.2.7"), {"PATH": "/bin"}, "root", None, (("/bin/open",),), AT, 60.0)


def later(seconds: float, *, boot: str = "one", wall: float | None = None) -> Moment:
    return Moment(AT.wall + seconds if wall is None else wall, AT.steady + seconds, boot)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    failed = replace(CYCLE, close=("/bin/other",)).failed(later(60))
    for cycle in (CYCLE, failed):
        journal.write(cycle)
    assert {cycle.name: cycle for cycle in journal.read() if isinstance(cycle, Cycle)} == {
        CYCLE.name: CYCLE, failed.name: failed,
    }  # fmt: skip
    journal.remove(CYCLE)
    assert list(journal.read()) == [failed]
    assert commands_journal.listed(tmp_path) == [failed]


def test_within_a_boot_no_step_of_the_wall_clock_counts() -> None:
    assert CYCLE.remaining(later(59, wall=0)) == 1
    assert CYCLE.remaining(later(59, wall=4e9)) == 1
    assert CYCLE.remaining(later(61, wall=0)) == -1


def test_after_a_reboot_the_wall_clock_counts_and_holds_no_door_open_longer_than_the_window() -> None:
    assert CYCLE.remaining(Moment(AT.wall + 50, 5.0, "two")) == 10
    assert CYCLE.remaining(Moment(AT.wall + 500, 5.0, "two")) < 0
    assert CYCLE.remaining(Moment(0.0, 5.0, "two")) == 60


def test_a_close_that_failed_is_tried_again_later_and_later_and_never_given_up() -> None:
    waits = []
    cycle = CYCLE
    for _ in range(30):
        cycle = cycle.failed(later(100))
        waits.append(cycle.remaining(later(100)))
    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == BACKOFF_MAX
    assert waits == sorted(waits)


def test_cycles_with_the_same_end_are_one() -> None:
    assert replace(CYCLE, seconds=5, opened=(), stanza=9).name == CYCLE.name
    assert replace(CYCLE, close=("/bin/close", "192.0.2.8")).name != CYCLE.name
    assert replace(CYCLE, user="nobody").name != CYCLE.name


@given(st.integers(0, 400))
def test_a_file_cut_at_any_byte_is_no_cycle(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"))
    journal.write(CYCLE)
    (path,) = journal.folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: min(length, len(content) - 1)])
    (found,) = journal.read()
    assert isinstance(found, str)
    assert "STAYS OPEN" in found
    assert path.with_suffix(".damaged").exists()


def test_half_a_file_of_a_write_that_was_interrupted_is_cleared_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (tmp_path / f".{CYCLE.name}.json.77.new").write_bytes(b"{")
    assert not list(journal.read())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_others_could_write_is_refused(tmp_path: Path) -> None:
    """What is in it is run by root: the listener's user must not be able to put its own folder there."""
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    Journal(tmp_path / "good" / "exec")
    for wrong in (open_to_all, open_to_all / "exec", theirs, theirs / "exec"):
        with pytest.raises(DoorwardError, match="others than root can write"):
            Journal(wrong)
