"""The roll-out itself: when it goes wrong, and when nothing of the project is there but the collection's tarball."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.controller import AT_ONCE, INVENTORY, Controller
from lab.plan import REPOSITORY, STATE

if TYPE_CHECKING:
    from lab.controller import Played
    from lab.trial import Trial

HERE = Path(__file__).parent
TABLE = "ansible_collections/doorward/spa/roles/firewall/templates/firewall.nft.j2"

SOON = ("--extra-vars", "doorward_firewall_deadline=30")

# Four roll-outs and a deadline; and whoever runs this file alone waits for the images to be built as well.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def bare(trials: dict[str, Trial]) -> list[Trial]:
    """Both hosts as new ones that nobody has rolled out to."""
    for trial in trials.values():
        hosts.remove(trial.host)
    hosts.up(list(trials))
    return list(trials.values())


@pytest.fixture
def broken(controller: Controller, tmp_path: Path) -> Controller:
    """The same with a collection whose table lets nobody in."""
    collections = tmp_path / "collections"
    shutil.copytree(REPOSITORY / "collections", collections, symlinks=True)
    table = collections / TABLE
    text = table.read_text(encoding="utf-8")
    assert "@open4 {{ let_in }}" in text
    table.write_text(text.replace("@open4 {{ let_in }}", "@open4 drop"), encoding="utf-8")
    return replace(controller, collections=collections)


def is_rolled_back(failed: Played, first: Trial) -> None:
    """Fail where the run did not end at its first host, or where anything that it closed is kept there."""
    assert {recap.host for recap in failed.hosts if recap.failed} == {first.host.name}, "it ends at the first"
    assert first.console("sh", "-c", "ls /etc/doorward/firewall.nft 2>/dev/null || :") == ""
    status = hosts.status(first.host)
    assert (status["table"], status["pending"]) == ("observe", False)


def test_a_broken_accept_rule_is_rolled_back_and_nothing_is_kept(
    bare: list[Trial], controller: Controller, broken: Controller
) -> None:
    is_rolled_back(broken.playbook("doorward.spa.rollout", *SOON, *limit(bare)), bare[0])
    assert all(hosts.reachable(each.host) for each in bare), "plain ssh is answered again, or still"

    # With the rule put right, one after the other: it was the rule that was wrong, and nothing is in the way.
    played = controller.playbook("doorward.spa.rollout", *limit(bare)).check()
    assert played.output.count("PLAY [Roll doorward out]") == len(bare), "the second only after the first"
    for trial in bare:
        trial.wait_until_closed()
        assert not hosts.reachable(trial.host)


@pytest.mark.whole
def test_it_is_rolled_back_where_systemd_opens_the_port_of_ssh(bare: list[Trial], broken: Controller) -> None:
    is_rolled_back(broken.playbook("doorward.spa.rollout", *SOON, *limit(bare[1:])), bare[1])
    assert hosts.reachable(bare[1].host)


@pytest.mark.whole
def test_the_tarball_alone_is_enough(
    bare: list[Trial], controller: Controller, visit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = REPOSITORY / "collections/ansible_collections/doorward/spa"
    controller.galaxy("collection", "build", str(source), "--output-path", str(tmp_path)).check()
    [tarball] = tmp_path.glob("doorward-spa-*.tar.gz")
    alone = replace(controller, collections=tmp_path / "collections", inventory=tmp_path / "inventory")
    alone.galaxy("collection", "install", str(tarball), "-p", str(alone.collections)).check()
    alone.inventory.mkdir()
    shutil.copy(HERE / "inventory/hosts.yml", alone.inventory)
    shutil.copytree(INVENTORY / "group_vars", alone.inventory / "group_vars")
    (alone.inventory / "host_vars").symlink_to(STATE / "host_vars")
    play = shutil.copy(visit, tmp_path / "visit.yml")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    hidden = replace(alone, prefix=_without(REPOSITORY))

    shown = hidden.module("localhost", "ansible.builtin.command", "-a", f"ls {REPOSITORY}/daemon {REPOSITORY}/tests")
    assert "values.py" not in shown.output, "the sources are out of sight"
    hidden.playbook("doorward.spa.rollout", *AT_ONCE, *limit(bare)).check()
    for trial in bare:
        trial.wait_until_closed()
        assert not hosts.reachable(trial.host)
    before = [trial.granted() for trial in bare]
    # With connections of its own, so that it does not ride on one that the roll-out left open.
    replace(hidden, home=controller.home / "v").playbook(str(play), *limit(bare)).check()
    assert [trial.granted() - earlier for trial, earlier in zip(bare, before, strict=True)] == [1, 1]


def limit(trials: list[Trial]) -> tuple[str, str]:
    """Return the options that have Ansible go to these hosts alone."""
    return "--limit", ",".join(trial.host.name for trial in trials)


def _without(repository: Path) -> tuple[str, ...]:
    """What runs a command with the sources covered, all but the environment that Ansible itself is in."""
    environment = Path(sys.prefix)
    covered = [
        str(path)
        for path in repository.iterdir()
        if path.is_dir() and not path.is_symlink() and not environment.is_relative_to(path) and path != STATE
    ]
    cover = 'while [ "$1" != -- ]; do mount -t tmpfs none "$1"; shift; done; shift; exec "$@"'
    return ("unshare", "--mount", "sh", "-c", f"set -eu; {cover}", "sh", *covered, "--")
