"""Taking doorward off a host: last, since the host is none of ours after it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.plan import STATE
from lab.run import run
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
LEFT = "ls -d /etc/doorward /run/doorward /usr/lib/doorward /var/lib/doorward* /etc/systemd/system/doorward* || :"


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


@pytest.mark.parametrize("trial", ["trial-13"], indirect=True)
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
    assert "/etc/doorward\n" in trial.console("sh", "-c", LEFT)

    controller.playbook("doorward.spa.uninstall", "--limit", trial.host.name).check()

    assert hosts.reachable(trial.host)
    assert trial.console("sh", "-c", LEFT) == ""
    assert "doorward" not in trial.ruleset()
    controller.playbook("doorward.spa.uninstall", "--limit", trial.host.name).check()
