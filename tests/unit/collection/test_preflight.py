"""The preflight of the roles, run by ansible: bad values end a run before the host is asked anything."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from unit.collection_plugins import COLLECTION, ansible, plugin

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ansible

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: doorward.spa.{role}
        tasks_from: {file}
"""
# What an inventory can have: the variables of a host, and how the sentence about them begins.
HOSTS: dict[str, tuple[dict[str, object], str]] = {
    "tpc": ({"doorward_public_services": ["tpc/443"]}, "doorward_public_services: 'tpc/443' is no service"),
    "half": ({"doorward_fallback_sources": ["0.0.0.0/2"]}, "doorward_fallback_sources: '0.0.0.0/2' lets in a part"),
    "fallback": ({"doorward_failure_policy": "fallback"}, "doorward_failure_policy: fallback lets in"),
    "twice": ({"doorward_clients": [{"name": "a"}, {"name": "a"}]}, "doorward_clients: a is there twice"),
    "cut": ({"doorward_clients": [{"name": "a", "public_key": "doorward1 abc"}]}, "doorward_clients: a: public_key: "),
    "typo": ({"doorward_fallback_source": []}, "doorward_fallback_source: no role reads a variable of this name"),
    "template": ({"doorward_services": "{{ ['tcp/' ~ 0] }}"}, "doorward_services: 'tcp/0' is no service"),
}
EXTRA = {
    "doorward_services=tcp/22": "doorward_services: 'tcp/22' is a text, and a list is needed, such as [tcp/22]",
    "doorward_port=0": "doorward_port: '0' is no number from 1 to 65535",
    "doorward_failure_policy=fallback": "doorward_failure_policy: fallback lets in doorward_fallback_sources",
    "doorward_widnow=5": "doorward_widnow: no role reads a variable of this name, and doorward_window is nearly",
}


def run(folder: Path, hosts: dict[str, dict[str, object]], *options: str, role: str = "daemon") -> dict[str, str]:
    """The message of each host's failure; empty where it got as far as a host that cannot be asked."""
    inventory = {"all": {"hosts": hosts, "vars": {"ansible_connection": "ssh", "ansible_host": "192.0.2.1"}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    file = {"daemon": "preflight.yml", "firewall": "main.yml"}[role]
    (folder / "play.yml").write_text(PLAY.format(role=role, file=file))
    # ssh that connects to nobody: a host that is asked is unreachable.
    words = ["--ssh-extra-args=-F /dev/null -o ProxyCommand=false", "-i", "hosts.yml", "play.yml", *options]
    shown = ansible(folder, "ansible-playbook", *words, check=False)
    found = dict(re.findall(r"^fatal: \[(\w+)\]: FAILED! => (\{.*\})$", shown, re.MULTILINE))
    unreachable = set(re.findall(r"^fatal: \[(\w+)\]: UNREACHABLE!", shown, re.MULTILINE))
    assert set(found) | unreachable == set(hosts), shown
    return {name: json.loads(text)["msg"] for name, text in found.items()} | dict.fromkeys(unreachable, "")


def test_each_value_that_no_host_can_be_given_is_refused_before_the_host_is_asked(tmp_path: Path) -> None:
    both = {name: variables for name, (variables, _) in HOSTS.items()}
    said = run(tmp_path, both | {"good": {"doorward_fallback_sources": ["10.0.0.0/8"]}})
    assert said.pop("good") == ""
    assert {name: text.startswith(HOSTS[name][1]) for name, text in said.items()} == dict.fromkeys(HOSTS, True), said
    assert all(text.endswith("(Stage: preflight of the role daemon; nothing was changed.)") for text in said.values())


def test_values_of_the_command_line_are_checked_as_they_come(tmp_path: Path) -> None:
    options = [word for one in EXTRA for word in ("-e", one)]
    (said,) = run(tmp_path, {"web": {}}, *options).values()
    assert not [sentence for sentence in EXTRA.values() if sentence not in said]
    good = ["-e", "doorward_port=62202", "-e", "doorward_window=60", "-e", '{"doorward_services": ["tcp/22"]}']
    assert run(tmp_path, {"web": {}}, *good) == {"web": ""}


def test_the_role_of_the_firewall_begins_with_it_too(tmp_path: Path) -> None:
    (said,) = run(tmp_path, {"web": {"doorward_public_services": ["tpc/443"]}}, role="firewall").values()
    assert said.endswith("(Stage: preflight of the role firewall; nothing was changed.)")


def test_the_names_of_all_variables_are_known() -> None:
    known = plugin("action.preflight").known()
    defaults = {
        name
        for file in COLLECTION.glob("roles/*/defaults/main.yml")
        for name in yaml.safe_load(file.read_text("utf-8"))
    }
    assert len(defaults) > 30
    assert defaults <= known
    read = {
        name
        for file in [*COLLECTION.glob("playbooks/*.yml"), *COLLECTION.glob("roles/*/*/*.yml")]
        for name in re.findall(r"\bdoorward_\w+", re.sub(r"#.*|tags:.*", "", file.read_text("utf-8")))
    }
    assert not [name for name in read - known if plugin("plugin_utils._values").near(name, known)]
