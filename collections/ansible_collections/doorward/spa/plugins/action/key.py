# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.key: keys and enrolment marks on the controller, and the stanzas of a host."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.plugin_utils import _identity, _key_store, _key_text, _stanzas
from ansible_collections.doorward.spa.plugins.plugin_utils._local_action import LocalAction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_OPTIONS = {
    "host": {"type": "str", "required": True},
    "clients": {"type": "list", "elements": "raw", "default": ["controller"]},
    "format": {"type": "str", "choices": ["doorward1", "fwknop"], "default": "doorward1"},
    "controller": {"type": "str", "default": "controller"},
    "host_key": {"type": "str", "default": ""},
    "private_key_file": {"type": "path", "default": "~/.config/doorward/client.key"},
    "private_key_command": {"type": "raw"},
    "folder": {"type": "path", "default": "~/.config/doorward/keys"},
    "vault_id": {"type": "str", "default": ""},
    "host_mark": {"type": "str", "default": ""},
    "reenroll": {"type": "bool", "default": False},
    "enrolled": {"type": "bool"},
}


class ActionModule(LocalAction):
    """The action `doorward.spa.key`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Check the enrolment, then make what is missing."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        folder = _key_store.path(options["folder"], options["host"], "any").parent
        self._check_enrolment(folder, options)
        try:
            clients = [_stanzas.client(each, options["format"]) for each in options["clients"]]
            stanzas = self._stanzas(clients, options)
        except (_stanzas.ClientError, _key_text.KeyTextError) as error:
            msg = f"{options['host']}: {error}. Nothing was changed"
            raise AnsibleActionFail(msg) from error
        made, fingerprints = list(self._made), {}
        for name in dict.fromkeys(stanza.name for stanza in stanzas if stanza.format == "fwknop"):
            file = _key_store.path(options["folder"], options["host"], name)
            if self._make(file, options["vault_id"]):
                made.append(name)
            self._fingerprint(file, name, fingerprints)
        mark = _key_store.enrolment(folder, make=not self._task.check_mode) or ""
        return {
            "changed": bool(made) or self._note_enrolled(folder, enrolled=options["enrolled"]),
            "made": made,
            "fingerprints": fingerprints,
            "enrolment": mark,
            "stanzas": [stanza._asdict() for stanza in stanzas],
            "moving": any(stanza.leaves for stanza in stanzas),
        }

    def _stanzas(self, clients: Sequence[_stanzas.Client], options: dict) -> list[_stanzas.Stanza]:
        """Return the stanzas that the host is to have; the controller's own pair is made where one needs it."""
        self._made: list[str] = []
        file = _key_store.path(options["folder"], options["host"], options["controller"])
        now = "doorward1" if options["host_key"] else "fwknop" if file.exists() else ""
        planned = _stanzas.planned(clients, options["controller"], now)
        own = ""
        if any(stanza.is_own and stanza.format == "doorward1" for stanza in planned):
            own = self._own_public_key(options)
        return [_stanzas.with_public_key(stanza, own) for stanza in planned]

    def _own_public_key(self, options: dict) -> str:
        """Return the public half of the controller's pair, made on demand; empty where check mode would make it."""
        place = _identity.Place.of(options["private_key_file"], options["private_key_command"])
        text = _identity.read(place, self._loader)
        if text is None:
            self._made.append(place.file)
            if self._task.check_mode:
                return ""
            _identity.make(place, options["controller"], lambda text: self._vaulted(text, options["vault_id"]))
            text = _identity.read(place, self._loader) or ""
        return _identity.public(text, place)

    def _check_enrolment(self, folder: Path, options: dict) -> None:
        """Fail where the host is not the one whose keys these are.

        The mark is made with the first key and put on the host last, so an interrupted roll-out is no reinstallation.
        """
        ours, theirs = _key_store.enrolment(folder, make=False), options["host_mark"].strip()
        if options["reenroll"] or theirs == (ours or ""):
            return
        other = _key_store.named(folder.parent, theirs) if theirs else ""
        if other:
            msg = (
                f"{options['host']} is the host that was enrolled as {other}: its keys have that name. Nothing was "
                f"changed. Use {other}, and for connections by this name set ansible_spa_key: "
                f"\"{{{{ lookup('doorward.spa.key', '{other}') }}}}\""
            )
            raise AnsibleActionFail(msg)
        if theirs:
            story = "bears the mark of another controller, or of keys that this controller has lost"
        elif _key_store.enrolled(folder):
            story = "was enrolled by this controller and bears no mark any more: it was reinstalled or replaced"
        else:
            return
        msg = (
            f"{options['host']} {story}. Nothing was changed. Make sure that it is the host you mean, then enrol it "
            "again with doorward_reenroll: true for this host"
        )
        raise AnsibleActionFail(msg)

    def _note_enrolled(self, folder: Path, *, enrolled: bool | None) -> bool:
        """Remember or forget that the host bears its mark; None leaves it as it is."""
        if enrolled is None or enrolled == _key_store.enrolled(folder):
            return False
        if not self._task.check_mode:
            (_key_store.mark_enrolled if enrolled else _key_store.forget_enrolled)(folder)
        return True

    def _make(self, file: Path, vault_id: str) -> bool:
        """Make a key unless there is one; tell whether one was made, or would be in check mode."""
        if file.exists():
            return False
        if self._task.check_mode:
            return True
        text = _key_text.render(secrets.token_bytes(_key_text.KEY_BYTES), secrets.token_bytes(_key_text.HMAC_BYTES))
        return _key_store.create(file, self._vaulted(text, vault_id))

    def _fingerprint(self, file: Path, client: str, fingerprints: dict[str, str]) -> None:
        text = _key_store.read(file, self._loader)
        if text is None:
            return
        try:
            fingerprints[client] = _key_text.fingerprint(text)
        except _key_text.KeyTextError as error:
            msg = f"{file}: {error}"
            raise AnsibleActionFail(msg) from error

    def _vaulted(self, text: str, vault_id: str) -> str:
        return _key_store.vaulted(text, vault_id, self._loader)
