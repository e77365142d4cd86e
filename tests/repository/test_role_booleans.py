"""Booleans of roles: `-e name=false` and an INI inventory bring the text "false", which is true without `| bool`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from unit.collection_plugins import COLLECTION, ansible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROLES: Final = COLLECTION / "roles"
_READERS: Final = (
    "roles/*/tasks/*.yml",
    "roles/*/handlers/*.yml",
    "roles/*/templates/*.j2",
    "roles/*/defaults/*.yml",
    "roles/*/vars/*.yml",
    "playbooks/*.yml",
)
OTHERS: Final = {"doorward_bare"}  # set by a role itself
_DEFAULT: Final = r"(?:\|\s*default\([^()]*\)\s*)?"


def booleans() -> set[str]:
    """The names of all options of type bool in the roles' argument_specs."""
    specs = [yaml.safe_load(file.read_text("utf-8")) for file in ROLES.glob("*/meta/argument_specs.yml")]
    options = [
        option for spec in specs for each in spec["argument_specs"].values() for option in each["options"].items()
    ]
    return {name for name, said in options if said["type"] == "bool"} | OTHERS


def uses(text: str, name: str) -> Iterator[tuple[int, bool]]:
    """The number of each line that reads a variable, and whether it is read through `| bool`."""
    for number, line in enumerate(text.splitlines(), 1):
        code = re.sub(rf"^\s*(?:#.*|{name}:)|\s#\s.*$", "", line)
        for match in re.finditer(rf"(?<![\w.'\"]){name}\b", code):
            yield number, bool(re.match(rf"\s*{_DEFAULT}\|\s*bool\b", code[match.end() :]))


def readers() -> list[Path]:
    """The files of the collection that read variables."""
    return [file for pattern in _READERS for file in sorted(COLLECTION.glob(pattern))]


def test_every_boolean_of_a_role_is_read_through_the_filter_bool() -> None:
    read = {
        (f"{file.relative_to(COLLECTION)}:{number}", name): well
        for file in readers()
        for name in booleans()
        for number, well in uses(file.read_text("utf-8"), name)
    }
    assert {name for _, name in read} >= {"doorward_require_source", "doorward_no_log", "doorward_dhcpv6"}
    assert not [place for place, well in read.items() if not well]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("when: not x", [False]),
        ("when: not x | bool", [True]),
        ("{{ 'Y' if x else 'N' }}", [False]),
        ("when: x | default(false) | bool and x", [True, False]),
        ('x: "{{ y or x }}"', [False]),
        ("x: true", []),
        ("# x", []),
        ("xy", []),
    ],
)
def test_a_use_without_the_filter_is_found(line: str, found: list[bool]) -> None:
    assert [well for _, well in uses(line, "x")] == found


def rendered(folder: Path, inventory: str, *options: str) -> dict[str, str]:
    """What access.conf says in each host of an inventory about REQUIRE_SOURCE_ADDRESS."""
    (folder / "inventory.ini").write_text(inventory)
    template = ROLES / "daemon/templates/access.conf.j2"
    variables = {"doorward_clients": [{"name": "c"}], "doorward_sources": [], "daemon_services": ["tcp/22"]}
    variables |= {"doorward_window": 30, "daemon_redacted": True, "keys_made": {"fingerprints": {}}}
    variables["daemon_stanzas"] = [{"client": 0, "format": "fwknop", "is_own": True}]
    words = ["-c", "local", "-m", "debug", "-a", f"msg={{{{ lookup('template', '{template}') }}}}"]
    shown = ansible(folder, "ansible", "-i", "inventory.ini", "all", *words, "-e", json.dumps(variables), *options)
    return dict(re.findall(r"^(\w+) \| SUCCESS.*?REQUIRE_SOURCE_ADDRESS  ([YN])\b", shown, re.MULTILINE | re.DOTALL))


def test_a_truth_value_from_an_ini_file_counts_as_what_it_says(tmp_path: Path) -> None:
    said = {"a": "false", "b": "no", "c": "true", "d": "yes"}
    inventory = "".join(f"{host} doorward_require_source={word}\n" for host, word in said.items())
    assert rendered(tmp_path, inventory) == {"a": "N", "b": "N", "c": "Y", "d": "Y"}


def test_a_truth_value_from_the_command_line_counts_as_what_it_says(tmp_path: Path) -> None:
    assert rendered(tmp_path, "a\n", "-e", "doorward_require_source=false") == {"a": "N"}
    assert rendered(tmp_path, "a\n", "-e", "doorward_require_source=true") == {"a": "Y"}
