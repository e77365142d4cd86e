"""What the worker of each task loads anew: from compiled code, and with options that ansible-core has read before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from unit.collection.test_core_ssh import without_versions
from unit.collection_plugins import COLLECTIONS, plugin

if TYPE_CHECKING:
    from pathlib import Path

WORKER = """
import json, multiprocessing, sys
from ansible import constants
from ansible.plugins.loader import connection_loader, init_plugin_loader, lookup_loader
init_plugin_loader([sys.argv[1]])
list(connection_loader.all(class_only=True))  # as ansible-playbook does before it forks

def load():
    plugin = connection_loader.get("doorward.spa.ssh", class_only=True)
    assert lookup_loader.get("doorward.spa.key", class_only=True)
    utils = "ansible_collections.doorward.spa.plugins.plugin_utils"
    modules = {name.rpartition(".")[2]: each for name, each in sys.modules.items() if name.startswith(utils + ".")}
    assert all(vars(sys.modules[utils])[name] is module for name, module in modules.items())
    print(json.dumps({
        "options": constants.config.get_configuration_definitions("connection", plugin._load_name),
        "read": any(name.endswith(".core_ssh") for name in sys.modules),
        "loaders": {name: type(module.__spec__.loader).__name__ for name, module in modules.items()},
    }, default=str), flush=True)

if sys.argv[2] == "another core":
    import ansible.module_utils.common.yaml
    del ansible.module_utils.common.yaml.yaml_load
if sys.argv[2] == "no worker":
    load()
else:
    worker = multiprocessing.get_context("fork").Process(target=load)
    worker.start()
    worker.join()
"""


def loaded(home: Path, process: str) -> dict[str, Any]:
    """What a process of a playbook has loaded."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
    environ["PYTHONPYCACHEPREFIX"] = str(COLLECTIONS.parent / "build/bytecode")
    command = [sys.executable, "-c", WORKER, str(COLLECTIONS), process]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def test_a_worker_has_the_same_options_and_reads_no_documentation_for_them(tmp_path: Path) -> None:
    worker, other = (loaded(tmp_path, process) for process in ("worker", "no worker"))
    assert without_versions(worker["options"]) == without_versions(other["options"])
    assert {"ssh_args", "pipelining", "spa_key"} < set(worker["options"])
    assert {"name": "ansible_ssh_pipelining"} in other["options"]["pipelining"]["vars"], "which core's ssh adds to it"
    assert (worker["read"], other["read"]) == (False, True)


def test_where_a_release_of_ansible_core_has_other_names_it_reads_the_documentation(tmp_path: Path) -> None:
    assert loaded(tmp_path, "another core") == loaded(tmp_path, "no worker")


def test_what_tasks_need_is_loaded_from_compiled_code(tmp_path: Path) -> None:
    loaders = loaded(tmp_path, "worker")["loaders"]
    assert loaders.pop("_ahead") == "_AnsibleCollectionLoader"
    assert loaders == dict.fromkeys(plugin("plugin_utils._ahead").NEEDED, "SourceFileLoader")


def test_a_module_that_fails_is_not_left_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = plugin("plugin_utils._ahead")
    monkeypatch.setattr(ahead, "_file", lambda name: tmp_path / f"{name}.py")
    (tmp_path / "_sound.py").write_text("ANSWER = 42\n")
    (tmp_path / "_broken.py").write_text("raise RuntimeError('it is broken')\n")
    package = ahead.__package__
    assert ahead.load("_sound").ANSWER == 42
    assert ahead.load("_sound") is sys.modules.pop(f"{package}._sound")
    with pytest.raises(RuntimeError, match="it is broken"):
        ahead.load("_broken")
    assert f"{package}._broken" not in sys.modules
