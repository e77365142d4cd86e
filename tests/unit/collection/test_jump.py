"""Jump hosts by the variables of the inventory."""

from __future__ import annotations

import shlex

import pytest

from unit.collection_plugins import plugin

jump = plugin("plugin_utils._jump")
HOSTS = {
    "gw": {"ansible_host": "192.0.2.1", "ansible_user": "al ice", "ansible_port": 2222, "ansible_spa_key": "k"},
    "inner": {"ansible_host": "2001:db8::1", "ansible_ssh_private_key_file": "/a b", "ansible_spa_jump": "gw"},
    "circle": {"ansible_spa_jump": "round"},
    "round": {"ansible_spa_jump": "circle"},
    "own": {"ansible_spa_jump": "own"},
    "plain": {"ansible_ssh_common_args": "-F 'x y'", "ansible_spa_jump": "none"},
}


def helper(found: object) -> list[str] | None:
    knocks = found.variables.get("ansible_spa_key")  # type: ignore[attr-defined]
    return ["doorward", "connect"] if knocks or found.before else None  # type: ignore[attr-defined]


def options(name: str) -> tuple[str, list[str]]:
    """The host that is jumped through, and the words of its ssh."""
    option, host, ssh, words = jump.options(jump.find(name, HOSTS), helper, ["BatchMode=yes"])
    assert (option, ssh) == ("--jump", "--ssh")
    return host, shlex.split(words)


def test_address_user_port_and_key_are_the_jump_hosts_own() -> None:
    host, words = options("gw")
    assert host == "192.0.2.1"
    assert words == [
        "ssh", "-l", "al ice", "-p", "2222", "-o", "BatchMode=yes", "-o", "ProxyUseFdpass=yes",
        "-o", "ProxyCommand=doorward connect -- '%h' '%p'",
    ]  # fmt: skip
    plain = ["ssh", "-F", "x y", "-o", "BatchMode=yes", "-o", "ProxyCommand=none"]
    assert options("plain") == ("plain", plain)


def test_a_host_outside_the_inventory_is_left_to_sshs_own_files_but_for_its_name() -> None:
    assert options("other") == ("other", ["ssh", "-o", "BatchMode=yes", "-o", "ProxyCommand=none"])


def test_a_jump_host_behind_another_one_without_a_key_is_reached_through_that() -> None:
    host, words = options("inner")
    assert host == "[2001:db8::1]"
    assert words[:3] == ["ssh", "-o", 'IdentityFile="/a b"']
    proxy = shlex.split(words[-1].partition("=")[2].replace("%%", "%"))
    assert proxy[:4] == ["doorward", "connect", "--jump", "192.0.2.1"]


def test_a_variable_of_all_hosts_makes_no_host_its_own_jump_host() -> None:
    assert jump.find("own", HOSTS).before is None


def test_a_circle_is_told() -> None:
    with pytest.raises(jump.JumpError, match="round in a circle, at 'circle'"):
        jump.find("circle", HOSTS)
