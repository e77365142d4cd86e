# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.knock: an explicit knock, and the proof that it works."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive
from ansible_collections.doorward.spa.plugins.plugin_utils._host_action import HostAction

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPTIONS = {
    "host": {"type": "str"},
    "port": {"type": "int"},
    "services": {"type": "list", "elements": "str"},
    "source": {"type": "str"},
    "verify": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 10},
}
_SOURCE_FLAGS = {"auto": (), "packet": ("-s",)}
_AGAIN = 2.0  # seconds before a knock that shows no effect is sent again
_LOOK = 0.3  # seconds between two looks at the grants
_SSH_PORT = 22


class ActionModule(HostAction):
    """The action `doorward.spa.knock`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Knock; with `verify` also see that the host has let this controller in."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        if not getattr(self._connection, "knocks", False):
            msg = "this host's connection does not knock: it needs ansible_connection: doorward.spa.ssh and a key"
            raise AnsibleActionFail(msg)
        services = options["services"] or [self._service()]
        command = self._command(options, services)
        result = {"changed": False, "services": services}
        if options["verify"]:
            return result | self._verified(command, services, options["timeout"])
        self._send(command)
        return result | {"knocks": 1}

    def _service(self) -> str:
        return self._connection.get_option("spa_service") or f"tcp/{self._connection.get_option('port') or _SSH_PORT}"

    def _command(self, options: dict, services: Sequence[str]) -> list[str]:
        """Return the client's command line; the key stays in a file."""
        option = self._connection.get_option
        host = options["host"] or option("spa_host") or option("host")
        port = options["port"] or option("spa_port")
        source = options["source"] or option("spa_source")
        words = [sys.executable, "-I", str(_archive.find()), "knock", *self._connection.spa_key_arguments()]
        words += ["--no-save-args", "-A", ",".join(services), "-D", host, "-p", str(port)]
        return [*words, *_SOURCE_FLAGS.get(source, ("-a", source))]

    def _send(self, command: Sequence[str]) -> None:
        done = subprocess.run(  # noqa: S603  our own archive, no shell
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )
        if done.returncode:
            msg = f"the knock was not sent: {(done.stderr or done.stdout).strip()[-500:]}"
            raise AnsibleActionFail(msg)

    def _verified(self, command: Sequence[str], services: Sequence[str], timeout: int) -> dict:
        """Knock until the host shows a grant for the address that it sees this controller at."""
        source = self._peer().source
        self._doorward("close", "--from", source)
        knocks, start, again = 0, time.monotonic(), 0.0
        while (waited := time.monotonic() - start) < timeout:
            if waited >= again:
                self._send(command)
                knocks, again = knocks + 1, waited + _AGAIN
            if self._missing(source, services) == set():
                return {"source": source, "knocks": knocks}
            time.sleep(_LOOK)
        raise AnsibleActionFail(self._diagnosis(source, services, knocks))

    def _missing(self, source: str, services: Sequence[str]) -> set[str]:
        """Return the services that the host has not opened for `source`."""
        grants = self._doorward_json("status")["grants"]
        return set(services) - {one["service"] for one in grants if one["source"] == source}

    def _diagnosis(self, source: str, services: Sequence[str], knocks: int) -> str:
        """Return what is known about a knock without effect, the daemon's own last words included."""
        status = self._doorward_json("status")
        others = sorted({one["source"] for one in status["grants"]})
        journal = self._on_host("journalctl", "-u", "doorwardd.service", "-n", "3", "-o", "cat", "--no-pager")
        return (
            f"{knocks} knock(s) for {', '.join(services)} did not open the host for {source}, the address that it "
            f"sees this controller at. doorwardd {'runs' if status['running'] else 'does not run'}; open for: "
            f"{', '.join(others) or 'nobody'}. Nothing was closed. The daemon's last lines: {journal.text[-900:]}"
        )
