"""Hosts of the lab for tests that run playbooks, and what their own consoles say about them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.controller import AT_ONCE, VISIT, Controller
from lab.plan import HOSTS, RUN
from lab.trial import Trial
from playbooks.snapshot import BEFORE, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
NAMES = ("trial-12", "trial-13")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test the time that its images take to be built, or to be waited for while others build them."""
    first = next((item for item in items if item.path.parent == HERE), None)
    if first is not None:
        first.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def trials() -> Iterator[dict[str, Trial]]:
    """Both hosts, bare at first, then rolled out; removed at the end."""
    for name in NAMES:
        hosts.remove(HOSTS[name])
    hosts.up(NAMES)
    BEFORE.update({name: snapshot(Trial(HOSTS[name])) for name in NAMES})
    Controller(inventory=HERE / "inventory").playbook("doorward.spa.rollout", *AT_ONCE).check()
    yield {name: Trial(HOSTS[name]) for name in NAMES}
    for name in NAMES:
        hosts.remove(HOSTS[name])


@pytest.fixture(params=NAMES)
def trial(request: pytest.FixtureRequest, trials: dict[str, Trial]) -> Trial:
    """One host after the other, with no window open."""
    name: str = request.param
    trials[name].close()
    return trials[name]


@pytest.fixture
def controller() -> Iterator[Controller]:
    """Ansible with no connection of an earlier test left to ride on."""
    # Short, since the path of a unix socket ends at 107 characters.
    home = RUN / f"t{time.monotonic_ns() % 10**9}"
    yield Controller(inventory=HERE / "inventory", home=home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def visit() -> str:
    """The everyday playbook: gather_facts and four tasks."""
    return str(VISIT)
