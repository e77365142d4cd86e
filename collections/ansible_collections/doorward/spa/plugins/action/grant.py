# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.grant: opens services of a host without a knock, or closes what is open."""

from __future__ import annotations

import re

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.plugin_utils import _grants, _values
from ansible_collections.doorward.spa.plugins.plugin_utils._host_action import HostAction

_OPTIONS = {
    "source": {"type": "str", "required": True},
    "services": {"type": "list", "elements": "str"},
    "window": {"type": "int"},
    "renew_below": {"type": "int"},
    "sessions": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["opened", "closed"], "default": "opened"},
}


class ActionModule(HostAction):
    """The action `doorward.spa.grant`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Compare with the live grants; then open or close."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        try:
            whose = _grants.source(options["source"])
        except ValueError as error:
            msg = f"source: {error}; it is an address, or any for everybody"
            raise AnsibleActionFail(msg) from error
        found = {"source": whose}
        if options["state"] == "closed":
            return found | self._closed(whose, sessions=options["sessions"])
        if not options["window"] or options["window"] < 1:
            msg = "window: the seconds are missing for which it is to be open"
            raise AnsibleActionFail(msg)
        if options["sessions"]:
            msg = "sessions: only state=closed ends them"
            raise AnsibleActionFail(msg)
        return found | self._opened(whose, self._services(options["services"]), options)

    def _services(self, named: list[str] | None) -> list[str]:
        """Return the services to open; by default that of sshd."""
        wrong = [cause for service in named or () for cause in _values.service(service)]
        if wrong:
            msg = f"services: {'; '.join(wrong)}"
            raise AnsibleActionFail(msg)
        return list(dict.fromkeys(named)) if named else [f"tcp/{self._peer().port}"]

    def _opened(self, whose: str, services: list[str], options: dict) -> dict:
        window, below = options["window"], options["renew_below"]
        least = window / 2 if below is None else below
        missing = _grants.lacking(self._doorward_status()["grants"], whose, services, least)
        if missing and not self._task.check_mode:
            place = () if whose == _grants.ANYONE else ("--from", whose)
            self._do("open", *missing, *place, "--for", f"{window}s")
        return {"changed": bool(missing), "services": services, "opened": missing}

    def _closed(self, whose: str, *, sessions: bool) -> dict:
        if sessions:
            self._refuse_own_session(whose)
        found = _grants.held(self._doorward_status()["grants"], whose)
        closing = bool(found)
        if (found or sessions) and not self._task.check_mode:
            place = () if whose == _grants.ANYONE else ("--from", whose)
            said = self._do("close", *place, *(("--sessions",) if sessions else ()))
            closing = closing or bool(re.search(r"; ended: [1-9]", said))
        return {"changed": closing, "closed": found}

    def _refuse_own_session(self, whose: str) -> None:
        """Fail where the sessions that would be ended are those of this very task."""
        if hasattr(self._connection, "spa_service") and whose in {_grants.ANYONE, self._peer().source}:
            msg = (
                f"sessions: those of {whose} are this controller's own, and the task would end itself: name another "
                "source, or leave sessions out. Nothing was changed"
            )
            raise AnsibleActionFail(msg)

    def _do(self, *words: str) -> str:
        """Run a command on the host and return what it says."""
        outcome = self._doorward(*words)
        if outcome.code:
            msg = f"`doorward {' '.join(words)}` on the host ended with {outcome.code}: {outcome.text[-800:]}"
            raise AnsibleActionFail(msg)
        return outcome.text
