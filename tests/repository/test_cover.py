"""The table of coverage: rooms are added up, and a gap in a room that decides who gets in is named."""

from __future__ import annotations

from typing import Any

import cover


def file(lines: int, missing: list[int], branches: int = 0, gone: list[list[int]] | None = None) -> dict[str, Any]:
    gone = gone or []
    counts = {"num_statements": lines, "missing_lines": len(missing)}
    counts |= {"num_branches": branches, "missing_branches": len(gone)}
    return {"summary": counts, "missing_lines": missing, "missing_branches": gone}


REPORT = {
    "files": {
        "daemon/doorward/wire/fwknop.py": file(10, []),
        "daemon/doorward/wire/openpgp.py": file(10, [3], 4, [[2, 3]]),
        "daemon/doorward/gate.py": file(5, [], 2),
        "daemon/doorward/client/send.py": file(20, [7, 8]),
    }
}


def test_the_files_of_a_room_are_one_line_and_all_rooms_are_the_last() -> None:
    rooms = {room.name: (room.statements, room.statements_missing, room.percent) for room in cover.rooms(REPORT)}
    assert rooms == {"client": (20, 2, 90.0), "gate": (5, 0, 100.0), "wire": (20, 1, 91.7), "total": (45, 3, 92.2)}
    assert [room.name for room in cover.rooms(REPORT)][-1] == "total"


def test_a_single_missing_branch_is_not_rounded_to_the_whole() -> None:
    described = {"files": {"daemon/doorward/gate.py": file(10_000, [], 2, [[1, 2]])}}
    assert [room.percent for room in cover.rooms(described)] == [99.9, 99.9]


def test_gaps_are_named_where_a_room_is_to_be_whole_and_only_there() -> None:
    assert cover.missing(REPORT) == [
        "daemon/doorward/wire/openpgp.py:3: no test runs this line",
        "daemon/doorward/wire/openpgp.py:2: no test goes on at 3",
    ]
