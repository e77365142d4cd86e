"""The units on a real host: their sandbox, their deaths, and what a host does whose firewall or daemon fails."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.controller import Controller
from lab.plan import CONTROLLER, STATE, Address
from lab.run import run
from system.test_privsep import REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.trial import Trial

HERE = Path(__file__).parent
TAKEN_OVER = HERE.parent / "system/taken_over.py"
FIREWALL = "/etc/doorward/firewall.nft"
ARCHIVE = "/usr/lib/doorward/doorward.pyz"
LIBRARY = "/usr/lib/doorward/taken_over.py"
DROP_IN = "/run/systemd/system/doorwardd.service.d/taken_over.conf"
INTRUDER = f"""[Service]
Environment=TAKEN_OVER_STANZA=%s
ExecStart=
ExecStart=/usr/bin/python3 -I -c 'import runpy, sys; sys.path.insert(0, "{ARCHIVE}"); \
sys.argv = ["taken_over", "--listener"]; runpy.run_path("{LIBRARY}", run_name="__main__")'
Restart=no
"""
LOOKING = 2.0
"""Seconds for which an answer that must not come is looked for; where it must come, it comes within a tenth of them."""
LOUD = 3
"""The priority err, as the journal counts."""
PROBE = 0.5
"""Seconds in which an open port of the lab surely answers."""


@pytest.fixture
def host(trials: dict[str, Trial]) -> Trial:
    """The Debian 12 host, rolled out, with no window open."""
    trial = trials["trial-12"]
    trial.close()
    return trial


def shell(trial: Trial, script: str) -> str:
    return trial.console("sh", "-c", script)


def answers(trial: Trial) -> bool:
    """Whether sshd says its name to one who asks from the controller now."""
    place = (trial.host.address.ipv4, trial.host.ssh_port)
    with contextlib.suppress(OSError), socket.create_connection(place, timeout=PROBE) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def knock(trial: Trial, source: str | None = None) -> None:
    """Send one knock, for the controller's own address or for another."""
    key = STATE / "keys" / trial.host.name / "neighbour.key"
    file = STATE / "knock.rc"
    file.touch(mode=0o600)
    file.write_text(f"[default]\n{key.read_text(encoding='utf-8')}\n", encoding="utf-8")
    what = ("-A", f"tcp/{trial.host.ssh_port}", "-D", trial.host.address.ipv4, *(("-a", source) if source else ()))
    run(sys.executable, "-m", "doorward", "knock", "--rc-file", str(file), *what)


def sources(trial: Trial) -> set[object]:
    return {grant["source"] for grant in trial.grants()}


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether something comes to hold; it is looked at once more when the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def let_in_after_a_knock(trial: Trial) -> bool:
    """Whether a knock opens what does not answer without one."""
    assert not answers(trial), "it answers without a knock"
    knock(trial)
    return eventually(lambda: answers(trial))


def main_pid(trial: Trial, unit: str) -> int:
    return int(trial.console("systemctl", "show", "--property=MainPID", "--value", unit))


def serving(trial: Trial) -> bool:
    states = shell(trial, "systemctl is-active doorwardd.service doorward-helper.service || :").split()
    return states == ["active", "active"]


def loud_lines(trial: Trial, unit: str, cursor: str) -> str:
    """What a unit has said since the cursor, at priority err or louder."""
    # Sifted here: with a filter of its own, systemd 252's journalctl loses the first entry after a cursor.
    entries = map(json.loads, trial.console("journalctl", f"--after-cursor={cursor}", "--output=json").splitlines())
    loud = (one for one in entries if one.get("_SYSTEMD_UNIT") == unit and int(one["PRIORITY"]) <= LOUD)
    return "\n".join(str(one["MESSAGE"]) for one in loud)


def cursor(trial: Trial) -> str:
    shown = trial.console("journalctl", "--lines=1", "--output=json")
    return str(json.loads(shown)["__CURSOR"])


# ---- sandbox ---------------------------------------------------------------------------------------------------------


def exposure(trial: Trial, unit: str) -> float:
    shown = trial.console("systemd-analyze", "security", "--no-pager", unit)
    found = re.search(rf"Overall exposure level for {re.escape(unit)}: ([0-9.]+)", shown)
    assert found, shown[-300:]
    return float(found[1])


def test_the_units_score_as_they_should_and_a_bare_one_is_seen_to_score_badly(host: Trial) -> None:
    assert exposure(host, "ssh.service") > 9
    assert exposure(host, "doorwardd.service") <= 0.5
    assert exposure(host, "doorward-helper.service") <= 2.1
    assert exposure(host, "doorward-exec.service") <= 2.9  # installed, and enabled only where a stanza needs it


@pytest.fixture(scope="module")
def outcomes(trials: dict[str, Trial]) -> dict[str, str]:
    """What an intruder achieves as the listener within the real unit."""
    trial = trials["trial-12"]
    began = cursor(trial)
    name = shell(trial, "sed -n 's/^NAME *//p' /etc/doorward/access.conf").split()[0]
    hosts.inside(trial.host, "sh", "-c", f"cat > {LIBRARY}", stdin=TAKEN_OVER.read_text(encoding="utf-8"))
    hosts.inside(trial.host, "sh", "-c", "mkdir -p ${0%/*} && cat > $0", DROP_IN, stdin=INTRUDER % name)
    try:
        shell(trial, "systemctl daemon-reload; systemctl restart doorwardd.service || :")
        assert eventually(lambda: bool(_results(trial, began))), trial.console("journalctl", "-n50", "-udoorwardd")
        return _results(trial, began)
    finally:
        shell(trial, f"rm -f {DROP_IN} {LIBRARY}; systemctl daemon-reload; systemctl restart doorwardd.service")
        trial.close()


def _results(trial: Trial, began: str) -> dict[str, str]:
    said = trial.console("journalctl", "--unit=doorwardd", f"--after-cursor={began}", "--output=cat").splitlines()
    results: list[dict[str, str]] = [json.loads(line) for line in said if line.startswith("{")]
    return results[-1] if results else {}


# The unit's root file system is read-only, its window is short, and it may be asked for from anywhere.
# No UDP server is configured there, whose gate would have the tags.
ELSEWHERE = {
    "open for another network",
    *(attempt for attempt in REFUSED if "UDP server" in attempt or attempt.startswith("let ")),
}
IN_THE_UNIT = {attempt: said for attempt, said in REFUSED.items() if attempt not in ELSEWHERE}
IN_THE_UNIT["write outside its state"] = "OSError"


@pytest.mark.parametrize("attempt", IN_THE_UNIT)
def test_a_listener_that_was_taken_over_in_its_unit_cannot(outcomes: dict[str, str], attempt: str) -> None:
    assert outcomes[attempt] == IN_THE_UNIT[attempt]


def test_a_listener_that_was_taken_over_in_its_unit_can_still_do_its_work(outcomes: dict[str, str]) -> None:
    assert outcomes["open what a stanza allows"] == "done"


def test_after_the_intruder_the_daemon_serves_again(host: Trial) -> None:
    assert eventually(lambda: serving(host))
    assert let_in_after_a_knock(host)


# ---- deaths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["doorwardd.service", "doorward-helper.service"])
def test_after_a_kill_live_grants_are_there_and_a_knock_is_granted(host: Trial, unit: str) -> None:
    before = main_pid(host, unit)
    knock(host)
    # In one visit to its console: the window is short, and on a busy machine each visit takes a part of it.
    mine = Address(CONTROLLER).ipv4
    grants = "nft list set inet doorward open4"
    opens = f"for i in $(seq 100); do {grants} | grep -F {mine} && break; sleep 0.1; done"
    opened, killed = shell(host, f"{opens}; echo --; kill -9 {before}; {grants}").split("--")
    assert mine in opened
    assert mine in killed, "the grant outlives the kill"
    assert eventually(lambda: main_pid(host, unit) not in (0, before) and serving(host))
    knock(host, "203.0.113.9")
    assert eventually(lambda: "203.0.113.9" in sources(host))
    host.wait_until_closed()
    assert not answers(host), "the window closed in spite of the kill"


def test_a_stopped_daemon_leaves_the_host_closed(host: Trial) -> None:
    shell(host, "systemctl stop doorwardd.service")
    try:
        knock(host)
        assert not eventually(lambda: answers(host), LOOKING)
        assert "policy drop" in host.console("nft", "list", "table", "inet", "doorward")
    finally:
        shell(host, "systemctl start doorwardd.service")
    assert let_in_after_a_knock(host)


def test_after_a_restart_of_nftables_the_host_is_closed_again_at_once_and_it_is_noted_loudly(host: Trial) -> None:
    assert "inet doorward" in host.ruleset()
    began = cursor(host)
    knock(host, "203.0.113.10")
    assert eventually(lambda: "203.0.113.10" in sources(host))
    host.console("systemctl", "restart", "nftables.service")
    # Between a flush of the whole ruleset, which nobody can forbid, and our table's return the host is open.
    assert eventually(lambda: "hook input" in shell(host, "nft list table inet doorward 2>/dev/null || :"), 1.0)
    with polled(host) as seen:
        time.sleep(PROBE)
    assert len(seen) > 10
    assert True not in seen
    assert "203.0.113.10" in sources(host), "the live grant is back too"
    assert eventually(lambda: "OUR TABLE WAS REMOVED" in loud_lines(host, "doorward-helper.service", began))
    host.close()
    with polled(host) as seen:
        assert let_in_after_a_knock(host)
        time.sleep(PROBE)
    assert True in seen, "the poll would have seen an open port"


@contextlib.contextmanager
def polled(trial: Trial) -> Iterator[list[bool]]:
    """What sshd's port answered meanwhile, asked every 20 ms or so and each time anew."""
    seen: list[bool] = []
    over = threading.Event()

    def ask() -> None:
        seen.append(answers(trial))

    def poll() -> None:
        asked = []
        while not over.wait(0.02):
            asked.append(threading.Thread(target=ask))
            asked[-1].start()
        for one in asked:
            one.join()

    polling = threading.Thread(target=poll)
    polling.start()
    try:
        yield seen
    finally:
        over.set()
        polling.join()


# ---- failure policies ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def broken(trial: Trial, file: str, content: str) -> Iterator[None]:
    """Another content in place of a file's; put right at the end."""
    shell(trial, f"mv {file} {file}.good")
    try:
        hosts.inside(trial.host, "sh", "-c", f"cat > {file}", stdin=content)
        yield
    finally:
        shell(trial, f"mv {file}.good {file}")


def status(trial: Trial) -> dict[str, object]:
    return hosts.status(trial.host)


def in_force(trial: Trial) -> str:
    return trial.console("nft", "list", "table", "inet", "doorward")


@pytest.mark.parametrize("content", ["table inet doorward {\n nonsense\n", ""], ids=["damaged", "empty"])
def test_with_the_policy_closed_a_firewall_file_that_does_not_load_leaves_the_host_closed_and_knocks_work(
    host: Trial, content: str
) -> None:
    assert "failure_policy" not in in_force(host)
    with broken(host, FIREWALL, content):
        hosts.restart(host.host)
        assert "failure_policy" in in_force(host)
        assert not eventually(lambda: answers(host), LOOKING)
        assert "the failure policy closed is in force" in failure_line(host)
        assert started(host, "doorward-firewall-failed.service") < started(host, "network-pre.target")
        assert let_in_after_a_knock(host)
    shell(host, "systemctl restart doorward-firewall.service")
    assert "failure_policy" not in in_force(host)
    host.close()
    assert let_in_after_a_knock(host)


def started(trial: Trial, unit: str) -> int:
    """When a unit was last started, in microseconds since the machine was."""
    return int(trial.console("systemctl", "show", "--property=InactiveExitTimestampMonotonic", "--value", unit))


def failure_line(trial: Trial) -> str:
    """What was said loudly when the firewall file did not load at the last boot."""
    return trial.console("journalctl", "--boot", "--unit=doorward-firewall-failed", "--priority=err", "--output=cat")


def break_the_daemon(trial: Trial) -> None:
    shell(trial, "systemctl restart doorwardd.service || :")
    assert eventually(lambda: not serving(trial))


def test_with_the_policy_closed_a_broken_archive_opens_nothing(host: Trial) -> None:
    with broken(host, ARCHIVE, "broken"):
        break_the_daemon(host)
        assert not eventually(lambda: answers(host), LOOKING)
    assert eventually(lambda: serving(host))
    assert let_in_after_a_knock(host)


def test_a_confirmed_host_whose_firewall_file_is_lost_boots_into_its_failure_policy(host: Trial) -> None:
    shell(host, f"mv {FIREWALL} {FIREWALL}.good")
    try:
        hosts.restart(host.host)
        assert "failure_policy" in in_force(host)
        assert not eventually(lambda: answers(host), LOOKING)
        assert let_in_after_a_knock(host)
    finally:
        shell(host, f"mv {FIREWALL}.good {FIREWALL}; systemctl restart doorward-firewall.service")
    assert "failure_policy" not in in_force(host)


# ---- a roll-out that the host does not live to see the end of --------------------------------------------------------


def test_a_reboot_before_the_confirmation_brings_the_open_host_back(host: Trial) -> None:
    shell(host, f"mv {FIREWALL} {FIREWALL}.confirmed /root; doorward firewall stop")
    try:
        assert answers(host), "it is open, as before its first roll-out"
        host.console("doorward", "firewall", "apply", "/root/firewall.nft", "--deadline", "5m")
        assert not answers(host)
        assert status(host)["pending"] is True
        hosts.restart(host.host)
        assert eventually(lambda: answers(host))
        assert status(host)["pending"] is False
        assert shell(host, f"ls {FIREWALL} 2>/dev/null || :") == ""
    finally:
        shell(
            host, "cd /root; mv firewall.nft firewall.nft.confirmed /etc/doorward; systemctl restart doorward-firewall"
        )
    assert eventually(lambda: serving(host))
    assert let_in_after_a_knock(host)


# ---- the failure policy open_ssh -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened_at_failure(trials: dict[str, Trial]) -> Iterator[Trial]:
    """The host with the failure policy open_ssh, to the end of this file."""
    controller, trial = Controller(inventory=HERE / "inventory"), trials["trial-12"]
    rollout = ("doorward.spa.rollout", "--limit", trial.host.name, "--extra-vars")
    controller.playbook(*rollout, "doorward_failure_policy=open_ssh").check()
    yield trial
    controller.playbook(*rollout, "doorward_failure_policy=closed").check()


@pytest.fixture
def opening(opened_at_failure: Trial, host: Trial) -> Trial:
    """The same with no window open."""
    del opened_at_failure
    return host


def test_with_the_policy_open_ssh_a_broken_archive_opens_ssh_until_it_is_mended(opening: Trial) -> None:
    assert not answers(opening)
    began = cursor(opening)
    with broken(opening, ARCHIVE, "broken"):
        break_the_daemon(opening)
        assert eventually(lambda: answers(opening))
        assert eventually(lambda: "IS OPEN TO EVERYBODY" in loud_lines(opening, "doorwardd.service", began))
    assert eventually(lambda: serving(opening) and not opening.grants())
    assert not eventually(lambda: answers(opening), LOOKING)
    assert let_in_after_a_knock(opening)


def test_what_was_opened_by_hand_is_not_the_policys_to_close(opening: Trial) -> None:
    opening.console("doorward", "open", f"tcp/{opening.host.ssh_port}", "--for", "1h")
    shell(opening, f"kill -9 {main_pid(opening, 'doorwardd.service')}")
    assert eventually(lambda: serving(opening))
    [grant] = opening.grants()
    assert isinstance(grant["remaining"], float)
    assert grant["remaining"] > 3000
    opening.close()


def test_with_the_policy_open_ssh_a_firewall_file_that_does_not_load_opens_ssh_until_it_is_mended(
    opening: Trial,
) -> None:
    with broken(opening, FIREWALL, "nonsense\n"):
        hosts.restart(opening.host)
        assert eventually(lambda: answers(opening))
        assert "failure_policy" in in_force(opening)
        assert "the failure policy open_ssh is in force" in failure_line(opening)
    shell(opening, "systemctl restart doorward-firewall.service")
    assert not eventually(lambda: answers(opening), LOOKING)
    assert let_in_after_a_knock(opening)
