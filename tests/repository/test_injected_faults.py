"""The table of failures that tests/rollouts injects: what it names is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from programs import NO_PROGRAMS, OF_HOSTS, OURS, PACKAGES, called_by_shell
from rollouts.faults import TURNS, Blow

COLLECTION = Path(__file__).resolve().parents[2] / "collections/ansible_collections/doorward/spa"
TASKS = {
    name.strip()
    for file in COLLECTION.glob("roles/*/tasks/*.yml")
    for name in re.findall(r"^ *- name: (.*)$", file.read_text("utf-8"), re.MULTILINE)
}
FAULTS = [fault for turn in TURNS for fault in turn]


def test_there_are_sixty_failures_and_more() -> None:
    assert len(FAULTS) >= 60
    assert not [key for key, count in Counter((fault.name, fault.stage) for fault in FAULTS).items() if count > 1]


def test_every_task_before_which_a_failure_strikes_is_one_of_the_roles() -> None:
    assert {fault.task for fault in FAULTS if fault.task} <= TASKS
    assert {fault.options[1] for fault in FAULTS if "--start-at-task" in fault.options} <= TASKS
    assert "Frobnicate" not in TASKS


def test_a_failure_strikes_at_a_task_or_is_in_the_variables_or_options() -> None:
    assert not [fault.name for fault in FAULTS if bool(fault.task) != bool(fault.strike)]
    assert not [fault.name for fault in FAULTS if not (fault.task or fault.variables or fault.options)]


def test_every_strike_from_without_is_in_the_table() -> None:
    assert {fault.strike for fault in FAULTS if isinstance(fault.strike, Blow)} == set(Blow)


def test_the_programs_of_its_scripts_are_known() -> None:
    scripts = [text for fault in FAULTS for text in (fault.strike, fault.undo) if isinstance(text, str)]
    words = {word.rpartition("/")[2] for script in scripts for _, word in called_by_shell(script)}
    assert not words - {*PACKAGES, *OURS, *OF_HOSTS, *NO_PROGRAMS, "X"}
    assert words & set(OF_HOSTS)
