"""What counts as a line of code: no blank line, no comment, no docstring."""

from __future__ import annotations

import sizes

SOURCE = '''"""A docstring
of two lines."""

import os  # a comment beside code


def one(a, b):
    """Its own docstring."""
    # a comment

    text = """a string
    that is code"""
    return (
        text,
    )
'''


def test_blank_lines_comments_and_docstrings_are_not_counted() -> None:
    counted = sizes.count([("room/module.py", SOURCE)])
    assert counted.rooms == {"room": 7}
    assert counted.functions == [sizes.Function("room/module.py one", 5)]


def test_modules_of_a_folder_are_one_room_and_the_core_is_summed() -> None:
    counted = sizes.count(
        [("wire/a.py", "a = 1\n"), ("wire/b.py", SOURCE), ("gate.py", "b = 2\n"), ("client/c.py", "c = 3\n")]
    )
    assert counted.rooms == {"wire": 8, "gate": 1, "client": 1}
    assert "core" + " " * 22 + "9" in sizes.table(counted)


def test_every_room_of_the_core_is_there() -> None:
    assert not sizes.CORE - {sizes.room_of(name) for name, _ in sizes.of_work_tree()}


def test_the_modules_beside_a_knocks_way_are_there_and_in_its_rooms() -> None:
    assert not sizes.BESIDE - {name for name, _ in sizes.of_work_tree()}
    assert {sizes.room_of(name) for name in sizes.BESIDE} <= sizes.CORE


def test_a_module_beside_a_knocks_way_counts_for_its_room_and_not_for_the_way() -> None:
    beside = min(sizes.BESIDE)
    counted = sizes.count([(beside, SOURCE), ("gate.py", SOURCE)])
    assert sizes.count([("gate.py", SOURCE)]).beside == 0
    assert counted.beside == counted.rooms[sizes.room_of(beside)]
