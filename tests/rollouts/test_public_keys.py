"""Hidden hosts move from symmetric keys to public ones, and from one pre-shared key to another.

Interrupted, resumed, and then the old keys open nothing.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lab import hosts
from lab.controller import AT_ONCE
from lab.plan import CONTROLLER, REPOSITORY, STATE, Address
from lab.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from lab.controller import Controller
    from lab.trial import Trial

BOTH = ["doorward1", "fwknop"]
ACCESS = ("--tags", "doorward_access")  # what a roll-out does with keys
ROLE = "ansible_collections/doorward/spa/roles/daemon/tasks"
# Five roll-outs, and whoever runs this file alone waits for the images to be built as well.
pytestmark = pytest.mark.timeout(1500)


def interrupted(folder: Path, file: str, before: str) -> Path:
    """The collection with a role that ends before a task."""
    made = folder / before.replace(" ", "-")
    shutil.copytree(REPOSITORY / "collections", made, symlinks=True)
    tasks = made / ROLE / file
    text = tasks.read_text(encoding="utf-8")
    task = f"- name: {before}\n"
    assert text.count(task) == 1
    end = "- name: Be interrupted\n  ansible.builtin.fail:\n    msg: interrupted\n  when: not ansible_check_mode\n\n"
    tasks.write_text(text.replace(task, end + task), encoding="utf-8")
    return made


def stanzas(trial: Trial) -> list[str]:
    """Format and client of each stanza in the host's access.conf, in its order."""
    script = ("-e", "s/^CLIENT .* /doorward1:/p", "-e", "s/^NAME  *//p")
    words = trial.console("sed", "-n", *script, "/etc/doorward/access.conf").split()
    return [word if ":" in word else f"fwknop:{word}" for word in words]


def psks(trial: Trial) -> list[str]:
    """The pre-shared keys in the host's access.conf, in its order."""
    return trial.console("sed", "-n", "s/^PSK_BASE64  *//p", "/etc/doorward/access.conf").split()


def with_psks(present: str, previous: str = "") -> tuple[str, ...]:
    """The options of a run whose controller has these pre-shared keys."""
    told = {"doorward_psk": present, "doorward_previous_psk": previous}
    return ("-e", json.dumps(told), *AT_ONCE)


def knock(trial: Trial, rc_file: Path) -> str:
    """Knock with a client's file, and return the host's verdict."""
    before = verdicts(trial)
    send(trial, rc_file)
    found: list[str] = []
    for _look in range(50):
        found = verdicts(trial)[len(before) :]
        if found:
            break
    assert len(found) == 1, found
    return found[0]


def send(trial: Trial, rc_file: Path) -> None:
    """Knock with a client's file."""
    run(sys.executable, "-m", "doorward", "knock", "--rc-file", str(rc_file), "-n", trial.host.name, "--no-save-args")


def verdicts(trial: Trial) -> list[str]:
    """All that the daemon judged, in words of its log."""
    journal = trial.console("journalctl", "--unit=doorwardd", "--output=cat", "--no-pager")
    return [line for line in journal.splitlines() if line.startswith("verdict=")]


def client_file(folder: Path, trials: list[Trial], lines: dict[str, str]) -> Path:
    """A .fwknoprc with a section for each host."""
    file = folder / "fwknoprc"
    file.touch(mode=0o600)
    text = ""
    for trial in trials:
        address, port = trial.host.address.ipv4, trial.host.ssh_port
        text += f"[{trial.host.name}]\nSPA_SERVER {address}\nACCESS tcp/{port}\nALLOW_IP {Address(CONTROLLER).ipv4}\n"
        text += lines[trial.host.name]
    file.write_text(text, encoding="utf-8")
    return file


def secrets_of(trial: Trial, folders: tuple[Path, ...]) -> list[Path]:
    """The files of the controller that have the private half of a host; one with the public half is found as well."""
    private = trial.console("sed", "-n", "s/^doorward1-private //p", "/etc/doorward/host.key").strip()
    public = trial.console("doorwardd", "keys", "show").strip()
    assert len(private) == 44
    assert trial.console("stat", "-c", "%U %a", "/etc/doorward/host.key").strip() == "root 600"
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert any(public.encode() in file.read_bytes() for file in files), "a key would be found"
    return [file for file in files if private.encode() in file.read_bytes()]


@pytest.mark.whole
def test_hidden_hosts_move_to_public_keys_and_the_old_keys_open_nothing(
    trials: dict[str, Trial], controller: Controller, visit: str, tmp_path: Path
) -> None:
    moving = list(trials.values())
    inventory, own = STATE / "host_vars", STATE / "client.key"
    old_way, both, new_way = ([f"{one}:controller" for one in each] for each in (["fwknop"], BOTH, ["doorward1"]))

    def accepted() -> list[list[str]]:
        """What each host knows, without the client of fwknop that stays."""
        found = [stanzas(trial) for trial in moving]
        assert all(each.count("fwknop:neighbour") == 1 for each in found)
        return [[one for one in each if not one.endswith("neighbour")] for each in found]

    def comes_in(number: int) -> None:
        """Run a playbook over connections of its own, so that it knocks."""
        before = [trial.granted() for trial in moving]
        replace(controller, home=controller.home / f"v{number}").playbook(visit).check()
        assert [trial.granted() - earlier for trial, earlier in zip(moving, before, strict=True)] == [1, 1]

    # As a fleet was rolled out before there were public keys: the way back is the same.
    controller.playbook("doorward.spa.rollout", "-e", "doorward_format=fwknop", *AT_ONCE).check()
    assert accepted() == [old_way] * 2
    old = {trial.host.name: (STATE / f"keys/{trial.host.name}/controller.key").read_text("utf-8") for trial in moving}
    for trial in moving:
        trial.wait_until_closed()
    assert not any(hosts.reachable(trial.host) for trial in moving), "hidden all the time"

    # A controller whose connections do not use the new key ends with both accepted, and the inventory as it was.
    fixed = json.dumps({"ansible_spa_key": "{{ lookup('doorward.spa.key', inventory_hostname, client='controller') }}"})
    ended = controller.playbook("doorward.spa.rollout", "-e", fixed, *AT_ONCE, *ACCESS)
    assert " ".join(ended.output.split()).count("connections do not use it") >= 2, ended.output[-3000:]
    assert accepted() == [both] * 2
    assert not [trial for trial in moving if (inventory / trial.host.name).exists()]
    comes_in(1)

    # Once it is proven the inventory has the new way in, and the old one is still open.
    shown = replace(controller, collections=interrupted(tmp_path, "enrol.yml", "Drop the stanzas that leave"))
    assert shown.playbook("doorward.spa.rollout", *AT_ONCE, *ACCESS).output.count("interrupted") >= 2
    assert accepted() == [both] * 2
    comes_in(2)
    for trial in moving:
        assert " name=controller " in verdicts(trial)[-1]
        assert " user=" not in verdicts(trial)[-1], "packets of doorward 1 have no user"

    # With no interruption it ends, and there is nothing left to do.
    controller.playbook("doorward.spa.rollout", *AT_ONCE).check()
    assert accepted() == [new_way] * 2
    comes_in(3)
    again = controller.playbook("doorward.spa.rollout", *AT_ONCE).check()
    assert again.changed == 0, again.output[-3000:]

    # The old keys open nothing, in the same run in which the new ones do.
    for trial in moving:
        trial.close()
    rc_file = client_file(tmp_path, moving, {name: text.replace(": ", " ") for name, text in old.items()})
    for trial in moving:
        assert "verdict=denied" in knock(trial, rc_file)
        assert not hosts.reachable(trial.host)
    public = {trial.host.name: trial.console("doorwardd", "keys", "show").strip() for trial in moving}
    rc_file = client_file(
        tmp_path, moving, {name: f"HOST_KEY {line}\nCLIENT_KEY_FILE {own}\n" for name, line in public.items()}
    )
    for trial in moving:
        assert "verdict=granted" in knock(trial, rc_file)
        assert hosts.reachable(trial.host)

    # What a team reviews is the public half; the private one never left the host.
    for trial in moving:
        collected = (inventory / f"{trial.host.name}/doorward.yml").read_text(encoding="utf-8")
        assert f'doorward_host_key: "{public[trial.host.name]}"' in collected
        known = [STATE / folder / trial.host.name for folder in ("host_vars", "keys")]  # others have theirs beside
        assert secrets_of(trial, (*known, controller.home)) == []


@pytest.mark.whole
def test_a_pre_shared_key_changes_on_hidden_hosts_and_nobody_is_locked_out(
    trials: dict[str, Trial], controller: Controller, visit: str, tmp_path: Path
) -> None:
    moving, (one, two) = list(trials.values()), (base64.b64encode(letter * 32).decode() for letter in (b"1", b"2"))
    inventory, own = STATE / "host_vars", STATE / "client.key"

    def accepted() -> list[list[str]]:
        """Format, and pre-shared key if any, of all of the controller's stanzas on each host."""
        return [
            [*(each for each in stanzas(trial) if not each.endswith("neighbour")), *psks(trial)] for trial in moving
        ]

    def comes_in(number: int, *options: str) -> None:
        """Run a playbook over connections of its own, so that it knocks."""
        before = [trial.granted() for trial in moving]
        replace(controller, home=controller.home / f"p{number}").playbook(visit, *options).check()
        assert [trial.granted() - earlier for trial, earlier in zip(moving, before, strict=True)] == [1, 1]

    stanza = "doorward1:controller"
    assert accepted() == [[stanza]] * 2, "as they were rolled out"
    for trial in moving:
        trial.wait_until_closed()
    assert not any(hosts.reachable(trial.host) for trial in moving), "hidden all the time"

    # The first one: what is interrupted goes on, with a connection of the old kind until the inventory says otherwise.
    begun = replace(controller, collections=interrupted(tmp_path, "move.yml", "Ask what connections knock with now"))
    assert begun.playbook("doorward.spa.rollout", *with_psks(one)).output.count("interrupted") >= 2
    assert accepted() == [[stanza, stanza, one]] * 2
    comes_in(1, *with_psks(one))
    controller.playbook("doorward.spa.rollout", *with_psks(one)).check()
    assert accepted() == [[stanza, one]] * 2
    comes_in(2, *with_psks(one))

    # Without the old one nothing is begun: the connection says what is missing.
    lost = replace(controller, home=controller.home / "lost").playbook("doorward.spa.rollout", *with_psks(two))
    assert lost.code != 0
    assert "neither doorward_psk nor doorward_previous_psk" in " ".join(lost.output.split()), lost.output[-3000:]
    assert accepted() == [[stanza, one]] * 2

    # Where connections go on with the old one, it stays.
    line = {trial.host.name: trial.console("doorwardd", "keys", "show").strip() for trial in moving}
    fixed = f"HOST_KEY: {{{{ doorward_host_key }}}}\nCLIENT_KEY_FILE: {own}\nPSK_BASE64: {one}\n"
    options = (*with_psks(two, one), "-e", json.dumps({"ansible_spa_key": fixed}))
    ended = controller.playbook("doorward.spa.rollout", *options)
    assert " ".join(ended.output.split()).count("connections do not use it") >= 2, ended.output[-3000:]
    assert accepted() == [[stanza, stanza, two, one]] * 2
    comes_in(3, *with_psks(two, one))

    # Interrupted once it is proven: the inventory has the new one, and both are accepted.
    shown = replace(controller, collections=interrupted(tmp_path, "enrol.yml", "Drop the stanzas that leave"))
    assert shown.playbook("doorward.spa.rollout", *with_psks(two, one)).output.count("interrupted") >= 2
    assert accepted() == [[stanza, stanza, two, one]] * 2
    comes_in(4, *with_psks(two))
    controller.playbook("doorward.spa.rollout", *with_psks(two)).check()
    assert accepted() == [[stanza, two]] * 2

    # The old one opens nothing, in the same run in which the new one does; neither is in the inventory.
    for trial in moving:
        trial.close()
    for psk, opens in ((one, False), (two, True)):
        lines = {name: f"HOST_KEY {key}\nCLIENT_KEY_FILE {own}\nPSK_BASE64 {psk}\n" for name, key in line.items()}
        rc_file = client_file(tmp_path, moving, lines)
        for trial in moving:
            send(trial, rc_file)
            assert hosts.reachable(trial.host) == opens
    collected = [(inventory / f"{trial.host.name}/doorward.yml").read_text(encoding="utf-8") for trial in moving]
    assert all("doorward_known_psk:" in text and one not in text and two not in text for text in collected)

    # And back to none.
    controller.playbook("doorward.spa.rollout", *with_psks("", two)).check()
    assert accepted() == [[stanza]] * 2
    comes_in(5)
