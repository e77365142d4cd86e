"""Failures injected into roll-outs to two hidden hosts: none of them shuts the owner out, and nothing unproven stays.

Each turn strikes both hosts, each with a failure of its own; then a roll-out without any goes to both. The table of all
of them is printed at the end of the run, and written into the file that ``DOORWARD_FAULTS_TABLE`` names.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.controller import AT_ONCE
from lab.run import LabError
from lab.trial_fixtures import bare
from rollouts.faults import ACCESS, APPLY, STRANGERS, TURNS, Blow, Fault, Moment
from rollouts.owner import owner_of, seconds_away, watching
from rollouts.rows import ROWS, Row
from rollouts.scene import ROLLOUT, Scene
from rollouts.striking import LOCKED_OUT, Ending, differences, files, inject, play, settle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab.controller import Controller
    from lab.trial import Trial

pytestmark = [pytest.mark.whole, pytest.mark.timeout(1200)]


def scenes(faults: Sequence[Fault], trials: dict[str, Trial], controller: Controller, folder: Path) -> list[Scene]:
    """Each fault with a host, a controller of its own and a folder."""
    found = []
    for number, (fault, trial) in enumerate(zip(faults, trials.values(), strict=True)):
        own = folder / trial.host.name
        own.mkdir()
        apart = replace(controller, home=controller.home / str(number))
        found.append(Scene(fault, trial, apart, owner_of(trial, number, own), own))
    return found


def injected(scene: Scene) -> Ending:
    """How it ended, also where the host cannot even be asked any more."""
    try:
        return inject(scene)
    except LabError as error:
        return Ending("", ended_well=False, strike="", away=None, undone=False, unsettled=str(error), differs=())


def second_runs(controller: Controller, names: Sequence[str], options: tuple[str, ...]) -> dict[str, str]:
    """What is wrong with a roll-out without any failure, for each host; it goes to both at once where nothing is."""
    apart = replace(controller, home=controller.home / "s")
    together = apart.playbook(ROLLOUT, "--limit", ",".join(names), *AT_ONCE, *options)
    if together.code == 0:
        return dict.fromkeys(names, "")
    alone = {name: apart.playbook(ROLLOUT, "--limit", name, *AT_ONCE) for name in names}
    return {name: " ".join(run.output[-400:].split()) if run.code else "" for name, run in alone.items()}


def parts(faults: Sequence[Fault]) -> tuple[str, ...]:
    """The options of a roll-out of the parts that any of these were injected into."""
    tags = [fault.options[1] for fault in faults if fault.options[:1] == ("--tags",)]
    return ("--tags", ",".join(tags)) if len(tags) == len(faults) else ()


def not_as_before(scene: Scene, before: dict[str, str]) -> str:
    """What is wrong with a host after the second run; empty where it is hidden, openable and has the old files."""
    scene.trial.close()
    if hosts.reachable(scene.trial.host):
        return "the host answers without a knock"
    if not scene.owner.gets_in():
        return "the owner does not get in"
    return ", ".join(differences(before, files(scene.trial)))


@pytest.mark.parametrize("turn", TURNS, ids=[" & ".join(fault.name for fault in turn) for turn in TURNS])
def test_after_each_failure_the_old_keys_get_in_and_nothing_unproven_stays(
    turn: tuple[Fault, Fault],
    trials: dict[str, Trial],
    controller: Controller,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    struck = scenes(turn, trials, controller, tmp_path)
    before = [files(scene.trial) for scene in struck]
    with ThreadPoolExecutor(len(struck)) as pool:
        endings = list(pool.map(injected, struck))
    second = second_runs(controller, [scene.host for scene in struck], parts(turn))
    with ThreadPoolExecutor(len(struck)) as pool:
        after = list(pool.map(not_as_before, struck, before))
    rows = [
        Row(scene.fault, scene.trial.host.system, ending, second[scene.host] or said)
        for scene, ending, said in zip(struck, endings, after, strict=True)
    ]
    pytestconfig.stash[ROWS].extend(rows)
    for scene, row in zip(struck, rows, strict=True):
        if row.second:  # the next turn begins with a host as it should be
            bare([scene.host])
            controller.playbook(ROLLOUT, "--limit", scene.host, *AT_ONCE).check()
    assert not [cause for row in rows for cause in row.wrong]


def test_a_host_that_stays_closed_is_seen_as_locked_out(
    trials: dict[str, Trial], controller: Controller, tmp_path: Path
) -> None:
    """What takes the change back is disarmed by hand: the table would show that nobody gets in, and what stays."""
    shut = Fault("", "", STRANGERS, ACCESS, APPLY, Moment.SWAPPED, Blow.KILL)
    [first] = list(trials.values())[:1]
    [scene] = scenes([shut], {first.host.name: first}, controller, tmp_path)
    before = files(first)
    with watching(scene.owner) as watch:
        ended_well, _, strike = play(scene)
        first.console("sh", "-euc", "cd /etc/doorward/change; mv pending aside; systemctl stop doorward-change-wait")
        unsettled = settle(first, watch, 20)
    assert (ended_well, strike, unsettled) == (False, "", LOCKED_OUT)
    assert seconds_away(watch.looks) is None
    kept = differences(before, files(first))
    assert "/etc/doorward/access.conf" in kept

    first.console("sh", "-euc", "cd /etc/doorward/change; mv aside pending; doorward change rollback")
    begun = time.monotonic()
    with watching(scene.owner) as watch:
        assert not settle(first, watch, 60)
    assert watch.got_in_since(begun)
    assert not differences(before, files(first))
