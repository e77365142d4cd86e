from __future__ import annotations

import shlex
import subprocess

import pytest

from doorward.client import getopt
from doorward.client.mosh import words
from doorward.client.options import MOSH
from doorward.errors import ClientError


def test_mosh_gets_a_range_of_ports_and_an_ssh_that_knocks_for_them() -> None:
    said = getopt.parse(MOSH, ["-n", "100%", "alice@web1", "--", "tmux", "a b"])
    name, ssh, remote, *rest = words(said, ["doorward"])
    assert (name, remote) == ("mosh", "--experimental-remote-ip=remote")
    assert rest == ["-p", "60000:60010", "--", "alice@web1", "tmux", "a b"]
    ssh_words = shlex.split(ssh.removeprefix("--ssh="))
    shown = subprocess.run([*ssh_words, "-F", "none", "-G", "web1"], check=True, capture_output=True, text=True).stdout
    service = "--service tcp/%p,udp/60000-60010"
    assert f"proxycommand doorward connect -n 100%% --follow-ssh {service} -- '%h' '%p'\n" in shown


def test_one_port_is_a_range_too() -> None:
    assert "60001" in words(getopt.parse(MOSH, ["--ports", "udp/60001", "web1"]), ["doorward"])


@pytest.mark.parametrize("ports", ["tcp/60000-60010", "udp/60000,udp/60002"])
def test_what_mosh_does_not_take_is_told(ports: str) -> None:
    with pytest.raises(ClientError, match="one range of UDP ports"):
        words(getopt.parse(MOSH, ["--ports", ports, "web1"]), ["doorward"])


def test_a_jump_is_told_to_carry_no_udp() -> None:
    with pytest.raises(ClientError, match="no jump host carries"):
        words(getopt.parse(MOSH, ["-J", "gw", "web1"]), ["doorward"])


@pytest.mark.parametrize("host", ["-x", "a b", "$(x)", "a@b@-c", "'"])
def test_a_host_that_mosh_or_ssh_would_read_otherwise_is_refused(host: str) -> None:
    with pytest.raises(getopt.UsageError):
        getopt.parse(MOSH, ["--", host])
