# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.knock: an explicit knock, and the proof that it works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.plugin_utils import _knocking
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
_LEFT_OPEN = frozenset({"auto", "named"})
_AGAIN = 2.0  # seconds before a knock that shows no effect is sent again
_LOOK = 0.3  # seconds between two looks at the grants


class ActionModule(HostAction):
    """The action `doorward.spa.knock`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Knock; with `verify` also see that the host has let this controller in."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        if not getattr(self._connection, "knocks", False):
            msg = "this host's connection does not knock: it needs ansible_connection: doorward.spa.ssh and a key"
            raise AnsibleActionFail(msg)
        services = options["services"] or [self._connection.spa_service()]
        result = {"changed": False, "services": services}
        if options["verify"]:
            return result | self._verified(options, services)
        _knocking.send(self._command(options, services))
        return result | {"knocks": 1}

    def _command(self, options: dict, services: Sequence[str]) -> list[str]:
        to = (options["host"], options["port"])
        return _knocking.command(self._connection, services, to=to, source=options["source"])

    def _verified(self, options: dict, services: Sequence[str]) -> dict:
        """Knock until the host shows a grant for the address that it sees this controller at.

        Behind NAT that address cannot be known before. It is remembered, since every later knock has to name it, and
        where the source is left to the client this one names it too.
        """
        source = self._peer().source
        left_open = (options["source"] or self._connection.get_option("spa_source")) in _LEFT_OPEN
        if left_open and not self._connection.jumps:
            self._connection.spa_learn(source)
        command = self._command(options | ({"source": source} if left_open else {}), services)
        timeout = options["timeout"]
        self._doorward("close", "--from", source)
        knocks, start, again = 0, time.monotonic(), 0.0
        while (waited := time.monotonic() - start) < timeout:
            if waited >= again:
                _knocking.send(command)
                knocks, again = knocks + 1, waited + _AGAIN
            if self._missing(source, services) == set():
                return {"source": source, "knocks": knocks}
            time.sleep(_LOOK)
        raise AnsibleActionFail(self._diagnosis(source, services, knocks))

    def _missing(self, source: str, services: Sequence[str]) -> set[str]:
        """Return the services that the host has not opened for `source`."""
        grants = self._doorward_status()["grants"]
        return set(services) - {one["service"] for one in grants if one["source"] == source}

    def _diagnosis(self, source: str, services: Sequence[str], knocks: int) -> str:
        """Return what is known about a knock without effect, the daemon's own last words included."""
        status = self._doorward_status()
        others = sorted({one["source"] for one in status["grants"]})
        journal = self._on_host("journalctl", "-u", "doorwardd.service", "-n", "3", "-o", "cat", "--no-pager")
        return (
            f"{knocks} knock(s) for {', '.join(services)} did not open the host for {source}, the address that it "
            f"sees this controller at. doorwardd {'runs' if status['running'] else 'does not run'}; open for: "
            f"{', '.join(others) or 'nobody'}. Nothing was closed. The daemon's last lines: {journal.text[-900:]}"
        )
