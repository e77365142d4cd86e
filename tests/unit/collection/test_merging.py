"""What several groups of a host say becomes one value, or an error that names both variables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from unit.collection_plugins import ansible, plugin

if TYPE_CHECKING:
    from pathlib import Path

merging = plugin("plugin_utils._merging")

ALICE: dict[str, Any] = {"name": "alice", "window": 30, "services": ["tcp/22"]}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([[{"name": "c"}], [ALICE]], [{"name": "c"}, ALICE]),
        ([["tcp/22"], ["tcp/80", "tcp/22"]], ["tcp/22", "tcp/80"]),
        ([[ALICE], [ALICE]], [ALICE]),
        (
            [[ALICE], [{"name": "alice", "services": ["tcp/80", "tcp/22"], "expires": "1/1/2030"}]],
            [ALICE | {"services": ["tcp/22", "tcp/80"], "expires": "1/1/2030"}],
        ),
        ([[{"name": "b"}, ALICE], [{"name": "c"}, {"name": "alice"}]], [{"name": "b"}, ALICE, {"name": "c"}]),
        ([{"VERBOSE": 1}, {"VERBOSE": 1, "RULES": "x"}], {"VERBOSE": 1, "RULES": "x"}),
        ([[]], []),
    ],
)
def test_lists_are_joined_and_entries_of_a_name_are_one(said: list[Any], expected: object) -> None:
    assert merging.merged({f"v_{number}": value for number, value in enumerate(said)}) == expected


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (
            [ALICE],
            [ALICE | {"window": 600}],
            "alice has one window in doorward_clients_db and another in doorward_clients_web, and this host has both",
        ),
        ({"VERBOSE": 1}, {"VERBOSE": 2}, "VERBOSE is one in doorward_clients_db and another in doorward_clients_web"),
        ([], {}, "doorward_clients_db and doorward_clients_web have to be all lists or all mappings, and are dict and"),
        ("tcp/22", [], "have to be all lists or all mappings, and are list and str"),
    ],
)
def test_what_cannot_both_be_is_refused_with_both_variables(one: object, other: object, words: str) -> None:
    with pytest.raises(merging.ContraryError) as refused:
        merging.merged({"doorward_clients_db": one, "doorward_clients_web": other})
    assert words in str(refused.value)


def test_a_secret_is_not_repeated() -> None:
    with pytest.raises(merging.ContraryError) as refused:
        merging.merged({name: [ALICE | {"psk": name * 3}] for name in ("first", "second")})
    assert "first" * 3 not in str(refused.value)


INVENTORY = """
[web]
a
b
[db]
b
c
[contrary]
c
"""
GROUPS: dict[str, dict[str, Any]] = {
    "all": {
        "doorward_clients": "{{ lookup('doorward.spa.merged', 'doorward_clients') }}",
        "doorward_clients_all": [{"name": "{{ controller }}"}],
        "controller": "tower",
    },
    "web": {"doorward_clients_web": [{"name": "alice", "services": ["tcp/22"]}]},
    "db": {"doorward_clients_db": [{"name": "alice", "services": ["tcp/5432"], "window": 60}]},
    "contrary": {"doorward_clients_contrary": [{"name": "alice", "window": 5}]},
}


@pytest.mark.ansible
def test_a_host_has_the_clients_of_all_its_groups_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text(INVENTORY)
    (tmp_path / "group_vars").mkdir()
    for name, variables in GROUPS.items():
        (tmp_path / f"group_vars/{name}.json").write_text(json.dumps(variables))
    words = ["-i", "hosts.ini", "-c", "local", "-o", "-m", "debug", "-a", "var=doorward_clients"]
    shown = {
        host: ansible(tmp_path, "ansible", host, *words, "-e", "ansible_python_interpreter=/nowhere", check=False)
        for host in "abc"
    }
    found = {host: json.loads(shown[host].partition("=> ")[2])["doorward_clients"] for host in "ab"}
    assert found["a"] == [{"name": "tower"}, {"name": "alice", "services": ["tcp/22"]}]
    assert found["b"] == [{"name": "tower"}, {"name": "alice", "services": ["tcp/5432", "tcp/22"], "window": 60}]
    assert "alice has one window in doorward_clients_contrary and another in doorward_clients_db" in shown["c"]
