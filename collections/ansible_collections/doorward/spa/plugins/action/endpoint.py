# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.endpoint: where the connection of a host leads, as ssh has it."""

from __future__ import annotations

from ansible_collections.doorward.spa.plugins.plugin_utils._dialled import SSH_PORT, dialled
from ansible_collections.doorward.spa.plugins.plugin_utils._local_action import LocalAction

_SPA_PORT = 62201


class ActionModule(LocalAction):
    """The action `doorward.spa.endpoint`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Ask ssh; nothing is connected."""
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        connection = self._connection
        is_ours = hasattr(connection, "spa_dialled")
        if connection.transport != "ssh":
            host, port, user = self._play_context.remote_addr, SSH_PORT, ""
        else:
            host, port, user, _bind_address = dialled(connection)
        option = connection.get_option if is_ours else {}.get
        return {
            "changed": False,
            "host": host,
            "port": port,
            "user": user,
            "is_spa": is_ours,
            "service": option("spa_service") or f"tcp/{port}",
            "spa_host": option("spa_host") or host,
            "spa_port": option("spa_port") or _SPA_PORT,
            "host_key": connection.spa_host_key() if is_ours else "",
            "psk_mark": connection.spa_psk_mark() if is_ours else "",
        }
