"""Fixtures of tests that run playbooks against a pair of hosts; a conftest.py imports them and names its own."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.controller import AT_ONCE, VISIT, Controller
from lab.plan import HOSTS, RUN
from lab.snapshot import BEFORE, snapshot
from lab.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


PACKAGES = """
apt-get -qq update >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \\
  libseccomp2 nftables python3-cryptography util-linux >/dev/null
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A Debian 12 and a Debian 13 that nobody else uses, and the inventory that names them."""

    prefix: str
    inventory: Path

    @property
    def names(self) -> tuple[str, str]:
        """The names of both hosts."""
        return f"{self.prefix}-12", f"{self.prefix}-13"


def bare(names: Sequence[str]) -> None:
    """Start hosts anew, and remember what they are like before their first roll-out."""
    for name in names:
        hosts.remove(HOSTS[name])
    hosts.up(names)
    for name in names:  # packages stay when doorward goes: what they bring is no difference
        Trial(HOSTS[name]).console("sh", "-c", PACKAGES)
        BEFORE[name] = snapshot(Trial(HOSTS[name]))


def give_the_first_time(items: list[pytest.Item], folder: Path) -> None:
    """Give the first test of a folder the time that images take to be built, or to be waited for."""
    first = next((item for item in items if item.path.parent == folder), None)
    if first is not None:
        first.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def trials(pair: Pair) -> Iterator[dict[str, Trial]]:
    """Both hosts, bare at first, then rolled out; removed at the end."""
    bare(pair.names)
    Controller(inventory=pair.inventory).playbook("doorward.spa.rollout", *AT_ONCE).check()
    yield {name: Trial(HOSTS[name]) for name in pair.names}
    for name in pair.names:
        hosts.remove(HOSTS[name])


@pytest.fixture(params=(0, 1), ids=("debian-12", "debian-13"))
def trial(request: pytest.FixtureRequest, pair: Pair, trials: dict[str, Trial]) -> Trial:
    """One host after the other, with no window open."""
    name = pair.names[request.param]
    trials[name].close()
    return trials[name]


@pytest.fixture
def controller(pair: Pair) -> Iterator[Controller]:
    """Ansible with no connection of an earlier test left to ride on."""
    # Short, since the path of a unix socket ends at 107 characters.
    home = RUN / f"t{time.monotonic_ns() % 10**9}"
    yield Controller(inventory=pair.inventory, home=home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def visit() -> str:
    """The everyday playbook: gather_facts and four tasks."""
    return str(VISIT)
