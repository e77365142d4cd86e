"""`module_defaults` with `group/doorward.spa.spa` reaches every module of the collection."""

from __future__ import annotations

import re

import yaml

from unit.collection_plugins import COLLECTION


def test_every_module_is_in_the_group_and_every_action_has_its_documentation() -> None:
    modules = {file.stem for file in COLLECTION.glob("plugins/modules/*.py")}
    group = yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text("utf-8"))["action_groups"]["spa"]
    assert len(modules) > 5
    assert group == sorted(f"doorward.spa.{name}" for name in modules)
    actions = {file.stem for file in COLLECTION.glob("plugins/action/*.py")}
    on_hosts = {file.stem for file in COLLECTION.glob("plugins/modules/*.py") if "AnsibleModule(" in file.read_text()}
    assert (actions | on_hosts, actions & on_hosts) == (modules, set())


def test_the_collections_readme_names_every_module() -> None:
    readme = (COLLECTION / "README.md").read_text("utf-8")
    named = set(re.findall(r"doorward\.spa\.(\w+)", readme.partition("- modules ")[2].partition("- lookups")[0]))
    assert named - {"spa"} == {file.stem for file in COLLECTION.glob("plugins/modules/*.py")}
