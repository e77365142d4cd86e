"""Taking doorward off a host: last, since the host is none of ours after it."""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.containers import podman
from lab.plan import STATE
from lab.run import run
from lab.snapshot import BEFORE, snapshot
from system.doorwardd import HMAC_KEY, KEY

if TYPE_CHECKING:
    from lab.controller import Controller
    from lab.trial import Trial

SECONDS = 25
CYCLE = f"""
SOURCE ANY
{KEY}
{HMAC_KEY}
OPEN_PORTS tcp/4444
CMD_CYCLE_OPEN /usr/bin/true
CMD_CYCLE_CLOSE /usr/bin/true
CMD_CYCLE_TIMER {SECONDS}
"""


def open_by_command(trial: Trial) -> None:
    """Have a knock open something that only doorward-exec closes."""
    script = f"cat >> /etc/doorward/access.conf <<'end'\n{CYCLE}end\n"
    units = "doorward-exec.socket doorward-exec.service doorwardd.service"
    trial.console("sh", "-c", f"{script}doorwardd check && systemctl restart {units}")
    file = STATE / "cycle.rc"
    file.touch(mode=0o600)
    file.write_text(f"[default]\n{KEY}\n{HMAC_KEY}\n".replace(":", ""), encoding="utf-8")
    run(
        sys.executable,
        "-m",
        "doorward",
        "knock",
        "--rc-file",
        str(file),
        "-A",
        "tcp/4444",
        "-s",
        "-D",
        trial.host.address.ipv4,
    )


def cycles(trial: Trial) -> list[object]:
    shown: list[object] = hosts.status(trial.host)["cycles"]
    return shown


@pytest.mark.parametrize("trial", [1], ids=["debian-13"], indirect=True)
def test_doorward_is_taken_off_as_soon_as_nothing_is_open_that_only_it_would_close(
    trial: Trial, controller: Controller
) -> None:
    open_by_command(trial)
    deadline = time.monotonic() + SECONDS
    while not cycles(trial):
        assert time.monotonic() < deadline, "the knock has opened nothing"
    refused = controller.playbook("doorward.spa.uninstall", "--limit", trial.host.name)
    assert refused.code != 0
    assert "what is open in /var/lib/doorward-exec" in refused.output
    assert trial.console("systemctl", "is-active", "doorwardd.service").split() == ["active"]
    while cycles(trial):
        assert time.monotonic() < deadline + SECONDS, "what was opened is not closed"
        time.sleep(0.5)
    trial.wait_until_closed()
    assert not hosts.reachable(trial.host)
    assert trial.console("sysctl", "net.ipv4.ip_forward").split() == ["net.ipv4.ip_forward", "=", "1"]
    assert "+net.ipv4.ip_forward = 1" in differences(trial), "it would be seen"

    controller.playbook("doorward.spa.uninstall", "--limit", trial.host.name).check()
    assert hosts.reachable(trial.host)
    assert "doorward" not in trial.ruleset()
    unchanged(trial)
    again = controller.playbook("doorward.spa.uninstall", "--limit", trial.host.name).check()
    assert again.changed == 0
    unchanged(trial)
    assert "Left on this controller: its keys in" in again.output


def differences(trial: Trial) -> list[str]:
    """What is not as it was before the first roll-out."""
    now, before = snapshot(trial).splitlines(), BEFORE[trial.host.name].splitlines()
    assert len(before) > 1000, "it was looked at"
    return [line for line in difflib.unified_diff(before, now, lineterm="", n=0) if line[:1] in "+-"][2:]


def unchanged(trial: Trial) -> None:
    """Every line that differs is in the message."""
    found = differences(trial)
    assert not found, "\n".join(found)


def test_a_host_that_does_not_answer_keeps_no_other_from_being_opened_and_one_that_was_cut_off_is_open(
    trials: dict[str, Trial], controller: Controller
) -> None:
    asleep, other = trials["trial-13"], trials["trial-12"]
    assert not hosts.reachable(other.host)
    assert differences(other), "it would be seen"
    podman("pause", asleep.host.container)
    try:
        cut_off(controller, "TASK [Look for the units]")
        assert hosts.reachable(other.host), "it was opened first"
        played = controller.playbook("doorward.spa.uninstall")
    finally:
        podman("unpause", asleep.host.container)
    assert played.code != 0
    assert played.unreachable == {asleep.host.name}
    assert hosts.reachable(other.host)
    unchanged(other)


def cut_off(controller: Controller, line: str) -> None:
    """Remove doorward from all hosts, and kill Ansible once it says a line."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    with subprocess.Popen(
        (program, "--inventory", str(controller.inventory), "doorward.spa.uninstall"),
        env=controller.environment(),
        cwd="/",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        said = list(takewhile(lambda text: line not in text, running.stdout))
        os.killpg(running.pid, signal.SIGKILL)
    assert "TASK [Open the host]" in "".join(said)
