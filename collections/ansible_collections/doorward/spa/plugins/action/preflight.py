# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.preflight: refuses a host or an inventory before anything is changed."""

from __future__ import annotations

import functools
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.doorward.spa.plugins.plugin_utils import _host_facts, _values
from ansible_collections.doorward.spa.plugins.plugin_utils._host_action import HostAction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.doorward.spa.plugins.plugin_utils._values import Problem

_OPTIONS = {"stage": {"type": "str", "choices": ["daemon", "firewall"], "required": True}}
_COLLECTION = Path(__file__).resolve().parents[2]
_NAME = re.compile(rf"\b{_values.PREFIX}[a-z0-9_]+")
_OF_THE_HOST = (
    "doorward_firewall_mode",
    "doorward_synchronised_clock",
    "doorward_daemon_foreign_firewall",
    "doorward_controller",
)
_OTHERS = frozenset({"doorward_bare"})  # set by the roles themselves


class ActionModule(HostAction):
    """The action `doorward.spa.preflight`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Check the values of variables, then ask the host; fail with everything that is wrong."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        variables = self._variables(task_vars or {})
        wrong = list(_values.problems(variables, known()))
        self._refuse(options["stage"], wrong)
        wanted = _wanted(variables)
        before = time.time()
        outcome = self._on_host("sh", "-c", _host_facts.SCRIPT, "sh", wanted.python)
        host = _host_facts.Host.of(outcome.text)
        if not host.first("end"):
            msg = f"the host cannot be asked what it has, and nothing was changed: {outcome.text[-800:]}"
            raise AnsibleActionFail(msg)
        wrong = [*_host_facts.problems(host, wanted, before, time.time()), *self._asked(host, variables)]
        self._refuse(options["stage"], wrong)
        result = {"changed": False, "family": host.family, "python": wanted.python}
        said = list(_host_facts.warnings(host, wanted)) if options["stage"] == "daemon" else []
        return result | ({"warnings": said} if said else {})

    def _variables(self, task_vars: dict) -> dict[str, object]:
        """Return the variables of doorward; only those that are checked have their templates filled in."""
        named = {name: None for name in task_vars if name.startswith(_values.PREFIX)}
        read = [name for name in (*_values.CHECKED, *_OF_THE_HOST) if name in task_vars]
        return named | {name: self._templar.template(task_vars[name]) for name in read}

    def _asked(self, host: _host_facts.Host, variables: dict) -> Iterator[Problem]:
        """Yield where this connection's knock asks for a port that is neither sshd's nor the one that is dialled."""
        port, connection = host.first("port"), self._connection
        option = connection.get_option
        if not port or not hasattr(connection, "spa_service") or option("spa_host") or option("spa_nat"):
            return  # no knock, or one at another host, whose services are not this one's
        asked, dialled = connection.spa_service(), f"tcp/{connection.spa_dialled().port}"
        granted = _granted(variables, has_profile=bool(option("spa_profile"))) or [f"tcp/{port}"]
        if asked not in {dialled, f"tcp/{port}"}:
            cause = f"this controller's knock asks for {asked}, and sshd answers at tcp/{port}, dialled as {dialled}"
            yield _values.Problem("ansible_spa_service", cause)
        elif asked not in granted:
            yield _values.Problem(
                "doorward_services",
                f"this controller's knock asks for {asked}, which is not among {', '.join(granted)}: name it there, or "
                "set ansible_spa_service where the host sees another port than the one that is dialled",
            )

    def _refuse(self, stage: str, wrong: list[Problem]) -> None:
        """Fail with everything that is wrong, a sentence each.

        Raises:
            AnsibleActionFail: there is something.
        """
        if wrong:
            sentences = " ".join(f"{variable}: {cause.rstrip('.')}." for variable, cause in wrong)
            msg = f"{sentences} (Stage: preflight of the role {stage}; nothing was changed.)"
            raise AnsibleActionFail(msg)


@functools.cache
def known() -> frozenset[str]:
    """Return the names of all variables that the roles and playbooks read."""
    files = (*_COLLECTION.glob("roles/*/meta/argument_specs.yml"), *_COLLECTION.glob("playbooks/*.yml"))
    return _OTHERS.union(*(_NAME.findall(file.read_text(encoding="utf-8")) for file in files))


def _wanted(variables: dict) -> _host_facts.Wanted:
    return _host_facts.Wanted(
        python=str(variables.get("doorward_python") or _host_facts.PYTHON),
        max_age=int(variables.get("doorward_max_age") or 120),
        interfaces=variables.get("doorward_interfaces") or (),
        mode=str(variables.get("doorward_firewall_mode") or "drop"),
        synchronised=boolean(variables.get("doorward_synchronised_clock", True)),
        names_foreign=variables.get("doorward_daemon_foreign_firewall") != "admit",
    )


def _granted(variables: dict, *, has_profile: bool) -> list[str]:
    """Return the services that this controller may ask for; empty means sshd's. A profile may be another client's."""
    clients = () if has_profile else variables.get("doorward_clients") or ()
    name = variables.get("doorward_controller") or "controller"
    own = [client.get("services") for client in clients if client.get("name") == name]
    return next(filter(None, [*own, variables.get("doorward_services")]), [])
