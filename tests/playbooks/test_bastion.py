"""A roll-out to a host behind a bastion, which is hidden itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.containers import podman
from lab.plan import STATE
from lab.run import run
from lab.trial_fixtures import bare

if TYPE_CHECKING:
    from lab.controller import Controller
    from lab.trial import Trial

BASTION, BEHIND = "10.99.0.1", "10.99.0.2"  # a network of which the controller knows nothing

# Two roll-outs, and whoever runs this file alone waits for the images to be built as well.
pytestmark = pytest.mark.timeout(900)


def join(trial: Trial, address: str) -> None:
    """Give a host an address in the network of both."""
    process = podman("inspect", "--format", "{{.State.Pid}}", trial.host.container).strip()
    run("nsenter", "--target", process, "--net", "ip", "address", "add", f"{address}/24", "dev", "eth0")


def origins(trial: Trial) -> set[str]:
    """Where the packets that a host has judged came from."""
    journal = trial.console("journalctl", "--unit=doorwardd", "--output=cat", "--no-pager")
    return set(re.findall(r"^verdict=.* origin=(\S+)", journal, re.MULTILINE))


def test_a_roll_out_over_a_bastion_takes_no_other_road(trials: dict[str, Trial], controller: Controller) -> None:
    bastion, behind = trials["trial-12"], trials["trial-13"]
    bare([behind.host.name])
    join(bastion, BASTION)
    join(behind, BEHIND)
    place = f"HostName {BEHIND}\nPort {behind.host.ssh_port}\nHostKeyAlias [{behind.host.address.ipv4}]:2222\n"
    (STATE / "bastion.conf").write_text(f"Host {behind.host.name}\n{place}", encoding="utf-8")
    through = replace(controller, inventory=Path(__file__).parent / "bastion")
    limit = ("--limit", behind.host.name)

    assert hosts.reachable(behind.host)
    before = bastion.granted()
    through.playbook("doorward.spa.rollout", *limit).check()
    assert bastion.granted() > before
    behind.wait_until_closed()
    assert not hosts.reachable(behind.host)
    assert origins(behind) == {BASTION}, "the proof and the confirmation knocked from there"

    granted = behind.granted()
    # With connections of its own, so that it does not ride on one that the roll-out left open.
    alone = replace(through, home=controller.home / "v")
    assert "rc=0" in alone.module(behind.host.name, "ansible.builtin.raw", "-a", "hostname").check().output
    assert behind.granted() == granted + 1
    assert origins(behind) == {BASTION}
