# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions share that speak for the hosts of a fleet, before and after a play over them."""

from __future__ import annotations

import time

from ansible_collections.doorward.spa.plugins.plugin_utils import _key_store, _report
from ansible_collections.doorward.spa.plugins.plugin_utils._local_action import LocalAction


class FleetAction(LocalAction):
    """An action that knows what each host of the run has registered."""

    _play = ""  # what the names of these variables begin with, such as `revoke` of `revoke_done`

    def _know(self, task_vars: dict | None) -> None:
        """Keep the variables of all hosts."""
        self._variables = (task_vars or {}).get("hostvars") or {}

    def _registered(self, host: str, name: str) -> dict:
        """Return what a host of the inventory has registered."""
        return self._variables[host].get(f"{self._play}_{name}") or {}

    def _why_not(self, host: str, hosts: list[str]) -> str:
        """Return why a host is not known to have done its part; `hosts` are those of the run."""
        if host not in self._variables:
            return "enrolled by this controller, and not in this inventory"
        if host not in hosts:
            return "not in this run"
        if self._registered(host, "reached").get("unreachable"):
            return "could not be reached"
        return _report.plain(self._registered(host, "done").get("msg") or "the run ended before it")[:300]


def all_hosts(options: dict) -> list[str]:
    """Return the hosts of the run, and all that this controller enrolled."""
    return list(dict.fromkeys([*options["hosts"], *_key_store.all_enrolled(options["folder"])]))


def moment() -> str:
    """Return the time in UTC, to the minute."""
    return time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())
