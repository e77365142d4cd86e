# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.rotation: this controller's new pair, and the moment from which it is the one in use."""

from __future__ import annotations

from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.plugin_utils import _identity, _key_store, _revocations
from ansible_collections.doorward.spa.plugins.plugin_utils._fleet_action import FleetAction, all_hosts, moment

_OPTIONS = {
    "state": {"type": "str", "choices": ["begun", "switched"], "required": True},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "controller": {"type": "str", "default": "controller"},
    "private_key_file": {"type": "path", "default": "~/.config/doorward/client.key"},
    "private_key_command": {"type": "raw"},
    "vault_id": {"type": "str", "default": ""},
    "folder": {"type": "path", "default": "~/.config/doorward/keys"},
}


class ActionModule(FleetAction):
    """The action `doorward.spa.rotation`."""

    _play = "rotate"

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Make the new pair beside the old one; or put it in its place, once every host accepts it."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        self._know(task_vars)
        place = _identity.Place.of(options["private_key_file"], options["private_key_command"])
        if place.command:
            msg = f"this controller's pair is {place.words}: change it there, as docs/public-keys.md says"
            raise AnsibleActionFail(msg)
        if options["state"] == "begun":
            return self._begun(place, options)
        return self._switched(place, options)

    def _begun(self, place: _identity.Place, options: dict) -> dict:
        """Return both public keys; the new one is empty where only the end of the last rotation is left to do."""
        new = _identity.Place(f"{place.file}.new")
        result = {"old": self._public(place), "new": "", "new_file": new.file, "changed": False}
        if not Path(new.file).exists():
            if _unfinished(options):
                return result
            if self._task.check_mode:
                return result | {"changed": True}
            _identity.make(new, options["controller"], lambda text: self._vaulted(text, options["vault_id"]))
            result["changed"] = True
        return result | {"new": self._public(new)}

    def _switched(self, place: _identity.Place, options: dict) -> dict:
        """Use the new pair from now on, and note the old one as revoked on every host."""
        new = Path(f"{place.file}.new")
        if not new.exists():  # it is in its place already
            return {"changed": False}
        hosts = all_hosts(options)
        lacking = {host: why for host in hosts if (why := self._lacks(host, options["hosts"]))}
        if lacking:
            names = ", ".join(f"{host} ({why})" for host, why in lacking.items())
            msg = (
                f"the new key is not accepted everywhere: {names}. Every host accepts the old one, which stays in use. "
                "Run doorward.spa.rotate_keys again when they can be reached; it goes on from here"
            )
            raise AnsibleActionFail(msg)
        if self._task.check_mode:
            return {"changed": True}
        old, now = self._public(place), moment()
        _revocations.note(options["folder"], f"{_until(options)}{now}", now, [old], hosts)
        file = Path(place.file)
        kept = file.with_name(f"{file.name}.old")
        kept.unlink(missing_ok=True)
        kept.hardlink_to(file)
        new.replace(file)
        _identity.forget(place)
        return {"changed": True}

    def _public(self, place: _identity.Place) -> str:
        text = _identity.read(place, self._loader)
        if text is None:
            msg = f"there is no {place.file}: this controller has no pair to be replaced. Roll out first"
            raise AnsibleActionFail(msg)
        return " ".join(_identity.public(text, place).split()[:2])

    def _vaulted(self, text: str, vault_id: str) -> str:
        return _key_store.vaulted(text, vault_id, self._loader)

    def _lacks(self, host: str, hosts: list[str]) -> str:
        """Return why a host is not known to accept the new key; empty where it does, or knows none of ours."""
        done = self._registered(host, "done") if host in hosts and host in self._variables else {}
        return "" if done.get("accepted") or done.get("symmetric") else self._why_not(host, hosts)


def _until(options: dict) -> str:
    """Return how the names of replaced pairs begin, among the revoked clients."""
    return f"{options['controller']}:until-"


def _unfinished(options: dict) -> bool:
    """Tell whether the pair before the one in use is still accepted somewhere."""
    return any(each.waiting and each.name.startswith(_until(options)) for each in _revocations.read(options["folder"]))
