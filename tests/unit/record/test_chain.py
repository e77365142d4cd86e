"""Audit lines that hang together."""

from __future__ import annotations

import pytest

from doorward.record import chain


def sealed(*lines: str, previous: str = chain.GENESIS) -> list[str]:
    made = []
    for line in (chain.begin(previous, "2026-01-01T00:00:00Z"), *lines):
        text, previous = chain.seal(previous, line)
        made.append(text)
    return made


FILE = sealed("one", "two", "three chain=0", "four")


def test_a_file_as_it_was_written_holds() -> None:
    assert chain.verify(FILE) == (5, chain.last(FILE[-1]), None)
    assert chain.verify([]) == (0, chain.GENESIS, None)


def test_files_hold_behind_each_other_and_in_no_other_order() -> None:
    later = sealed("five", previous=chain.last(FILE[-1]) or "")
    assert chain.verify([*FILE, *later])[2] is None
    assert chain.verify(later)[2] is None
    assert chain.verify([*later, *FILE])[2] == chain.Break(3, "begins behind another line than the one before it")


@pytest.mark.parametrize("place", range(len(FILE)))
def test_a_change_a_gap_and_a_swap_are_found_where_they_are(place: int) -> None:
    changed = [*FILE]
    changed[place] = changed[place].replace("e", "E", 1) if "e" in changed[place][:6] else "x" + changed[place]
    broken = chain.verify(changed)[2]
    assert broken is not None
    assert broken.line == place + 1
    if 0 < place < len(FILE) - 1:
        left_out = FILE[:place] + FILE[place + 1 :]
        assert chain.verify(left_out)[2] == chain.Break(place + 1, "was changed, or a line before it was left out")


@pytest.mark.parametrize("line", ["", "two", "two chain=12", "two chain=" + "g" * 64])
def test_a_line_without_a_hash_breaks_the_chain(line: str) -> None:
    assert chain.verify([*FILE[:2], line])[2] == chain.Break(3, "carries no hash")
    assert chain.last(line) is None


def test_a_file_without_its_beginning_does_not_hold() -> None:
    assert chain.verify(FILE[1:])[2] == chain.Break(1, "is not the beginning of a file")
