"""inventories/example explains every variable of every role, with a value that the roles take, and is shipped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from unit.collection_plugins import COLLECTION, plugin

EXAMPLE = COLLECTION / "inventories/example"
REPOSITORY = Path(__file__).parents[2]


def options() -> dict[str, dict[str, Any]]:
    """Every option of every role."""
    specs = (yaml.safe_load(file.read_text("utf-8")) for file in COLLECTION.glob("roles/*/meta/argument_specs.yml"))
    return {
        name: said
        for spec in specs
        for entry in spec["argument_specs"].values()
        for name, said in entry["options"].items()
    }


def explained(text: str) -> set[str]:
    """The variables that a file sets, or names in a comment."""
    return set(re.findall(r"\bdoorward_[a-z0-9_]+(?=:| is\b|=|,)", text))


def test_the_example_names_every_variable_of_every_role_and_no_other() -> None:
    named = explained((EXAMPLE / "group_vars/all.yml").read_text("utf-8"))
    assert len(options()) > 40
    assert not set(options()) - named, "explain them in inventories/example/group_vars/all.yml"
    assert named <= plugin("action.preflight").known(), "no role or playbook reads them"


def test_a_variable_that_is_missing_would_be_seen() -> None:
    assert explained("doorward_port: 1\n# doorward_psk: x\n# doorward_x\n") == {"doorward_port", "doorward_psk"}


def test_the_values_of_the_example_are_of_their_type_and_pass_the_preflight() -> None:
    values = yaml.safe_load((EXAMPLE / "group_vars/all.yml").read_text("utf-8"))
    kinds = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict}
    ours = {name: value for name, value in values.items() if name.startswith("doorward_")}
    assert not [name for name, value in ours.items() if not isinstance(value, kinds[options()[name]["type"]])]
    allowed = {name: said["choices"] for name, said in options().items() if "choices" in said}
    assert not [name for name, value in ours.items() if value not in allowed.get(name, [value])]
    ours["doorward_clients"][0]["name"] = ours["doorward_controller"]  # its template, filled in
    assert not list(plugin("plugin_utils._values").problems(ours, options()))


def test_the_example_shows_every_option_of_a_client_and_of_the_connection() -> None:
    text = (EXAMPLE / "group_vars/all.yml").read_text("utf-8")
    spec = yaml.safe_load((COLLECTION / "roles/daemon/meta/argument_specs.yml").read_text("utf-8"))["argument_specs"]
    of_a_client = spec["main"]["options"]["doorward_clients"]["options"]
    documented = yaml.safe_load(plugin("connection.ssh").DOCUMENTATION)["options"]
    of_the_connection = [
        one["name"]
        for name, said in documented.items()
        for one in said.get("vars", ())
        if one["name"].startswith("ansible_spa_")
    ]
    assert len(of_a_client) > 6
    assert len(of_the_connection) > 6
    assert not [name for name in (*of_a_client, *of_the_connection) if not re.search(rf"\b{name}\b", text)]


def test_it_travels_in_the_tarball() -> None:
    ignored = yaml.safe_load((COLLECTION / "galaxy.yml").read_text("utf-8"))["build_ignore"]
    assert EXAMPLE.is_dir()
    assert not EXAMPLE.is_symlink()
    assert not [pattern for pattern in ignored if pattern.startswith("inventor")]
    assert (REPOSITORY / "inventories/example").resolve() == EXAMPLE.resolve()
