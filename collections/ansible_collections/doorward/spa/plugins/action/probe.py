# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.probe: how a port looks from the host that the task runs on."""

from __future__ import annotations

from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.plugin_utils import _silence
from ansible_collections.doorward.spa.plugins.plugin_utils._host_action import HostAction
from ansible_collections.doorward.spa.plugins.plugin_utils._printed import object_in

_OPTIONS = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
}
_MAIN = """

import json, sys
found = probe(sys.argv[1], int(sys.argv[2]))
family, _kind, _protocol, _name, place = socket.getaddrinfo(sys.argv[1], 9, type=socket.SOCK_DGRAM)[0]
with socket.socket(family, socket.SOCK_DGRAM) as towards:
    towards.connect(place)
    source = towards.getsockname()[0]
said = {"source": source, "against": broken(found), "is_open": is_open(found), "words": "; ".join(map(str, found))}
print(json.dumps(said))
"""


class ActionModule(HostAction):
    """The action `doorward.spa.probe`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Dial once from there."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        script = Path(_silence.__file__).read_text(encoding="utf-8") + _MAIN
        words = ("python3", "-I", "-c", script, options["host"], str(options["port"]))
        outcome = self._on_host(*words, become=False)
        try:
            found = {} if outcome.code else object_in(outcome.text)
        except ValueError:
            found = {}
        if not found:
            msg = f"the port cannot be looked at from there: {outcome.text[-500:]}"
            raise AnsibleActionFail(msg)
        return {
            "changed": False,
            "source": found["source"],
            "silent": not found["against"],
            "open": found["is_open"],
            "words": found["words"],
        }
