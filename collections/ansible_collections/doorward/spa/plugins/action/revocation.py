# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.revocation: what the controller remembers of a revoked client."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.plugin_utils import _identity, _key_store, _key_text, _revocations
from ansible_collections.doorward.spa.plugins.plugin_utils._fleet_action import FleetAction, all_hosts, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPTIONS = {
    "state": {"type": "str", "choices": ["noted", "reported"], "required": True},
    "client": {"type": "str", "default": ""},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "controller": {"type": "str", "default": "controller"},
    "private_key_file": {"type": "path", "default": "~/.config/doorward/client.key"},
    "private_key_command": {"type": "raw"},
    "folder": {"type": "path", "default": "~/.config/doorward/keys"},
}


class ActionModule(FleetAction):
    """The action `doorward.spa.revocation`."""

    _play = "revoke"

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Note a client before any host is changed; or say at the end where it is not revoked, and fail there."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        self._know(task_vars)
        if options["state"] == "reported":
            return self._reported(options)
        if not options["client"]:
            return {"changed": False}
        return self._noted(options)

    def _noted(self, options: dict) -> dict:
        name, folder = options["client"], options["folder"]
        place = _identity.Place.of(options["private_key_file"], options["private_key_command"])
        own = _identity.read(place, self._loader)
        mine = " ".join(_identity.public(own, place).split()[:2]) if own else ""
        if name == options["controller"]:
            msg = (
                f"{name} is this controller: a run that revokes it would lock itself out. Use doorward.spa.rotate_keys"
            )
            raise AnsibleActionFail(msg)
        hosts = all_hosts(options)
        keys = {key for host in hosts for key in self._keys(folder, host, name)}
        if mine in keys:
            msg = f"the key of {name} is that of this controller's own pair, so it cannot be revoked from here"
            raise AnsibleActionFail(msg)
        if self._task.check_mode:
            return {"changed": True}
        before = _revocations.read(folder)
        _revocations.note(folder, name, moment(), keys, hosts)
        return {"changed": before != _revocations.read(folder)}

    def _keys(self, folder: str, host: str, name: str) -> Iterator[str]:
        """Yield the keys of a client for a host that inventory and controller have."""
        known = self._variables[host] if host in self._variables else {}  # noqa: SIM401  .get gives an undefined value
        for entry in known.get("doorward_clients") or ():
            with contextlib.suppress(AttributeError, _key_text.KeyTextError):
                if entry.get("name") == name and entry.get("public_key"):
                    yield " ".join(_key_text.public(entry["public_key"]).split()[:2])
        text = _key_store.read(_key_store.path(folder, host, name), self._loader)
        if text is not None:
            yield _key_text.fingerprint(text)

    def _reported(self, options: dict) -> dict:
        """Say for each revoked client where it is gone, and where not."""
        revoked = [each for each in _revocations.read(options["folder"]) if options["client"] in {"", each.name}]
        unknown = [each.name for each in revoked if not each.keys and not self._was_found(options["hosts"])]
        if unknown and options["client"]:
            msg = f"no host that was reached knows {options['client']}, and no key of that name is known here: a typo?"
            _revocations.forget(options["folder"], options["client"])
            raise AnsibleActionFail(msg)
        lines = [self._line(each, options["hosts"]) for each in revoked]
        self._display.display("".join(f"\n{line}" for line in lines) + "\n")
        failed = any(each.waiting for each in revoked)
        return {"changed": False, "failed": failed, "msg": lines, "waiting": sorted(_waiting(revoked))}

    def _line(self, each: _revocations.Revoked, hosts: list[str]) -> str:
        """Return one line about a client, with every host that may still accept it."""
        if not each.waiting:
            return f"{each.name}: revoked on every host"
        left = ", ".join(f"{host} ({self._why_not(host, hosts)})" for host in sorted(each.waiting))
        return f"{each.name}: NOT REVOKED on {left}. Run doorward.spa.revoke again when they can be reached"

    def _was_found(self, hosts: list[str]) -> bool:
        return any(self._registered(host, "done").get("changed") for host in hosts if host in self._variables)


def _waiting(revoked: list[_revocations.Revoked]) -> set[str]:
    return {host for each in revoked for host in each.waiting}
