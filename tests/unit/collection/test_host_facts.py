"""What a host says of itself: what keeps doorward from it is named, and what does not is not."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from unit.collection_plugins import COLLECTION, plugin

facts = plugin("plugin_utils._host_facts")

NOW = 1_800_000_000
GOOD = {
    "uid": "0",
    "time": str(NOW),
    "kernel": "6.1.0-18-amd64",
    "systemd": "yes",
    "id": "debian",
    "interface": ["lo", "eth0"],
    "python": "3.11",
    "max_error": "2000",
    "nft": "nftables v1.0.6 (Lester Gooch #5)",
    "listener": "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups",
    "port": "22",
    "sshd": ["22"],
    "end": "yes",
}
OTHER_PYTHON = "doorward_python: Python 3.10 or later is needed, and /usr/bin/python3 is 3.9: "
REFUSED: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "not root": ({"uid": "1000"}, {}, "become: tasks run as user number 1000, and root is needed: set become: true"),
    "no systemd": ({"systemd": []}, {}, "the host: systemd does not run it"),
    "an old kernel": ({"kernel": "4.18.0-553.el8"}, {}, "the host: its kernel 4.18.0-553.el8 is older than 5.6"),
    "an old nft": ({"nft": "nftables v0.9.3 (Topsy)"}, {}, "the host: nftables v0.9.3 (Topsy) is older than 0.9.4"),
    "a kernel without it": (
        {"refused": "Error: Could not process rule: No such file or directory"},
        {},
        "the host: its kernel and nft do not take a table of doorward's: Error: Could not process rule",
    ),
    "an old Python and no other": ({"python": "3.9"}, {}, f"{OTHER_PYTHON}install one, such as RHEL 9's python3.11"),
    "an old Python and another": (
        {"python": "3.9", "other": ["/usr/bin/python3.11", "/usr/bin/python3.12"]},
        {},
        f"{OTHER_PYTHON}set doorward_python: /usr/bin/python3.12, which the host has",
    ),
    "no Python": (
        {"python": [], "python_fails": "yes"},
        {"python": "/opt/python"},
        "doorward_python: /opt/python does not run on the host: install one",
    ),
    "few capabilities": (
        {"lacks": ["NET_ADMIN", "NET_RAW"], "refused": "Operation not permitted"},
        {},
        "the host: it lacks CAP_NET_ADMIN and CAP_NET_RAW: start its container with --cap-add=NET_ADMIN",
    ),
    "a clock that is behind": ({"time": str(NOW - 62)}, {}, "doorward_max_age: the host's clock is 61 s off"),
    "a clock that is ahead": ({"time": str(NOW + 62)}, {}, "doorward_max_age: the host's clock is 62 s off"),
    "a short age": ({"time": str(NOW + 8)}, {"max_age": 10}, "knocks that differ by 10 s are refused: set the clocks"),
    "a clock that nobody keeps": (
        {"max_error": "16000000"},
        {},
        "doorward_synchronised_clock: the host's clock is not synchronised",
    ),
    "an interface that is not there": (
        {},
        {"interfaces": ["eht0"]},
        "doorward_interfaces: the host has none of eht0, and has lo, eth0",
    ),
    "sshd that has moved": (
        {"sshd": ["2222", "2223"]},
        {},
        "ansible_port: sshd answers this connection at port 22, and sshd's configuration has 2222, 2223: restart it",
    ),
    "a socket that has another port": (
        {"socket": ["2222"], "listener": [], "sshd": ["22"]},
        {},
        "ansible_port: sshd answers this connection at port 22, and ssh.socket has 2222: restart it",
    ),
    "observe on a hidden host": (
        {"hidden": "yes"},
        {"mode": "observe"},
        "doorward_firewall_mode: observe closes nothing, and the host is hidden by /etc/doorward/firewall.nft",
    ),
}
TAKEN: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "a good host": ({}, {}),
    "a hidden host": ({"hidden": "yes"}, {"mode": "guard"}),
    "observe on a host that is not hidden": ({}, {"mode": "observe"}),
    "no nft yet": ({"nft": []}, {}),
    "a container's clock": ({"max_error": "16000000", "container": "yes"}, {}),
    "a clock that something else keeps": ({"max_error": "16000000"}, {"synchronised": False}),
    "a kernel that tells nothing of its clock": ({"max_error": []}, {}),
    "a clock that is nearly right": ({"time": str(NOW + 59)}, {}),
    "one interface of two": ({}, {"interfaces": ["eth0", "wg0"]}),
    "sshd whose arguments decide": ({"sshd": ["22"], "port": "2222", "listener": "sshd: sshd -p 2222 [listener]"}, {}),
    "sshd with a file of its own": ({"port": "2222", "listener": "sshd: /usr/sbin/sshd -f /x [listener]"}, {}),
    "a connection that is not ssh's": ({"port": []}, {}),
    "a socket that has the port": ({"socket": ["22", "22"], "sshd": ["2222"]}, {}),
}


def host(changes: dict[str, object]) -> object:
    said = GOOD | changes
    lines = [(name, each) for name, value in said.items() for each in (value if isinstance(value, list) else [value])]
    return facts.Host.of("noise\n" + "\n".join(f"{name}={value}" for name, value in lines))


def sentences(changes: dict[str, object], wanted: dict[str, object]) -> list[str]:
    found = facts.problems(host(changes), facts.Wanted(**wanted), NOW, NOW + 0.5)
    return [f"{one.variable}: {one.cause}" for one in found]


@pytest.mark.parametrize("case", REFUSED)
def test_what_keeps_doorward_from_a_host_is_one_sentence(case: str) -> None:
    changes, wanted, expected = REFUSED[case]
    (said,) = sentences(changes, wanted)
    assert expected in said


@pytest.mark.parametrize("case", TAKEN)
def test_what_keeps_it_from_nothing_is_none(case: str) -> None:
    assert sentences(*TAKEN[case]) == []


def test_other_firewalls_are_named_unless_grants_are_let_through_there() -> None:
    (said,) = facts.warnings(host({"firewall": ["ufw", "nftables"]}), facts.Wanted())
    assert "(ufw, nftables)" in said
    assert not list(facts.warnings(host({"firewall": ["ufw"]}), facts.Wanted(names_foreign=False)))
    assert not list(facts.warnings(host({}), facts.Wanted()))


@pytest.mark.parametrize(
    ("name", "like", "family"),
    [
        ("debian", "", "debian"),
        ("ubuntu", "debian", "debian"),
        ("raspbian", "debian", "debian"),
        ("fedora", "", "redhat"),
        ("rocky", "rhel centos fedora", "redhat"),
        ("opensuse-leap", "suse opensuse", "suse"),
        ("sles", "", "suse"),
        ("arch", "", "archlinux"),
        ("void", "", "other"),
        ("", "", "other"),
    ],
)
def test_a_distribution_is_of_a_family_whose_names_a_file_has(name: str, like: str, family: str) -> None:
    assert host({"id": name, "like": like}).family == family  # type: ignore[attr-defined]  # the plugin has no types
    assert (COLLECTION / f"roles/daemon/vars/{family}.yml").is_file()


def test_the_script_asks_this_host_and_changes_nothing() -> None:
    before = time.time()
    done = subprocess.run(
        ["sh", "-c", facts.SCRIPT, "sh", "/usr/bin/python3"], capture_output=True, text=True, check=False, timeout=60
    )
    said = facts.Host.of(done.stdout)
    assert said.first("end") == "yes"
    assert said.first("uid") == str(os.getuid())
    assert said.first("kernel") == os.uname().release
    assert "lo" in said.all("interface")
    assert float(said.first("time")) >= int(before)
    assert tuple(map(int, said.first("python").split("."))) >= (3, 10)
    assert (said.first("systemd") == "yes") is Path("/run/systemd/system").is_dir()
    absent = subprocess.run(["sh", "-c", facts.SCRIPT, "sh", "/nowhere"], capture_output=True, text=True, check=False)
    assert facts.Host.of(absent.stdout).first("python_fails") == "yes"
