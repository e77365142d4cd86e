"""Everyday plays against hidden hosts: how often they knock, and what they survive."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import hosts, network
from lab.controller import INVENTORY
from lab.plan import NETWORK, STATE
from lab.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.controller import Controller
    from lab.trial import Trial

HERE = Path(__file__).parent
SHORT = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=2s"}


def test_a_play_of_facts_and_four_tasks_knocks_once(trial: Trial, controller: Controller, visit: str) -> None:
    before = trial.granted()
    controller.playbook(visit, "--limit", trial.host.name).check()
    assert trial.granted() - before == 1


def test_a_play_knocks_again_when_window_and_control_persist_have_ended(trial: Trial, controller: Controller) -> None:
    before = trial.granted()
    impatient = replace(controller, settings=SHORT)
    impatient.playbook(str(HERE / "expiry.yml"), "--limit", trial.host.name).check()
    assert trial.granted() - before == 2


def test_a_long_task_outlives_its_window(trial: Trial, controller: Controller) -> None:
    before = trial.granted()
    controller.playbook(str(HERE / "long_task.yml"), "--limit", trial.host.name).check()
    assert trial.granted() - before == 1


def test_reset_connection_costs_one_more_knock(trial: Trial, controller: Controller) -> None:
    before = trial.granted()
    controller.playbook(str(HERE / "reset.yml"), "--limit", trial.host.name).check()
    assert trial.granted() - before == 2


def test_a_reboot_comes_back_hidden_and_the_play_goes_on(trial: Trial, controller: Controller) -> None:
    # A restart of the container stands in for the reboot; that no nft table is left shows a table of our own.
    trial.console("nft", "add", "table", "inet", "left_behind")
    trial.console("rm", "-f", "/run/reboot-asked")
    assert "left_behind" in trial.ruleset()
    watcher = threading.Thread(target=_restart_when_asked, args=(trial,))
    watcher.start()
    played = controller.playbook(str(HERE / "reboot.yml"), "--limit", trial.host.name)
    watcher.join()
    played.check()
    assert "left_behind" not in trial.ruleset()
    assert "inet doorward" in trial.ruleset()
    trial.wait_until_closed()
    assert not hosts.reachable(trial.host), "the host came back open"


def _restart_when_asked(trial: Trial) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if trial.console("sh", "-c", "test -e /run/reboot-asked && echo yes || :").strip() == "yes":
            hosts.restart(trial.host)
            return
        time.sleep(0.2)


@pytest.fixture
def lossy(trial: Trial) -> Iterator[None]:
    """A network that loses the first knock to the host."""
    rules = (
        "table bridge lossy {\n"
        " set seen { type ipv4_addr; }\n"
        " counter lost { }\n"
        " chain forward {\n"
        "  type filter hook forward priority 0;\n"
        f"  udp dport 62201 ip daddr {trial.host.address.ipv4} ip daddr != @seen"
        " add @seen { ip daddr } counter name lost drop\n"
        " }\n}\n"
    )
    inside = ("ip", "netns", "exec", NETWORK)
    run(*inside, "nft", "-f", "-", stdin=rules)
    yield
    run(*inside, "nft", "delete", "table", "bridge", "lossy")


@pytest.mark.usefixtures("lossy")
def test_a_play_survives_the_loss_of_its_first_knock(trial: Trial, controller: Controller, visit: str) -> None:
    before = trial.granted()
    controller.playbook(visit, "--limit", trial.host.name).check()
    lost = run("ip", "netns", "exec", NETWORK, "nft", "list", "counter", "bridge", "lossy", "lost")
    assert "packets 1 " in lost, "the first knock was lost on the way"
    assert trial.granted() - before == 1


def test_ten_forks_knock_at_once_and_all_get_in(trials: dict[str, Trial], controller: Controller) -> None:
    trial = trials["trial-12"]
    trial.close()
    before = trial.granted()
    apart = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none"}
    crowd = replace(controller, inventory=HERE / "crowd", settings=apart)
    played = crowd.playbook(str(HERE / "crowd.yml"), "--forks", "10").check()
    assert len(played.hosts) == 10
    assert trial.granted() - before == 10


def test_a_host_behind_port_forwarding_is_reached_by_the_port_that_is_seen(
    trials: dict[str, Trial], controller: Controller, visit: str
) -> None:
    trial = trials["trial-13"]
    trial.close()
    before = trial.granted()
    with network.gateway(trial.host, outer_port=2201):
        where = (f"ansible_host={network.GATEWAY}", "ansible_port=2201", "ansible_spa_service=tcp/2222")
        alias = f"-o HostKeyAlias=[{trial.host.address.ipv4}]:{trial.host.ssh_port}"
        extra = [word for pair in (*where, f"ansible_ssh_extra_args='{alias}'") for word in ("--extra-vars", pair)]
        controller.playbook(visit, "--limit", trial.host.name, *extra).check()
    assert trial.granted() - before == 1


@pytest.mark.parametrize("by", ["ssh_config", pytest.param("-e", marks=pytest.mark.whole)])
def test_a_hidden_host_is_closed_anew_and_verified_where_its_inventory_has_no_address(
    trials: dict[str, Trial], controller: Controller, tmp_path: Path, by: str
) -> None:
    trial = trials["trial-12"]
    address = trial.host.address.ipv4
    inventory = tmp_path / "inventory"
    shutil.copytree(INVENTORY / "group_vars", inventory / "group_vars")
    (inventory / "host_vars").symlink_to(STATE / "host_vars")
    (inventory / "hosts.yml").write_text(f"lab:\n  hosts:\n    {trial.host.name}:\n", encoding="utf-8")
    (tmp_path / "ssh_config").write_text(f"Host {trial.host.name}\nHostName {address}\nUser root\n", encoding="utf-8")
    known = f"-o StrictHostKeyChecking=yes -o UserKnownHostsFile={STATE}/known_hosts"
    said = {
        "ssh_config": {"ansible_ssh_common_args": f"-F {tmp_path}/ssh_config {known}"},
        "-e": {"ansible_host": address, "ansible_user": "root"},
    }
    given = ("--extra-vars", json.dumps(said[by] | {"doorward_window": 6}))
    elsewhere = replace(controller, inventory=inventory)
    again = elsewhere.playbook("doorward.spa.rollout", *given, "--extra-vars", "doorward_firewall_force=true").check()
    assert again.changed, "closed anew"
    trial.close()
    assert "hidden, opens to a knock of" in elsewhere.playbook("doorward.spa.verify", *given).check().output
