# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.rotate: a host accepts our new pair beside the old one, proven by a knock."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.doorward.spa.plugins.action.change import ActionModule as ChangeAction
from ansible_collections.doorward.spa.plugins.plugin_utils import _host_access, _identity, _key_text
from ansible_collections.doorward.spa.plugins.plugin_utils._access_action import AccessAction

_OPTIONS = {
    "old": {"type": "str", "required": True},
    "new": {"type": "str", "required": True},
    "new_file": {"type": "path", "required": True},
    "psk": {"type": "str", "default": "", "no_log": True},
    "deadline": {"type": "int"},
}


class ActionModule(AccessAction):
    """The action `doorward.spa.rotate`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Add the new key where the old one stands, and knock with it."""
        super(ChangeAction, self).run(tmp, task_vars)
        self._note_python(task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        if not getattr(self._connection, "knocks", False) or not self._connection.spa_host_key():
            return {"changed": False, "accepted": False, "symmetric": True}
        try:
            return self._rotated(options)
        except AnsibleConnectionFailure as error:
            msg = f"the connection was lost while the new key was added; the old one is in force: {error}"
            raise AnsibleActionFail(msg) from error

    def _rotated(self, options: dict) -> dict:
        known = {each.key for each in self._access().clients}
        result = {"changed": options["new"] not in known, "accepted": True, "symmetric": False}
        if not known & {options["old"], options["new"]}:
            msg = "access.conf has neither the old nor the new public key of this controller: roll out first"
            raise AnsibleActionFail(msg)
        if self._task.check_mode:
            return result
        if result["changed"]:
            self._edit(options["deadline"], _host_access.NEW_KEY, options["old"], options["new"])
        file = _identity.at_hand(_identity.Place.of(options["new_file"], None), self._loader)
        text = _key_text.of_public(self._connection.spa_host_key(), file, options["psk"].strip())
        if not self._opens(self._arguments(text), [self._connection.spa_service()]):
            msg = "a knock with the new key opens nothing; the old key is in force, here and on every other host"
            raise AnsibleActionFail(msg)
        return result
