# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.keypair: a client's own key pair, on the controller."""

from __future__ import annotations

from ansible_collections.doorward.spa.plugins.plugin_utils import _identity, _key_store
from ansible_collections.doorward.spa.plugins.plugin_utils._local_action import LocalAction

_OPTIONS = {
    "path": {"type": "path", "default": "~/.config/doorward/client.key"},
    "comment": {"type": "str", "default": "controller"},
    "vault_id": {"type": "str", "default": ""},
}


class ActionModule(LocalAction):
    """The action `doorward.spa.keypair`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Make the pair where there is none, and return its public half."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        place = _identity.Place.of(options["path"], None)
        text = _identity.read(place, self._loader)
        result = {"changed": text is None, "path": place.file, "public_key": ""}
        if text is None and not self._task.check_mode:
            _identity.make(
                place, options["comment"], lambda new: _key_store.vaulted(new, options["vault_id"], self._loader)
            )
            text = _identity.read(place, self._loader)
        return result | ({} if text is None else {"public_key": _identity.public(text, place)})
