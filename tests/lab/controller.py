"""Ansible as the owner of the lab's hosts runs it, from the source tree or from an installed collection."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from lab.plan import REPOSITORY, RUN, STATE
from lab.run import LabError

INVENTORY = REPOSITORY / "inventories/lab"
VISIT = Path(__file__).with_name("visit.yml")
AT_ONCE = ("--extra-vars", "doorward_rollout_serial=100%")
"""Options of a roll-out to all hosts side by side; the default is one after the other."""
COUNTED = ("ok", "changed", "unreachable", "failed")
RECAP = re.compile(r"^(?P<host>\S+)\s+: " + r"\s+".join(rf"{name}=(?P<{name}>\d+)" for name in COUNTED), re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recap:
    """What Ansible counted for one host."""

    host: str
    ok: int
    changed: int
    unreachable: int
    failed: int


@dataclass(frozen=True, slots=True)
class Played:
    """One run of Ansible."""

    code: int
    output: str
    hosts: tuple[Recap, ...]

    @property
    def changed(self) -> int:
        """How many tasks changed something, on all hosts."""
        return sum(host.changed for host in self.hosts)

    @property
    def unreachable(self) -> set[str]:
        """The hosts that could not be reached."""
        return {host.host for host in self.hosts if host.unreachable}

    def check(self) -> Played:
        """This run, which must have succeeded.

        Raises:
            LabError: it did not; carries the end of what Ansible said.
        """
        if self.code != 0:
            text = f"ansible ended with {self.code}:\n{self.output[-6000:]}"
            raise LabError(text)
        return self


@dataclass(frozen=True, slots=True)
class Controller:
    """A place to run Ansible from: where the collection is, and what is known there."""

    collections: Path = REPOSITORY / "collections"
    inventory: Path = INVENTORY
    state: Path = STATE
    home: Path = RUN / "ansible"
    settings: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    """What every program is run through, such as a namespace of its own."""

    def playbook(self, name: str, *options: str) -> Played:
        """A run of a playbook, a file or one of the collection's."""
        shown = self._run("ansible-playbook", "--inventory", str(self.inventory), *options, name)
        return Played(shown.returncode, shown.stdout, _recaps(shown.stdout))

    def module(self, pattern: str, module: str, *options: str) -> Played:
        """A run of one module on the hosts that fit the pattern."""
        shown = self._run("ansible", "--inventory", str(self.inventory), pattern, "-m", module, *options)
        return Played(shown.returncode, shown.stdout, ())

    def galaxy(self, *arguments: str) -> Played:
        """A run of ansible-galaxy."""
        shown = self._run("ansible-galaxy", *arguments)
        return Played(shown.returncode, shown.stdout, ())

    def environment(self) -> dict[str, str]:
        """The environment of Ansible: nothing of the caller's settings but where programs are."""
        binaries = Path(sys.executable).parent
        return {
            "PATH": f"{binaries}:{os.environ.get('PATH', os.defpath)}",
            "HOME": os.environ.get("HOME", "/root"),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_HOME": str(self.home),
            "ANSIBLE_LOCAL_TEMP": str(self.home / "tmp"),
            # Short, since the path of a unix socket ends at 107 characters.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.home / "cp"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "DOORWARD_LAB_STATE": str(self.state),
            **self.settings,
        }

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "log").open("a", encoding="utf-8") as log:
            log.write(f"\n$ {program} {' '.join(arguments)}\n")
            shown = subprocess.run(
                [*self.prefix, str(Path(sys.executable).parent / program), *arguments],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd="/",
                timeout=1200,
                check=False,
            )
            log.write(shown.stdout)
        return shown


def _recaps(output: str) -> tuple[Recap, ...]:
    return tuple(Recap(found["host"], *(int(found[name]) for name in COUNTED)) for found in RECAP.finditer(output))
