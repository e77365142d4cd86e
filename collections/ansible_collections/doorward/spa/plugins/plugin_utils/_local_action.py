# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions that work on the controller alone share."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import VaultLib, match_secrets
from ansible.plugins.action import ActionBase


class LocalAction(ActionBase):
    """An action that connects to nothing."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def _vaulted(self, text: str, vault_id: str) -> str:
        """Return the text encrypted with the secret of an id; as it is where the id is empty."""
        if not vault_id:
            return text
        known = self._loader._vault.secrets or []  # noqa: SLF001  the loader offers no other way to its secrets
        fitting = match_secrets(known, [vault_id])
        if not fitting:
            msg = f"there is no vault secret with the id {vault_id!r}: give one with --vault-id {vault_id}@FILE"
            raise AnsibleActionFail(msg)
        return VaultLib(known).encrypt(text, secret=fitting[0][1], vault_id=vault_id).decode()
