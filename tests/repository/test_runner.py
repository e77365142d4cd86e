"""The runner of all suites: what fails is counted, wherever it ran, and is told in its place."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import run

if TYPE_CHECKING:
    from collections.abc import Iterable


def suite(name: str, script: str, lane: run.Lane = run.Lane.SHOWN) -> run.Suite:
    return run.Suite(name, (sys.executable, "-c", script), lane=lane)


GOOD, BAD = "print('it is well')", "print('it is broken'); raise SystemExit(3)"


def printed(suites: Iterable[run.Suite], patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Return the exit code and the lines of a run."""
    patch.setattr(run, "CHECK", tuple(suites))
    code = run.main(["check"])
    return [str(code), *filter(None, capfd.readouterr().out.splitlines())]


def test_what_passes_is_counted(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    lines = printed([suite("one", GOOD, run.Lane.LAB), suite("two", GOOD)], monkeypatch, capfd)
    assert (lines[0], lines[-1]) == ("0", "2 passed, 0 failed, 0 skipped")


@pytest.mark.parametrize("lane", run.Lane)
def test_what_fails_is_counted_wherever_it_runs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], lane: run.Lane
) -> None:
    lines = printed([suite("one", BAD, lane), suite("two", GOOD)], monkeypatch, capfd)
    assert (lines[0], lines[-1]) == ("1", "1 passed, 1 failed, 0 skipped")


def test_what_runs_beside_the_others_is_shown_in_its_place(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = printed([suite("one", GOOD), suite("two", BAD, run.Lane.LAB), suite("three", GOOD)], monkeypatch, capfd)
    assert lines[1:7] == ["=== one", "it is well", "=== two", "it is broken", "=== three", "it is well"]
