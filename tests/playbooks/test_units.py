"""The units on a real host: their sandbox, their deaths, and what a host does whose firewall or daemon fails."""

from __future__ import annotations

import contextlib
import json
import os
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
from thirds import a_third

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.trial import Trial

HERE = Path(__file__).parent
ASIDE = "/var/tmp"  # noqa: S108  of a host of the lab, where nobody else is
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
WATCH = "doorward-watch.service"
PATIENT = "/run/systemd/system/doorward-watch.service.d"
PATIENCE = 10
"""Seconds after which the failure policy acts here; a host of its own waits for SHIPPED."""
SHIPPED = 30
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
    assert exposure(host, "doorward-helper.service") <= 1.6
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
# A client of fwknop's format keeps a UDP server away there, whose gate would have the tags.
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


# ---- the UDP server on the socket of systemd -------------------------------------------------------------------------

ACCESS = "/etc/doorward/access.conf"
SOCKET = "doorward-udp.socket"
OTHER_PORT = "/run/systemd/system/doorward-udp.socket.d"


@pytest.fixture
def served(host: Trial) -> Iterator[Trial]:
    """The host without its client of fwknop's format, so that nothing is in the way of a server."""
    without = 'BEGIN { RS = ""; ORS = "\\n\\n" } !/NAME +neighbour/'
    shell(host, f"cp -p {ACCESS} {ASIDE}/access.conf; awk '{without}' {ASIDE}/access.conf > {ACCESS}")
    try:
        host.console("systemctl", "restart", "doorwardd.service")
        yield host
    finally:
        shell(host, f"mv {ASIDE}/access.conf {ACCESS}; rm -rf {OTHER_PORT}; systemctl daemon-reload")
        shell(host, f"systemctl stop {SOCKET}; systemctl restart doorwardd.service")


def heard(trial: Trial) -> str:
    return str(hosts.status(trial.host)["heard"])


def knock_with_a_key_pair(trial: Trial) -> None:
    """Send one knock of the controller's own."""
    file, public = STATE / "knock-pair.rc", trial.console("doorwardd", "keys", "show").strip()
    file.touch(mode=0o600)
    file.write_text(f"[default]\nHOST_KEY {public}\nCLIENT_KEY_FILE {STATE / 'client.key'}\n", encoding="utf-8")
    place = ("-A", f"tcp/{trial.host.ssh_port}", "-D", trial.host.address.ipv4)
    run(sys.executable, "-m", "doorward", "knock", "--rc-file", str(file), *place)


def states(trial: Trial) -> list[str]:
    """Of listener, helper and the socket of the UDP server."""
    return shell(trial, f"systemctl is-active doorwardd.service doorward-helper.service {SOCKET} || :").split()


def test_a_host_whose_clients_all_have_key_pairs_serves_and_its_units_score_as_before(served: Trial) -> None:
    assert eventually(lambda: "udp 62201 (server)" in heard(served)), heard(served)
    knock_with_a_key_pair(served)
    assert eventually(lambda: answers(served))
    assert exposure(served, "doorwardd.service") <= 0.2
    assert exposure(served, "doorward-helper.service") <= 1.6
    assert "AF_INET" not in served.console("systemctl", "show", "-PRestrictAddressFamilies", "doorward-helper.service")


@pytest.mark.parametrize("unit", ["doorwardd.service", "doorward-helper.service"])
def test_the_port_stays_bound_while_the_daemon_is_started_again_and_a_knock_of_that_time_opens(
    served: Trial, unit: str
) -> None:
    assert eventually(lambda: "(server)" in heard(served))
    sockets = "ss -Hlnue 'sport = :62201' | grep -o 'ino:[0-9]*'"
    before = shell(served, sockets)
    assert len(before.split()) == 2
    pid, granted = main_pid(served, unit), served.granted()
    shell(served, f"kill -9 {pid}")
    knock_with_a_key_pair(served)
    assert eventually(lambda: served.granted() > granted, 30)
    assert shell(served, sockets) == before


def test_packets_start_no_daemon_that_was_stopped(served: Trial) -> None:
    assert eventually(lambda: "(server)" in heard(served))
    assert states(served) == ["active"] * 3
    served.console("systemctl", "stop", "doorwardd.service")
    knock_with_a_key_pair(served)
    assert not eventually(lambda: answers(served), LOOKING)
    assert states(served) == ["inactive"] * 3
    served.console("systemctl", "start", "doorwardd.service")
    knock_with_a_key_pair(served)
    assert eventually(lambda: answers(served))


def test_a_socket_unit_for_another_port_deafens_nobody(served: Trial) -> None:
    places = "ListenDatagram=\\nListenDatagram=0.0.0.0:5000\\nListenDatagram=[::]:5000\\n"
    shell(served, f"mkdir -p {OTHER_PORT}; printf '[Socket]\\n{places}' > {OTHER_PORT}/port.conf")
    shell(served, f"systemctl daemon-reload; systemctl stop {SOCKET}; systemctl restart doorwardd.service")
    assert eventually(lambda: "udp 62201 (passive)" in heard(served))
    assert f"{SOCKET} is for UDP port 5000, not 62201" in heard(served)
    said = shell(served, "doorwardd check 2>&1")
    assert f"the UDP server's port is 62201, and {SOCKET} is for 5000" in said
    knock_with_a_key_pair(served)
    assert eventually(lambda: answers(served))


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
    shell(host, f"mv {FIREWALL} {FIREWALL}.confirmed /var/tmp; doorward firewall stop")
    try:
        assert answers(host), "it is open, as before its first roll-out"
        host.console("doorward", "firewall", "apply", f"{ASIDE}/firewall.nft", "--deadline", "5m")
        assert not answers(host)
        assert status(host)["pending"] is True
        hosts.restart(host.host)
        assert eventually(lambda: answers(host))
        assert status(host)["pending"] is False
        assert shell(host, f"ls {FIREWALL} 2>/dev/null || :") == ""
    finally:
        shell(
            host,
            "cd /var/tmp; mv firewall.nft firewall.nft.confirmed /etc/doorward; systemctl restart doorward-firewall",
        )
    assert eventually(lambda: serving(host))
    assert let_in_after_a_knock(host)


# ---- the dead man's switch, kept by systemd --------------------------------------------------------------------------


@pytest.fixture
def other_table(host: Trial) -> Iterator[Trial]:
    """The host without its table, and a file /var/tmp/other.nft with the same one; put right at the end."""
    shell(host, f"cp {FIREWALL} /var/tmp/other.nft; systemctl stop doorwardd; nft delete table inet doorward")
    try:
        assert answers(host)
        yield host
    finally:
        shell(host, "doorward firewall rollback; systemctl restart doorward-firewall doorwardd")
        assert eventually(lambda: serving(host))


def apply(trial: Trial, seconds: int) -> str:
    """Close the host for so long, and return the token that would keep it closed."""
    applied = trial.console(
        "doorward", "firewall", "apply", f"{ASIDE}/other.nft", "--deadline", f"{seconds}s", "--json"
    )
    assert not answers(trial)
    return str(json.loads(applied)["token"])


def test_the_deadline_is_a_moment_that_no_reload_of_systemd_moves(other_table: Trial) -> None:
    trial = other_table
    before, began = cursor(trial), time.monotonic()
    apply(trial, 12)
    while not answers(trial):
        trial.console("systemctl", "daemon-reload")
        assert time.monotonic() < began + 60, "it is put off by each reload"
        time.sleep(1)
    assert time.monotonic() >= began + 10, "not before its moment"
    assert status(trial)["pending"] is False
    assert "ignoring" not in said(trial, before), "systemd reads its file of the service again as it wrote it"


def test_a_rollback_whose_keeper_is_killed_and_that_fails_is_tried_until_it_holds_and_says_what_is_true(
    other_table: Trial,
) -> None:
    trial = other_table
    began = cursor(trial)
    apply(trial, 5)
    trial.console("systemctl", "kill", "--signal=KILL", "doorward-fw-rollback.service")
    shell(trial, "mount --bind /dev/null /usr/sbin/nft")
    try:
        assert eventually(lambda: "CANNOT BE RESTORED" in said(trial, began), 30)
        assert "IS OPEN" not in said(trial, began)
        assert not answers(trial)
    finally:
        shell(trial, "umount /usr/sbin/nft")
    assert eventually(lambda: answers(trial), 30)
    assert status(trial)["pending"] is False


def test_who_ends_the_dead_mans_switch_gets_the_table_from_before(other_table: Trial) -> None:
    apply(other_table, 3600)
    other_table.console("systemctl", "stop", "doorward-fw-rollback.service")
    assert answers(other_table)
    assert status(other_table)["pending"] is False


def said(trial: Trial, began: str) -> str:
    """What the rollback has said since a cursor."""
    return trial.console("journalctl", f"--after-cursor={began}", "--unit=doorward-fw-rollback", "--output=cat")


def test_a_run_waits_for_the_rollback_of_the_one_before_and_does_not_put_it_off(host: Trial) -> None:
    shell(host, f"sed '/^table inet doorward {{/a set another {{ type ipv4_addr; }}' {FIREWALL} > /var/tmp/other.nft")
    shell(host, "doorward firewall apply /var/tmp/other.nft --deadline 45s")
    began = time.monotonic()
    refused = shell(host, "doorward firewall apply /var/tmp/other.nft --deadline 1h 2>&1 || :")
    assert re.search(r"is pending for \d+ s more", refused), refused
    played = Controller(inventory=HERE / "inventory").playbook(str(HERE / "apply.yml"), "--limit", host.host.name)
    assert "takes an earlier change back in" in played.check().output
    assert time.monotonic() < began + 600, "the second apply would have put it off for an hour"
    assert "another" not in in_force(host)
    assert status(host)["pending"] is False
    host.close()
    assert let_in_after_a_knock(host)


# ---- the failure policy open_ssh -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened_at_failure(trials: dict[str, Trial]) -> Iterator[Trial]:
    """The host with the failure policy open_ssh, to the end of this file."""
    controller, trial = Controller(inventory=HERE / "inventory"), trials["trial-12"]
    rollout = ("doorward.spa.rollout", "--limit", trial.host.name, "--extra-vars")
    controller.playbook(*rollout, "doorward_failure_policy=open_ssh").check()
    shell(trial, f"mkdir -p {PATIENT}; printf '[Service]\\nEnvironment=PATIENCE={PATIENCE}\\n' > {PATIENT}/fast.conf")
    shell(trial, "systemctl daemon-reload; systemctl restart doorward-watch.service")
    yield trial
    shell(trial, f"rm -r {PATIENT}; systemctl daemon-reload; systemctl restart doorward-watch.service")
    controller.playbook(*rollout, "doorward_failure_policy=closed").check()


@pytest.fixture
def opening(opened_at_failure: Trial, host: Trial) -> Trial:
    """The same with no window open."""
    del opened_at_failure
    return host


RESTART = "systemctl restart --no-block doorward-helper.socket doorwardd.service"
STORE = "/var/lib/doorward"
SMALL = f"systemctl stop doorwardd; mount -t tmpfs -o size=256k,mode=0700 none {STORE}; chown doorward: {STORE}"
FILLED = f"dd if=/dev/zero of={STORE}/rest bs=4k 2>/dev/null || :"
FAILURES = {
    "the archive is broken": (
        f"mv {ARCHIVE} /var/tmp/good.pyz; echo broken > {ARCHIVE}; {RESTART}",
        f"mv /var/tmp/good.pyz {ARCHIVE}",
    ),
    "doorward's user is gone": (
        f"cp -p /etc/passwd /etc/shadow /var/tmp; sed -i /^doorward:/d /etc/passwd /etc/shadow; {RESTART}",
        f"cp -p /var/tmp/passwd /var/tmp/shadow /etc; {RESTART}",
    ),
    "the daemon is disabled and stopped": (
        "systemctl disable --now doorwardd.service",
        "systemctl enable --now doorwardd.service",
    ),
    "/run/doorward is removed": ("rm -r /run/doorward; systemctl restart --no-block doorwardd.service", RESTART),
    "the disk is full at the start": (
        f"{SMALL}; {FILLED}; {RESTART}",
        f"systemctl stop doorwardd; umount {STORE}; {RESTART}",
    ),
    "the disk is read-only at the start": (
        f"{SMALL}; mount -o remount,ro {STORE}; {RESTART}",
        f"systemctl stop doorwardd; umount {STORE}; {RESTART}",
    ),
}


@pytest.mark.parametrize("failure", a_third(FAILURES))
def test_with_the_policy_open_ssh_the_host_opens_whatever_fails_until_it_is_mended(
    opening: Trial, failure: str
) -> None:
    breaks, mends = FAILURES[failure]
    assert not answers(opening)
    began = cursor(opening)
    shell(opening, breaks)
    try:
        assert eventually(lambda: answers(opening), 60)
        lines = loud_lines(opening, WATCH, began).splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("NOBODY ANSWERS KNOCKS (doorwardd is ")
        assert lines[0].endswith(f"tcp/{opening.host.ssh_port} IS OPEN TO EVERYBODY")
    finally:
        shell(opening, mends)
    assert eventually(lambda: serving(opening) and not opening.grants(), 60)
    again = f"doorwardd answers knocks again, and tcp/{opening.host.ssh_port} is closed again"
    assert eventually(lambda: loud_lines(opening, WATCH, began).splitlines()[1:] == [again])
    assert let_in_after_a_knock(opening)


def test_a_running_daemon_that_cannot_remember_what_it_grants_makes_the_policy_act(opening: Trial) -> None:
    shell(opening, f"{SMALL}; {RESTART}")
    try:
        assert eventually(lambda: serving(opening))
        knock(opening)
        assert eventually(lambda: answers(opening))
        opening.close()
        shell(opening, FILLED)
        assert eventually(lambda: refused_for_want_of_room(opening), 30)
        assert eventually(lambda: answers(opening), 60)
        assert serving(opening)
        shell(opening, f"rm {STORE}/rest")
        assert eventually(lambda: not opening.grants(), 60)
        assert not answers(opening)
    finally:
        shell(opening, f"systemctl stop doorwardd; umount {STORE}; {RESTART}")
    assert eventually(lambda: serving(opening))


def refused_for_want_of_room(trial: Trial) -> bool:
    """Knock, and say whether a knock of late was refused because it cannot be remembered."""
    knock(trial)
    return "reason=store" in trial.console("journalctl", "-n20", "--unit=doorwardd", "--output=cat")


def test_restarts_short_stops_and_strangers_packets_open_nothing(opening: Trial) -> None:
    began = cursor(opening)
    place = (opening.host.address.ipv4, 62201)
    # As it is shipped: three restarts and a stop in a row take a slow machine longer than PATIENCE.
    shell(opening, f"printf '[Service]\\nEnvironment=PATIENCE={SHIPPED}\\n' > {PATIENT}/shipped.conf")
    shell(opening, "systemctl daemon-reload; systemctl restart doorward-watch.service")
    try:
        strangers_and_restarts(opening, place)
    finally:
        shell(opening, f"rm {PATIENT}/shipped.conf; systemctl daemon-reload; systemctl restart doorward-watch.service")
    assert loud_lines(opening, WATCH, began) == ""


def strangers_and_restarts(opening: Trial, place: tuple[str, int]) -> None:
    with polled(opening) as seen, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(3):
            shell(opening, "systemctl restart doorwardd.service")
            for length in (0, 16, 164, 300, 1400):
                stranger.sendto(os.urandom(length), place)
            time.sleep(1)
        shell(opening, "systemctl stop doorwardd.service; sleep 2; systemctl start doorwardd.service")
        end = time.monotonic() + SHIPPED + 4
        while time.monotonic() < end:
            stranger.sendto(os.urandom(164), place)
            time.sleep(0.001)
    assert len(seen) > 100
    assert True not in seen


def test_what_was_opened_by_hand_is_not_the_policys_to_close(opening: Trial) -> None:
    began = cursor(opening)
    shell(opening, "doorward-first-aid open 1h; systemctl stop doorwardd.service")
    assert eventually(lambda: "IS OPEN TO EVERYBODY" in loud_lines(opening, WATCH, began), 60)
    shell(opening, "systemctl start doorwardd.service")
    assert eventually(lambda: "answers knocks again" in loud_lines(opening, WATCH, began), 60)
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
