"""Changes after which this controller would get in no more: the host takes them back, and nothing of them is kept.

Both hosts are hidden. Each run goes to both, each of which has a fault of its own, so that deadlines pass side by side.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import hosts
from lab.controller import AT_ONCE, Controller
from lab.plan import REPOSITORY
from thirds import a_third

if TYPE_CHECKING:
    from lab.controller import Played
    from lab.trial import Trial

DEADLINE = 22  # seconds
ROLLOUT = "doorward.spa.rollout"
STRANGER = "doorward1 AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA= stranger"
APART = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none"}
ACCESS = ("--tags", "doorward_access")
FILES = """
for path in /etc/doorward /usr/lib/doorward /usr/bin/doorward /usr/sbin/doorwardd /etc/systemd/system; do
    find "$path" \\( -type f -o -type l \\) ! -path '/etc/doorward/change/lock' ! -path '/etc/doorward/change/kept' \
        ! -path '/etc/doorward/change/rollback.sh' -exec stat -c '%n %a %U' {} + -exec sha256sum {} +
done | sort
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def both(trials: dict[str, Trial]) -> list[Trial]:
    return list(trials.values())


def files(trial: Trial) -> str:
    """Every file of ours and every unit of root's, with mode, owner and content."""
    return trial.console("sh", "-c", FILES)


def play(
    controller: Controller, folder: Path, faults: dict[str, dict[str, Any]], *options: str, deadline: int = DEADLINE
) -> Played:
    """A roll-out to the hosts named, each with the variables that are wrong for it."""
    given = {host: variables | {"doorward_change_deadline": deadline} for host, variables in faults.items()}
    more = folder / "faults.yml"
    more.write_text(json.dumps({"all": {"hosts": given}}))
    return controller.playbook(ROLLOUT, "--inventory", str(more), "--limit", ",".join(faults), *AT_ONCE, *options)


def get_in(controller: Controller, both: list[Trial]) -> None:
    """Fail where a knock with the old keys and settings does not open each host any more, or it answers without one."""
    for trial in both:
        trial.close()
        assert not hosts.reachable(trial.host), "the host answers without a knock"
    anew = replace(controller, home=controller.home / "n")
    anew.module("lab", "ansible.builtin.ping", "--limit", ",".join(trial.host.name for trial in both)).check()
    shutil.rmtree(anew.home, ignore_errors=True)


STRANGERS = {"doorward_clients": [{"name": "stranger", "public_key": STRANGER}]}
SWAPPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clients": (STRANGERS, {"doorward_sources": ["203.0.113.0/24"]}),
    "windows": (
        {"doorward_clients": [{"name": "controller", "expires": "01/01/2020"}]},
        {"doorward_clients": [{"name": "controller", "sources": ["203.0.113.0/24"]}]},
    ),
    "roads": ({"doorward_interfaces": ["lo"]}, {"doorward_port": 62299, "ansible_spa_port": 62201}),
}

# What the preflight refuses, with the beginning of its sentence; nothing is armed, so no deadline passes.
REFUSED: dict[str, tuple[tuple[dict[str, Any], str], tuple[dict[str, Any], str]]] = {
    "the host": (
        ({"doorward_interfaces": ["eth9"]}, "doorward_interfaces: the host has none of eth9, and has "),
        (
            {"doorward_clients": [{"name": "controller", "services": ["tcp/4444"]}]},
            "doorward_services: this controller's knock asks for tcp/",
        ),
    ),
    "the hidden host": (
        ({"doorward_firewall_mode": "observe"}, "doorward_firewall_mode: observe closes nothing, and the host is hid"),
        ({"doorward_python": "/usr/bin/python9"}, "doorward_python: /usr/bin/python9 does not run on the host: "),
    ),
    "values": (
        ({"doorward_public_services": ["tpc/443"]}, "doorward_public_services: 'tpc/443' is no service"),
        ({"doorward_fallback_source": ["192.0.2.1"]}, "doorward_fallback_source: no role reads a variable of this"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_preflight_refuses_changes_nothing_and_says_why(
    both: list[Trial], controller: Controller, tmp_path: Path, case: str
) -> None:
    before = [files(trial) for trial in both]
    names = [trial.host.name for trial in both]
    failed = play(controller, tmp_path, {name: said[0] for name, said in zip(names, REFUSED[case], strict=True)})
    assert {recap.host for recap in failed.hosts if recap.failed} == set(names), failed.output[-3000:]
    assert not failed.changed, failed.output[-3000:]
    assert not [sentence for _, sentence in REFUSED[case] if sentence not in failed.output], failed.output[-3000:]
    assert failed.output.count("Stage: preflight of the role daemon; nothing was changed.") >= len(names)
    assert [files(trial) for trial in both] == before
    get_in(controller, both)


@pytest.mark.parametrize("case", a_third(SWAPPED))
def test_a_change_that_lets_the_controller_in_no_more_is_taken_back(
    both: list[Trial], controller: Controller, tmp_path: Path, case: str
) -> None:
    before = [files(trial) for trial in both]
    names = [trial.host.name for trial in both]
    failed = play(
        controller, tmp_path, dict(zip(names, SWAPPED[case], strict=True)), *(ACCESS if case == "clients" else ())
    )
    assert {recap.host for recap in failed.hosts if recap.failed} == set(names), failed.output[-3000:]
    assert failed.output.count("was not kept") >= len(names), failed.output[-3000:]
    assert failed.output.count("has put all of its files back") >= len(names), failed.output[-3000:]
    assert [files(trial) for trial in both] == before
    get_in(controller, both)


@pytest.mark.whole
def test_without_a_shared_connection_the_grant_of_the_swap_itself_is_no_proof(
    both: list[Trial], controller: Controller, tmp_path: Path
) -> None:
    before = [files(trial) for trial in both]
    apart = replace(controller, settings=APART)
    names = [trial.host.name for trial in both]
    failed = play(apart, tmp_path, dict(zip(names, SWAPPED["clients"], strict=True)), *ACCESS)
    assert failed.output.count("was not kept") >= len(names), failed.output[-3000:]
    assert [files(trial) for trial in both] == before
    get_in(controller, both)


@pytest.mark.whole
def test_a_controller_that_shares_no_connection_keeps_its_changes(
    both: list[Trial], controller: Controller, tmp_path: Path
) -> None:
    """Each of its commands knocks, so that a grant of its own is open when the silence of the host is proven."""
    apart = replace(controller, settings=APART)
    forced = {trial.host.name: {"doorward_firewall_force": True} for trial in both}
    changed = play(apart, tmp_path, forced, "--tags", "doorward_firewall").check()
    assert all(recap.changed for recap in changed.hosts), changed.output[-3000:]
    get_in(controller, both)


def test_settings_that_doorwardd_does_not_take_change_nothing(
    both: list[Trial], controller: Controller, tmp_path: Path
) -> None:
    before = [files(trial) for trial in both]
    wrong = {"doorward_options": {"MAX_SPA_PACKET_AGE": "banana"}}
    failed = play(controller, tmp_path, {trial.host.name: wrong for trial in both}, "--tags", "doorward_install")
    assert all(recap.failed for recap in failed.hosts)
    assert "banana" in failed.output
    assert [files(trial) for trial in both] == before
    get_in(controller, both)


def test_an_archive_that_crashes_at_the_start_is_taken_back_at_once(
    both: list[Trial], controller: Controller, tmp_path: Path
) -> None:
    broken = tmp_path / "collections"
    shutil.copytree(REPOSITORY / "collections", broken, symlinks=True)
    archive = broken / "ansible_collections/doorward/spa/roles/daemon/files/doorward.pyz"
    sources = tmp_path / "daemon"
    shutil.copytree(REPOSITORY / "daemon", sources)
    loop = sources / "doorward/listener/loop.py"
    # Not where it is loaded: the role runs each archive before it is used.
    crash = 'def _crash(*_: object) -> None:\n    raise SystemExit("crashes at the start")\n\n\nListener.run = _crash\n'
    loop.write_text(f"{loop.read_text()}\n\n{crash}")
    build = [sys.executable, "-m", "doorward.archive", str(archive)]
    subprocess.run(build, check=True, env={**os.environ, "PYTHONPATH": str(sources)}, timeout=60)
    before = [files(trial) for trial in both]
    faults: dict[str, dict[str, Any]] = {trial.host.name: {} for trial in both}
    failed = play(replace(controller, collections=broken), tmp_path, faults, "--tags", "doorward_install")
    assert all(recap.failed for recap in failed.hosts)
    assert "doorwardd.service failed" in failed.output or "systemctl failed" in failed.output
    assert [files(trial) for trial in both] == before
    get_in(controller, both)


CRASHING = """
mkdir -p /run/systemd/system/doorwardd.service.d
printf '[Service]\\nExecStartPre=/bin/false\\n' >/run/systemd/system/doorwardd.service.d/crash.conf
systemctl daemon-reload
systemctl restart doorwardd.service || :
systemctl show --property=ActiveState --value doorwardd.service
"""
CHANGED = """
here=$(mktemp -d)
mkdir "$here/base" "$here/new"
cd /
for top in base new; do
    cp -a --parents usr/lib/doorward/doorward.pyz etc/doorward/doorwardd.conf "$here/$top"
    cp -a --parents etc/doorward/access.conf "$here/$top"
done
echo '# another line' >>"$here/new/etc/doorward/access.conf"
doorward change apply --deadline 60s "$here" 2>&1 && echo "It was made." || :
rm -r "$here"
"""
MENDED = """
rm -r /run/systemd/system/doorwardd.service.d
systemctl daemon-reload
systemctl restart doorwardd.service
"""


def test_where_the_daemon_crashes_over_and_over_a_rollback_ends_all_the_same(
    both: list[Trial], controller: Controller
) -> None:
    """A rollback that waited for it would go on for ever, and no change could be made that mends the host."""
    trial = both[0]
    before = files(trial)
    try:
        assert trial.console("sh", "-ec", CRASHING).split() == ["activating"]
        said = trial.console("sh", "-ec", CHANGED)
        assert "THE CHANGE WAS NOT CONFIRMED" in said, said
        assert "It was made." not in said
        left = trial.console("sh", "-c", "ls /etc/doorward/change").split()
        assert "rollback.sh" in left
        assert not {"pending", "rolling"} & set(left), "another change can be made"
    finally:
        trial.console("sh", "-ec", MENDED)
    assert files(trial) == before
    get_in(controller, both)


@pytest.mark.whole
def test_a_controller_that_dies_a_reboot_and_reloads_of_systemd_change_nothing(
    both: list[Trial], controller: Controller, tmp_path: Path
) -> None:
    """One host is booted before the deadline, the other reloads its units all the time."""
    before = [files(trial) for trial in both]
    given = {trial.host.name: STRANGERS | {"doorward_change_deadline": 60} for trial in both}
    more = tmp_path / "faults.yml"
    more.write_text(json.dumps({"all": {"hosts": given}}))
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory", str(controller.inventory)]
    words += ["--inventory", str(more), "--limit", ",".join(given), *AT_ONCE, *ACCESS, ROLLOUT]
    controller.home.mkdir(parents=True, exist_ok=True)
    quiet = subprocess.DEVNULL
    run = subprocess.Popen(
        words, env=controller.environment(), cwd="/", stdin=quiet, stdout=quiet, start_new_session=True
    )
    end = time.monotonic() + 120
    waits = "test -e /etc/doorward/change/pending && systemctl is-active --quiet doorward-change-wait && echo yes || :"
    while not all(trial.console("sh", "-c", waits).strip() for trial in both):
        assert time.monotonic() < end
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert [files(trial) for trial in both] != before
    booted, reloading = both
    hosts.restart(booted.host)
    assert files(booted) == before[0]
    stop = threading.Event()
    reloads = threading.Thread(target=_reload_until, args=(reloading, stop))
    reloads.start()
    try:
        end = time.monotonic() + 120
        while files(reloading) != before[1]:  # it hears no knock of this controller until then
            assert time.monotonic() < end, "the deadline never comes"
            time.sleep(1)
    finally:
        stop.set()
        reloads.join()
    played = controller.playbook(ROLLOUT, "--limit", ",".join(given), *AT_ONCE, *ACCESS).check()
    assert not played.changed, "the old files are those of the inventory"
    assert [files(trial) for trial in both] == before
    get_in(controller, both)


def _reload_until(trial: Trial, stop: threading.Event) -> None:
    while not stop.wait(1):
        trial.console("systemctl", "daemon-reload")
