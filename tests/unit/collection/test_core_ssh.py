"""The connection plugin has every option of ansible-core's ssh, whatever form of YAML its documentation has."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import yaml

from unit.collection_plugins import plugin

CORE: str = importlib.import_module("ansible.plugins.connection.ssh").DOCUMENTATION
FORMS = {
    "as it is": CORE,
    "one line of JSON": json.dumps(yaml.safe_load(CORE)),
    "other keys behind the options": f"{CORE}\n    version_added: '2.1'\n    notes: [one]\n",
    "the version first in a list": CORE.replace(
        "- name: ansible_host\n", f"- version_added: '9'\n{' ' * 17}name: ansible_host\n"
    ),
    "two columns further left": "".join(line.removeprefix("  ") for line in CORE.splitlines(keepends=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_option_of_the_core_plugin_is_there(form: str) -> None:
    text = FORMS[form]
    ours = yaml.safe_load(plugin("doc_fragments.core_ssh").options(text))
    assert set(ours) == {"options"}
    assert "version_added" not in str(ours)
    assert ours["options"] == without_versions(yaml.safe_load(text)["options"])
    assert {"ssh_args", "timeout", "host_key_checking"} < set(ours["options"])


def test_the_fragment_is_made_of_the_core_plugin_that_runs() -> None:
    fragment: Any = plugin("doc_fragments.core_ssh")
    assert fragment.options(CORE) == fragment.ModuleDocFragment.DOCUMENTATION


def without_versions(value: Any) -> Any:
    """A value of YAML without `version_added` at any depth."""
    if isinstance(value, dict):
        return {name: without_versions(part) for name, part in value.items() if name != "version_added"}
    return [without_versions(part) for part in value] if isinstance(value, list) else value
