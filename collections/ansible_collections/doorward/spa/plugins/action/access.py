# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.access: one stanza of a host, beside those that the role writes."""

from __future__ import annotations

import re

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.doorward.spa.plugins.action.change import ActionModule as ChangeAction
from ansible_collections.doorward.spa.plugins.plugin_utils import (
    _host_access,
    _host_stanza,
    _revocations,
    _stanza_text,
)
from ansible_collections.doorward.spa.plugins.plugin_utils._access_action import AccessAction

OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "public_key": {"type": "str"},
    "psk": {"type": "str", "no_log": True},
    "one_time_code": {"type": "str", "no_log": True},
    "key": {"type": "str", "no_log": True},
    "services": {"type": "list", "elements": "str", "aliases": ["open_ports"]},
    "window": {"type": "int", "default": 30, "aliases": ["timeout"]},
    "max_window": {"type": "int"},
    "expires": {"type": "str"},
    "sources": {"type": "list", "elements": "str"},
    "require_source": {"type": "bool", "default": True},
    "max_prefix4": {"type": "int"},
    "max_prefix6": {"type": "int"},
    "session_max": {"type": "int"},
    "keep_while_used": {"type": "bool", "default": False},
    "forward_to": {"type": "str"},
    "nat_targets": {"type": "list", "elements": "str"},
    "commands": {"type": "dict"},
    "command_user": {"type": "str"},
    "command_group": {"type": "str"},
    "folder": {"type": "path", "default": "~/.config/doorward/keys"},
    "deadline": {"type": "int"},
}
_OF_THE_TASK = ("state", "folder", "deadline")  # which say nothing of the stanza
_DAEMON = "/usr/sbin/doorwardd"
_NO_PROBLEM = re.compile(r"warning: |(?:Shared c|C)onnection to \S+ closed")  # the latter is ssh's


class ActionModule(AccessAction):
    """The action `doorward.spa.access`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Compare with the stanza that is there; then write it, prove the way in and keep it."""
        super(ChangeAction, self).run(tmp, task_vars)
        self._note_python(task_vars)
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS)
        stanza = {option: value for option, value in options.items() if option in OPTIONS}
        stanza = {option: value for option, value in stanza.items() if option not in _OF_THE_TASK}
        try:
            if options["state"] == "absent":
                return self._made(options, "")
            self._refuse_what_is_wrong(stanza)
            self._refuse_the_revoked(options["folder"], stanza, (task_vars or {}).get("inventory_hostname", ""))
            if stanza["services"] is None:
                stanza["services"] = [f"tcp/{self._peer().port}"]
            return self._made(options, _stanza_text.text(stanza))
        except AnsibleConnectionFailure as error:
            msg = f"the connection was lost while the stanza was changed, and nothing more is known: {error}"
            raise AnsibleActionFail(msg) from error

    def _refuse_what_is_wrong(self, stanza: dict) -> None:
        wrong = list(_stanza_text.problems(stanza))
        if wrong:
            msg = f"nothing was changed: {'; '.join(wrong)}"
            raise AnsibleActionFail(msg)

    def _refuse_the_revoked(self, folder: str, stanza: dict, host: str) -> None:
        """Fail where a key was revoked, or a name is to be taken out of this host."""
        key = _stanza_text.key(stanza)
        gone = [one.name for one in _revocations.read(folder) if one.accepts(host, stanza["name"], key)]
        if gone:
            msg = (
                f"nothing was changed: {gone[0]} is revoked, as .revoked.json in {folder} says. Give the client a new "
                "key; where this host has not done its part yet, run doorward.spa.revoke first"
            )
            raise AnsibleActionFail(msg)

    def _made(self, options: dict, text: str) -> dict:
        """Put the stanza into force, or none for an empty text."""
        file = _host_stanza.file(options["name"])
        wanted = self._sent(text) if text else ""
        found = self._stanza(_host_access.FOLDER, options["name"], wanted)
        diff = {"before": found.before, "after": found.after, "before_header": file, "after_header": file}
        result = {"changed": found.changed, "path": file, "diff": diff}
        self._refuse_another_place(options["name"], found)
        if not found.changed:
            return result
        staged = self._stage()["folder"]
        try:
            self._stanza(f"{staged}/new{_host_access.FOLDER}", options["name"], wanted, _host_stanza.WRITE)
            self._refuse_what_the_daemon_refuses(staged)
        except AnsibleActionFail:
            self._on_host("rm", "-rf", staged)
            raise
        if self._task.check_mode:
            self._on_host("rm", "-rf", staged)
            return result
        if text:  # with names of clients in it, which are for root alone
            self._on_host("mkdir", "-p", "-m", "0700", f"{_host_access.FOLDER}/{_host_access.MORE}")
        return result | self._apply(staged, self._python, self._deadline(options["deadline"]))

    def _sent(self, text: str) -> str:
        """Put the stanza into the task's temporary folder on the host, so that no argument shows a secret."""
        self._make_tmp_path()
        shell = self._connection._shell  # noqa: SLF001  every action plugin of ansible-core does so
        path = shell.join_path(shell.tmpdir, "stanza.conf")
        self._transfer_data(path, text)
        return path

    def _stanza(self, folder: str, *words: str) -> _host_stanza.Found:
        """Compare the stanza with that of a folder, or write it there."""
        try:
            return _host_stanza.read(self._on_host(*_host_stanza.words(folder, *words)).text)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error

    def _refuse_another_place(self, name: str, found: _host_stanza.Found) -> None:
        """Fail where the host does not read the file, or has a stanza of this name that somebody else has written."""
        msg = ""
        if found.elsewhere:
            msg = f"the host reads its stanzas from {', '.join(found.elsewhere)}, as its doorwardd.conf says"
        elif found.lacks:
            msg = "the host has no access.conf yet: roll out first"
        elif found.others:
            msg = (
                f"{', '.join(found.others)} has a stanza of {name}, which somebody else has written: take it out there "
                "(the role writes those of doorward_clients), or choose another name"
            )
        if msg:
            msg = f"nothing was changed: {msg}"
            raise AnsibleActionFail(msg)

    def _refuse_what_the_daemon_refuses(self, staged: str) -> None:
        """Fail with the file and line of each problem that the host's own doorwardd has with the staged files."""
        home = f"{staged}/new{_host_access.FOLDER}"
        outcome = self._on_host(_DAEMON, "check", "-c", f"{home}/doorwardd.conf", "-a", f"{home}/access.conf")
        if not outcome.code:
            return
        lines = [line for line in outcome.text.splitlines() if line.strip() and not _NO_PROBLEM.match(line)]
        shown = "; ".join(lines).replace(f"{staged}/new", "")
        msg = f"doorwardd on the host refuses the stanza, and nothing was changed: {shown[-1500:]}"
        raise AnsibleActionFail(msg)
