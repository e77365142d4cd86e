"""One roll-out into which a fault is injected: to which host, from where, and the run itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.controller import AT_ONCE
from lab.plan import REPOSITORY, STATE
from rollouts.faults import FOLDER
from rollouts.processes import kill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.controller import Controller
    from lab.trial import Trial
    from rollouts.faults import Fault
    from rollouts.owner import Owner

ROLLOUT: Final = "doorward.spa.rollout"
STRIKE: Final = Path(__file__).parent / "strike"
DEADLINE: Final = 22  # seconds
RUNS: Final = 400.0  # seconds of one run


@dataclass(frozen=True, slots=True)
class Scene:
    """A host, the controller that rolls out to it, and a folder for what belongs to this one fault."""

    fault: Fault
    trial: Trial
    controller: Controller
    owner: Owner
    folder: Path

    @property
    def host(self) -> str:
        """The name of the host in the inventory."""
        return self.trial.host.name


@dataclass(frozen=True, slots=True)
class Run:
    """A run of ansible-playbook that is under way, and the file of all that it says."""

    process: subprocess.Popen[bytes]
    output: Path
    failed: Path

    def said(self) -> str:
        """What it said of the host at the last, in one line."""
        told = self.failed.read_text("utf-8") if self.failed.exists() else ""
        return " ".join((told or _last_line(self.output)).split())

    def end(self) -> int:
        """The exit code, which it has within its time."""
        try:
            return self.process.wait(RUNS)
        except subprocess.TimeoutExpired:
            kill(self.process.pid)
            return self.process.wait()


def begin(scene: Scene) -> Run:
    """Start the roll-out that the fault is for."""
    fault, folder = scene.fault, scene.folder
    shutil.copy(STATE / "client.key", folder / "client.key")
    given = {"doorward_change_deadline": DEADLINE, "doorward_firewall_deadline": DEADLINE, **fault.variables}
    more = folder / "fault.yml"
    text = json.dumps({"all": {"hosts": {scene.host: given}}})
    more.write_text(text.replace(FOLDER, str(folder)), encoding="utf-8")
    failed = folder / "failed"
    controller = scene.controller
    if fault.other_archive:
        controller = replace(controller, collections=_with_another_archive(folder))
    # The task waits until the strike has come, or what waits for its moment is there.
    command = ["sh", "-c", f"touch {folder}/reached; until [ -e {folder}/go ]; do sleep 0.05; done"]
    strike = {"host": scene.host, "task": fault.task or None, "command": command, "failed": str(failed)}
    settings = {
        "ANSIBLE_CALLBACK_PLUGINS": str(STRIKE),
        "ANSIBLE_CALLBACKS_ENABLED": "strike",
        "DOORWARD_STRIKE": json.dumps(strike),
    }
    options = ("--inventory", str(more), "--limit", scene.host, *AT_ONCE, *fault.options)
    return _start(controller, settings, options, folder / "output", failed)


def _start(
    controller: Controller, settings: Mapping[str, str], options: tuple[str, ...], output: Path, failed: Path
) -> Run:
    controller.home.mkdir(parents=True, exist_ok=True)
    playbook = str(Path(sys.executable).parent / "ansible-playbook")
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [playbook, "--inventory", str(controller.inventory), *options, ROLLOUT],
            env=controller.environment() | dict(settings),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Run(process, output, failed)


def _with_another_archive(folder: Path) -> Path:
    """A copy of the collection whose archive has a comment more."""
    made = folder / "collections"
    shutil.copytree(REPOSITORY / "collections", made, symlinks=True)
    sources = folder / "daemon"
    shutil.copytree(REPOSITORY / "daemon", sources)
    with (sources / "doorward/errors.py").open("a", encoding="utf-8") as module:
        module.write("\n# Another archive.\n")
    archive = made / "ansible_collections/doorward/spa/roles/daemon/files/doorward.pyz"
    build = [sys.executable, "-m", "doorward.archive", str(archive)]
    subprocess.run(build, check=True, env={**os.environ, "PYTHONPATH": str(sources)}, timeout=60)
    return made


def _last_line(file: Path) -> str:
    lines = [line for line in file.read_text("utf-8", "replace").splitlines() if line.strip(" *")]
    return lines[-1] if lines else "nothing"
