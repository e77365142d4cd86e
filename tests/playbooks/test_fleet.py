"""The playbooks of a fleet's life on hidden hosts: verify with an outsider, and revoke with a host that is away."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from lab import hosts, network
from lab.controller import AT_ONCE
from lab.demo import Session
from lab.plan import OUTSIDER, OUTSIDER_ADDRESS, STATE, Address
from lab.run import LabError, attempt, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.controller import Controller, Played
    from lab.trial import Trial

ACCESS = ("--tags", "doorward_access")
AWAY = "203.0.113.99"
# Several roll-outs, and whoever runs this file alone waits for the images to be built as well.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def both(trials: dict[str, Trial]) -> list[Trial]:
    return list(trials.values())


@dataclass(frozen=True, slots=True)
class Fleet:
    """A controller of both hosts alone: other tests' hosts share the lab's folders, and are none of this fleet."""

    controller: Controller
    folder: Path
    trials: list[Trial]

    def play(self, name: str, *options: str, more: Path | None = None, **variables: object) -> Played:
        """Run a playbook with connections of its own, for both hosts and those of one more inventory."""
        own = {"doorward_keys_dir": str(self.keys), "doorward_private_key_file": str(self.pair)}
        added = ("--inventory", str(more)) if more else ()
        limit = [trial.host.name for trial in self.trials] + (["outsider", "away"] if more else [])
        anew = replace(self.controller, home=self.controller.home / f"{time.monotonic_ns() % 10**6}")
        given = ("--extra-vars", json.dumps(own | variables))
        return anew.playbook(f"doorward.spa.{name}", *added, "--limit", ",".join(limit), *AT_ONCE, *given, *options)

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def pair(self) -> Path:
        return self.folder / "client.key"

    def revoked(self) -> list[dict[str, Any]]:
        """What this controller remembers."""
        listed: list[dict[str, Any]] = json.loads((self.keys / ".revoked.json").read_text("utf-8"))["revoked"]
        return listed


@pytest.fixture
def fleet(both: list[Trial], controller: Controller, tmp_path: Path) -> Iterator[Fleet]:
    """The fleet; at the end both hosts know again whom they knew before."""
    made = Fleet(controller, tmp_path, both)
    shutil.copy(STATE / "client.key", made.pair)
    keep = "cd /etc/doorward && cp -a access.conf access.redacted /var/tmp"
    for trial in both:
        shutil.copytree(STATE / "keys" / trial.host.name, made.keys / trial.host.name)
        trial.console("sh", "-c", keep)
        trial.close()
    yield made
    for trial in both:
        trial.console("sh", "-c", "mv -f /var/tmp/access.conf /var/tmp/access.redacted /etc/doorward")
        trial.console("systemctl", "restart", "doorwardd.service")


@pytest.fixture
def outsider(tmp_path: Path) -> Path:
    """An inventory with the lab's outsider, where commands run in its namespace, and with a host that is away."""
    shell = tmp_path / "sh"
    shell.write_text(f'#!/bin/sh\nexec ip netns exec {OUTSIDER} /bin/sh "$@"\n')
    shell.chmod(0o755)
    said: dict[str, Any] = {
        "outsider": {"ansible_connection": "local", "ansible_shell_executable": str(shell), "ansible_become": False},
        "away": {"ansible_host": AWAY, "ansible_timeout": 3},
    }
    (tmp_path / "more.json").write_text(json.dumps({"all": {"hosts": said}}))
    return tmp_path / "more.json"


def verify(fleet: Fleet, outsider: Path, hosts: str = "lab") -> tuple[Played, dict[str, Any]]:
    """Run verify, and return what it wrote as JSON, by host."""
    files = [str(fleet.folder / "report.json"), str(fleet.folder / "report.html")]
    played = fleet.play(
        "verify", more=outsider, doorward_outsider="outsider", doorward_report=files, doorward_hosts=hosts
    )
    said = json.loads((fleet.folder / "report.json").read_text(encoding="utf-8"))
    return played, {host["host"]: host for host in said["hosts"]}


def states(host: dict[str, Any]) -> dict[str, str]:
    return {each["topic"]: each["state"] for each in host["findings"]}


def test_verify_finds_hidden_hosts_well_and_names_the_one_that_is_open_and_the_one_that_is_away(
    fleet: Fleet, outsider: Path
) -> None:
    opened, other = fleet.trials
    played, found = verify(fleet, outsider)
    played.check()
    assert "all 2 hosts are well" in (fleet.folder / "report.html").read_text(encoding="utf-8")
    for name, host in found.items():
        seen = states(host)
        assert seen.pop("version") in {"ok", "note"}
        assert set(seen.values()) == {"ok"}, host
        assert {"dark", "knock", "open", "closed", "outsider", "forwarded", "keys", "clock"} <= set(seen)
        assert f"{name}: hidden, opens to a knock of controller, neighbour" in played.output
    assert all(trial.grants() == [] for trial in fleet.trials), "nothing is left open"

    opened.console("doorward", "open", f"tcp/{opened.host.ssh_port}", "--for", "10m")
    try:
        played, found = verify(fleet, outsider, "lab:away")
    finally:
        opened.close()
    assert played.code != 0
    assert "2 of 3 hosts are not well" in played.output
    assert {name: host["state"] for name, host in found.items()} == {
        opened.host.name: "not well",
        other.host.name: "well",
        "away": "not reached",
    }
    wrong = [topic for topic, state in states(found[opened.host.name]).items() if state == "wrong"]
    assert {"dark", "outsider", "daemon"} <= set(wrong), found[opened.host.name]
    assert f"{opened.host.name}: NOT WELL" in played.output
    shutil.copy(fleet.folder / "report.html", STATE / "report.html")


@dataclass(frozen=True, slots=True)
class Alice:
    """A person at the outsider's place, with a pair of her own."""

    folder: Path

    @property
    def pair(self) -> Path:
        return self.folder / "alice.key"

    @property
    def public_key(self) -> str:
        return self.pair.read_text(encoding="ascii").splitlines()[-1]

    def knocks(self, trial: Trial) -> None:
        """Knock at a host."""
        file = self.folder / "alice.rc"
        file.touch(mode=0o600)
        place = Address(OUTSIDER_ADDRESS).ipv4
        file.write_text(
            f"[default]\nSPA_SERVER {trial.host.address.ipv4}\nACCESS tcp/{trial.host.ssh_port}\nALLOW_IP {place}\n"
            f"HOST_KEY {trial.console('doorwardd', 'keys', 'show').strip()}\nCLIENT_KEY_FILE {self.pair}\n"
        )
        knock = (sys.executable, "-m", "doorward", "knock", "--rc-file", str(file), "--no-save-args")
        run(*network.outside(*knock))

    def gets_in(self, trial: Trial) -> bool:
        """Whether plain ssh of hers is let in."""
        return attempt(*network.outside(*hosts.ssh_command(trial.host), "true")).returncode == 0

    def session(self, trial: Trial) -> Session:
        """An SSH session of hers, through an open window."""
        return Session(trial.host, network.outside())


@pytest.fixture
def alice(tmp_path: Path) -> Alice:
    made = Alice(tmp_path)
    run(sys.executable, "-m", "doorward", "keys", "generate", "--public", "--comment", "a", "--output", str(made.pair))
    return made


def with_both(alice: Alice) -> list[dict[str, Any]]:
    """An inventory's clients, with alice and one more of fwknop's format."""
    return [
        {"name": "controller"},
        {"name": "neighbour", "format": "fwknop"},
        {"name": "alice", "public_key": alice.public_key, "window": 600},
        {"name": "build", "format": "fwknop"},
    ]


def clients(trial: Trial) -> set[str]:
    """The names in the host's access.conf."""
    script = ("-n", "-e", "s/^CLIENT .* //p", "-e", "s/^NAME  *//p")
    return set(trial.console("sed", *script, "/etc/doorward/access.conf").split())


def dies(session: Session) -> bool:
    try:
        session.check_alive()
    except LabError:
        return True
    return False


def said(played: Played) -> str:
    return " ".join(played.output.split())


def test_a_revoked_client_is_gone_at_once_and_a_host_that_is_away_is_named_until_it_is_seen_again(
    fleet: Fleet, alice: Alice, outsider: Path
) -> None:
    here, away = fleet.trials
    everybody = {"controller", "neighbour", "alice", "build"}
    profiles: dict[str, Any] = {"doorward_client_name": "alice", "doorward_client_dir": str(fleet.folder / "alice")}
    unknown = fleet.play("enrol", **profiles)
    assert unknown.code != 0
    assert "alice is no client of" in said(unknown)
    played = fleet.play("enrol", doorward_clients=with_both(alice), **profiles).check()
    for trial in fleet.trials:
        half = f"HOST_KEY {trial.console('doorwardd', 'keys', 'show').strip()}"
        assert f"{trial.host.name}: {half}" in said(played)
        assert half in (fleet.folder / f"alice/{trial.host.name}.fwknoprc").read_text(encoding="utf-8")
    assert [clients(trial) for trial in fleet.trials] == [everybody] * 2
    for trial in fleet.trials:
        trial.close()
    assert not alice.gets_in(here)
    alice.knocks(here)
    session = alice.session(here)
    alice.knocks(here)
    assert [grant.get("name") for grant in here.grants()] == ["alice"]
    away.console("systemctl", "stop", "doorwardd.service")

    # Her grant and her session end, her key opens nothing, and the host that is away is named.
    played = fleet.play(
        "revoke",
        "--timeout",
        "4",
        doorward_revoke="alice",
        doorward_revoke_sessions=True,
        doorward_revoke_key_file=str(alice.pair),
    )
    assert played.code != 0
    assert f"alice: NOT REVOKED on {away.host.name} (could not be reached)" in said(played), played.output[-3000:]
    assert "a knock with the old key of alice opens nothing, and a good one opens the host" in said(played)
    assert clients(here) == everybody - {"alice"}
    assert not [grant for grant in here.grants() if grant.get("name") == "alice"]
    assert dies(session)
    session.close()
    alice.knocks(here)
    assert not alice.gets_in(here)

    # The other one still lets her in, and verify says so; a plain roll-out takes her out, inventory or not.
    away.console("systemctl", "start", "doorwardd.service")
    alice.knocks(away)
    assert alice.gets_in(away)
    away.close()
    played, found = verify(fleet, outsider)
    assert played.code != 0
    assert [found[trial.host.name]["state"] for trial in (here, away)] == ["well", "not well"], played.output[-3000:]
    assert f"{away.host.name}: NOT WELL: clients: still accepts alice, who is revoked" in played.output
    played = fleet.play("rollout", *ACCESS, doorward_clients=with_both(alice)).check()
    assert "alice is in doorward_clients with a key that was revoked" in said(played)
    assert [clients(trial) for trial in fleet.trials] == [everybody - {"alice"}] * 2
    alice.knocks(away)
    assert not alice.gets_in(away)
    assert fleet.revoked()[0]["waiting"] == []

    # A client with a symmetric key of each host: the controller has them, and shows that they open nothing.
    played = fleet.play("revoke", doorward_revoke="build").check()
    assert said(played).count("a knock with the old key of build opens nothing") == 2, played.output[-3000:]
    assert "build: revoked on every host" in said(played)
    assert [clients(trial) for trial in fleet.trials] == [{"controller", "neighbour"}] * 2


def keys_of(trial: Trial) -> list[str]:
    """The public keys in the host's access.conf, in their order."""
    return trial.console("sed", "-n", "s/^CLIENT *doorward1 \\([^ ]*\\).*/\\1/p", "/etc/doorward/access.conf").split()


def test_a_new_pair_of_the_controller_is_used_once_every_host_has_granted_it(fleet: Fleet) -> None:
    here, away = fleet.trials
    old, pair = keys_of(here), fleet.pair.read_bytes()
    assert keys_of(away) == old
    away.console("systemctl", "stop", "doorwardd.service")
    played = fleet.play("rotate_keys", "--timeout", "4")
    assert played.code != 0
    assert f"{away.host.name} (could not be reached)" in said(played), played.output[-3000:]
    assert fleet.pair.read_bytes() == pair, "the old one is in use"
    assert len(keys_of(here)) == 2, "both are accepted"
    assert keys_of(away) == old
    away.console("systemctl", "start", "doorwardd.service")

    played = fleet.play("rotate_keys").check()
    new = keys_of(here)
    assert new != old
    assert len(new) == 1
    assert keys_of(away) == new
    assert new[0] in fleet.pair.read_text()
    assert said(played).count("a knock with the old key of controller opens nothing") == 2, played.output[-3000:]
    assert fleet.pair.with_name("client.key.old").read_bytes() == pair
    assert not fleet.pair.with_name("client.key.new").exists()
    for again in (fleet.play("rollout", *ACCESS), fleet.play("upgrade")):
        assert not again.check().changed, again.output[-3000:]
