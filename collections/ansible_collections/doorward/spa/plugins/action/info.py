# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.info: what a host says of its doorward."""

from __future__ import annotations

import subprocess

from ansible_collections.doorward.spa.plugins.plugin_utils import _archive
from ansible_collections.doorward.spa.plugins.plugin_utils._host_action import HOST_COMMAND, HostAction

_DAEMON = "/usr/sbin/doorwardd"
_WARNING = "warning: "


class ActionModule(HostAction):
    """The action `doorward.spa.info`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Ask the host; nothing is changed."""
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        result = {"changed": False, "controller_version": _controller_version()}
        if self._on_host("test", "-x", HOST_COMMAND).code:
            return result | {"installed": False}
        status = self._doorward_status()
        known = {"installed": True, "version": status["version"], "status": status, "check": self._check()}
        return result | known | {"is_current": status["version"] == result["controller_version"]}

    def _check(self) -> dict:
        """Return what `doorwardd check` says of the files."""
        outcome = self._on_host(_DAEMON, "check")
        lines = [line for line in outcome.text.splitlines() if line.strip()]
        warnings = [line.removeprefix(_WARNING) for line in lines if line.startswith(_WARNING)]
        problems = [line for line in lines if not line.startswith(_WARNING)] if outcome.code else []
        return {"ok": outcome.code == 0, "problems": problems, "warnings": warnings}


def _controller_version() -> str:
    """Return the version of the archive that a roll-out of this collection installs."""
    done = subprocess.run(  # noqa: S603  our own archive, no shell
        [*_archive.command("-V")], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.split()[-1] if done.returncode == 0 and done.stdout.split() else ""
