"""A play on each ansible-core that the collection names: hidden hosts in namespaces, real sshd, real doorwardd."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import TYPE_CHECKING, Final

import pytest

from system import ansible_site
from versions.environments import made, python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.ansible_site import Site

# The releases from the oldest that requires_ansible allows to the newest, and the Pythons that each runs on.
CORES: Final = {"2.17": (10, 12), "2.18": (11, 13), "2.19": (11, 13), "2.20": (12, 14), "2.21": (12, 14)}
SEEN: Final = {"register": "said"}
MADE: Final = {"register": "made"}
OWN: Final = {"private_key_file": "{{ doorward_private_key_file }}", "clients": ["controller"]}
COLLECTED: Final = {
    "host": "{{ inventory_hostname }}",
    "public_key": "{{ made.stanzas[0].public_key }}",
    "folder": "{{ playbook_dir }}/collected",
}
PLAY: Final = [
    {
        "hosts": "all",
        "tasks": [
            {"ansible.builtin.command": "ip -4 -o addr show dev eth0", **SEEN},
            {"ansible.builtin.debug": {"var": "said.stdout"}},
            {"ansible.builtin.copy": {"content": "here", "dest": "{{ playbook_dir }}/copied-{{ inventory_hostname }}"}},
            {"ansible.builtin.ping": {}, "delegate_to": "{{ item }}", "loop": ["10.77.0.2", "10.77.0.3"]},
            {"ansible.builtin.meta": "reset_connection"},
            {"ansible.builtin.wait_for_connection": {"timeout": 60}},
            {"doorward.spa.knock": None},
            {"ansible.builtin.include_role": {"name": "doorward.spa.client"}},
            {
                "doorward.spa.key": {**OWN, "host": "{{ inventory_hostname }}", "folder": "{{ playbook_dir }}/made"},
                **MADE,
            },
            {"doorward.spa.host_key": COLLECTED},
        ],
    }
]


def cores() -> dict[str, int]:
    """The releases that a Python of this machine runs, with its minor version; the present one is preferred."""
    here = sys.version_info.minor
    found: dict[str, int] = {}
    for version, (first, last) in CORES.items():
        able = (minor for minor in (here, *range(first, last + 1)) if first <= minor <= last)
        usable = next((minor for minor in able if python(minor)), None)
        if usable is not None:
            found[version] = usable
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[Site]:
    with ansible_site.site() as made_here:
        yield made_here


def test_the_oldest_is_the_one_that_the_collection_requires() -> None:
    needs = (ansible_site.COLLECTION / "meta/runtime.yml").read_text()
    assert f'requires_ansible: ">={min(CORES, key=lambda version: int(version[2:]))}.0"' in needs
    assert "2.17" in cores(), "Debian 12 has a Python for it"


@pytest.mark.parametrize(("version", "minor"), cores().items(), ids=cores())
def test_a_play_on_hidden_hosts_runs_on_this_ansible_core_without_a_warning(
    lab: Site, version: str, minor: int
) -> None:
    interpreter = python(minor)
    assert interpreter
    folder = made(f"ansible-core-{version}-on-3.{minor}", interpreter, f"ansible-core=={version}.*")
    program = str(folder / "bin/ansible-playbook")
    assert f"core {version}." in lab.controller.run(program, "--version", env=lab.environment()).stdout
    for daemon in lab.daemons.values():
        daemon.lines.clear()
    lab.hold_key("10.77.0.1", "one")
    lab.know("two", "two", "doorward1")
    hosts = {"10.77.0.1": {}, "two": {"ansible_host": "10.77.0.2"}}
    # As people have it: one connection for all tasks, which the reset ends.
    shared = f"-F {lab.folder}/ssh_config -o ControlMaster=auto -o ControlPersist=20s"
    variables = {
        "ansible_ssh_args": shared,
        "ansible_pipelining": True,
        "ansible_timeout": 60,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    settings = ("-e", json.dumps(variables | {"doorward_client_dir": f"{lab.folder}/profiles"}))
    shown = lab.play(hosts, PLAY, *settings, program=program)
    assert len(re.findall(r"unreachable=0 +failed=0 ", shown)) == len(hosts), shown
    assert sorted(re.findall(r"inet (10\.77\.0\.\d+)/", shown)) == ["10.77.0.1", "10.77.0.2"]
    assert "WARNING" not in shown
    assert set(lab.verdicts("one")) == set(lab.verdicts("two")) == {"granted"}
    assert sorted(path.suffix for path in (lab.folder / "profiles").iterdir()) == [
        ".conf",
        ".conf",
        ".fwknoprc",
        ".fwknoprc",
    ]
    lines = {line for path in (lab.folder / "profiles").glob("*.fwknoprc") for line in path.read_text().splitlines()}
    assert f"HOST_KEY {lab.pairs['two']}" in lines
    assert any(line.startswith("HMAC_KEY_BASE64 ") for line in lines)
    collected = [path.read_text() for path in (lab.folder / "collected").glob("*/doorward.yml")]
    assert len(collected) == len(hosts)
    assert all('doorward_host_key: "doorward1 ' in text for text in collected)
    for name in ("profiles", "collected", "made"):
        shutil.rmtree(lab.folder / name)
