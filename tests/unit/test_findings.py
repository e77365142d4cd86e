from __future__ import annotations

from doorward.findings import NO, OK, UNKNOWN, Finding, hold


def test_a_finding_is_one_line_with_its_command() -> None:
    assert str(Finding(OK, "clock", "is right", "date")) == "ok  clock   is right  [date]"
    assert str(Finding(UNKNOWN, "clock", "nobody says")) == "?   clock   nobody says"


def test_what_is_unknown_does_not_speak_against_the_rest() -> None:
    fine = [Finding(OK, "a", ""), Finding(UNKNOWN, "b", "")]
    assert hold(fine)
    assert not hold([*fine, Finding(NO, "c", "")])
