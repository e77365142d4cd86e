"""The rolled-out hosts, seen from the controller, from their consoles and by the outsider."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab import hosts, outsider
from lab.plan import HOSTS

if TYPE_CHECKING:
    from testinfra.host import Host

testinfra_hosts = ["ansible://all?force_ansible=True"]


@pytest.fixture
def place(host: Host) -> hosts.Host:
    return HOSTS[host.backend.get_hostname()]


def test_the_daemon_runs_and_starts_at_boot(host: Host) -> None:
    service = host.service("doorwardd")
    assert service.is_running
    assert service.is_enabled


def test_the_firewall_is_loaded_at_boot(host: Host) -> None:
    assert host.service("doorward-firewall").is_enabled


@pytest.mark.parametrize(
    ("name", "mode"),
    [("doorwardd.conf", 0o644), ("access.conf", 0o600), ("host.key", 0o600), ("firewall.nft", 0o600)],
)
def test_only_root_changes_what_decides_and_only_root_reads_the_keys(host: Host, name: str, mode: int) -> None:
    file = host.file(f"/etc/doorward/{name}")
    assert (file.user, file.group, oct(file.mode)) == ("root", "root", oct(mode))


def test_the_daemon_says_what_holds(host: Host) -> None:
    status = json.loads(host.check_output("doorward status --json"))  # it ends with 0: closed and well
    assert (status["well"], status["causes"]) == (True, [])
    assert status["running"] is True
    assert status["table"] == "drop"
    assert status["pending"] is False
    assert status["grants"], "this very command came through a window"


def test_nothing_listens_but_sshd_and_the_socket_for_knocks(host: Host, place: hosts.Host) -> None:
    listening = [line.split() for line in host.check_output("ss -H -l -n -t -u").splitlines()]
    ports = {(line[0], line[4].rsplit(":", 1)[1]) for line in listening if "127.0.0.1" not in line[4]}
    assert ports == {("tcp", str(place.ssh_port)), ("udp", "62201")}


def test_the_controller_gets_in_only_by_knocking(host: Host, place: hosts.Host) -> None:
    assert host.check_output("hostname") == place.name
    hosts.wait_until_closed(place)
    assert not hosts.reachable(place)
    assert host.check_output("hostname") == place.name
    assert hosts.reachable(place), "while the window is open, plain ssh gets in too"


def test_the_outsider_gets_no_answer(place: hosts.Host) -> None:
    [view] = outsider.scan([place])
    assert view.answers == 0, str(view)


def test_no_key_is_in_the_journal_or_on_a_command_line(host: Host) -> None:
    keys = hosts.inside(HOSTS[host.backend.get_hostname()], "cat", "/etc/doorward/access.conf")
    keys += hosts.inside(HOSTS[host.backend.get_hostname()], "cat", "/etc/doorward/host.key")
    names = ("KEY_BASE64", "HMAC_KEY_BASE64", "doorward1-private")
    secrets = [line.split()[1].strip(";") for line in keys.splitlines() if line.startswith(names)]
    assert len(secrets) == len(names), "a stanza of fwknop's format, and the host's own pair"
    seen = hosts.inside(HOSTS[host.backend.get_hostname()], "sh", "-c", "journalctl --no-pager; ps -ef")
    assert "doorwardd" in seen
    assert not [secret for secret in secrets if secret in seen]
