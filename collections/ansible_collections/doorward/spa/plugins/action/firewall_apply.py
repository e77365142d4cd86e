# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.firewall_apply: a new table under a dead man's switch."""

from __future__ import annotations

import ipaddress
import time

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.utils.display import Display
from ansible_collections.doorward.spa.plugins.plugin_utils import _inherited, _knocking, _silence
from ansible_collections.doorward.spa.plugins.plugin_utils._listing import without_grants
from ansible_collections.doorward.spa.plugins.plugin_utils._way_in import AFTER, COMES_BACK, MARGIN, WayInAction

_OPTIONS = {
    "content": {"type": "str", "required": True},
    "deadline": {"type": "int"},
    "expect_closed": {"type": "bool", "default": True},
    "let_in": {"type": "list", "elements": "str", "default": []},
    "force": {"type": "bool", "default": False},
}
_PERSISTED = "/etc/doorward/firewall.nft"
_LOOKS = 4  # at the open port, a knock between two
_CUT = "--doorward--"
# Lists a file's table as the kernel would, without touching the host's: loaded into an empty network namespace.
_LIST = "nft -s list table inet doorward"
_COMPARE = f"""
shown() {{ [ -e "$1" ] && unshare -n sh -c 'nft -f "$1" && {_LIST}' sh "$1" 2>&1; echo "{_CUT}$?"; }}
shown "$1"
shown {_PERSISTED}
{_LIST} 2>/dev/null
echo "{_CUT}$?"
"""


class ActionModule(WayInAction):
    """The action `doorward.spa.firewall_apply`."""

    TRANSFERS_FILES = True

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Compare; then arm, swap, confirm, and persist."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        if not self._task.check_mode:
            self._wait_for_what_is_pending()
        file = self._send_table(options["content"])
        wanted, persisted, live = self._tables(file)
        if wanted == persisted == live and not options["force"]:
            return {"changed": False, "stage": "unchanged"}
        result = {"changed": True, "diff": {"before": live, "after": wanted, "before_header": "table in force"}}
        if self._task.check_mode:
            return result | {"stage": "checked"}
        self._refuse_a_connection_that_cannot_confirm()
        deadline = self._deadline(options["deadline"])
        silent = options["expect_closed"] and not self._is_let_in(options["let_in"])
        if silent:
            self._require_an_answer()
        return result | {"deadline": deadline} | self._close(file, deadline, expect_closed=silent)

    def _wait_for_what_is_pending(self) -> None:
        """Wait for the rollback of a change that an earlier run did not confirm; it happens at its own moment."""
        status = self._doorward_status()
        give_up = time.monotonic() + status.get("pending_seconds", 0) + COMES_BACK
        if status["pending"]:
            host, left = self._connection.get_option("host"), status.get("pending_seconds", 0)
            Display().display(f"{host}: takes an earlier change back in {left} s, since nobody confirmed it: waiting")
        while status["pending"]:
            if time.monotonic() > give_up:
                msg = "an earlier change was neither confirmed nor taken back: journalctl -u doorward-fw-rollback"
                raise AnsibleActionFail(msg)
            time.sleep(max(1, min(10, status.get("pending_seconds", 0))))
            status = self._doorward_status()

    def _send_table(self, content: str) -> str:
        """Put the table into the task's temporary folder on the host and return its path there."""
        self._make_tmp_path()
        shell = self._connection._shell  # noqa: SLF001  every action plugin of ansible-core does so
        path = shell.join_path(shell.tmpdir, "firewall.nft")
        self._transfer_data(path, content if content.endswith("\n") else f"{content}\n")
        return path

    def _tables(self, file: str) -> tuple[str, str, str]:
        """Return the wanted, the persisted and the live table as the kernel lists them; empty where there is none."""
        outcome = self._on_host("sh", "-c", _COMPARE, "sh", file)
        parts = outcome.text.split(_CUT)
        if len(parts) != 4:  # noqa: PLR2004  three listings and what follows the last mark
            msg = f"the firewall tables cannot be compared: {outcome.text[-800:]}"
            raise AnsibleActionFail(msg)
        codes = [part.partition("\n")[0].strip() for part in parts[1:]]
        texts = [parts[0], *(part.partition("\n")[2] for part in parts[1:3])]
        if codes[0] != "0":
            msg = f"the kernel refuses the new table, and nothing was changed: {texts[0].strip()[-800:]}"
            raise AnsibleActionFail(msg)
        wanted, persisted, live = (
            without_grants(f"{text.strip()}\n") if code == "0" else "" for text, code in zip(texts, codes, strict=True)
        )
        return wanted, persisted, live

    def _refuse_a_connection_that_cannot_confirm(self) -> None:
        if not getattr(self._connection, "knocks", False):
            msg = (
                "this host's connection does not knock, so it could not get back in: set ansible_connection: "
                "doorward.spa.ssh and a key for this host. Nothing was changed"
            )
            raise AnsibleActionFail(msg)

    def _is_let_in(self, networks: list[str]) -> bool:
        """Tell whether the new table lets this controller in without a knock."""
        source = ipaddress.ip_address(self._peer().source)
        return any(source in ipaddress.ip_network(network, strict=False) for network in networks)

    def _close(self, file: str, deadline: int, *, expect_closed: bool) -> dict:
        """Arm and swap, then confirm; on failure wait until the host is open again, and say how far it came."""
        armed = time.monotonic()
        token = self._doorward_json("firewall", "apply", file, "--deadline", str(deadline))["token"]
        stage = "closed"
        try:
            self._inherit()
            self._close_own_grants()  # without a shared connection each of these commands has made one
            with self._no_shared_connection():
                if expect_closed:
                    self._require_silence()
                stage = "confirm"
                self._confirm(("firewall", "confirm", token), armed + deadline - MARGIN)
        except AnsibleError as error:
            aftermath = self._once_back(armed + deadline + AFTER, self._aftermath)
            msg = f"the new table was not confirmed (stage {stage}): {error}. {aftermath}"
            return {"failed": True, "stage": stage, "msg": msg}
        return {"stage": "confirmed"}

    def _inherit(self) -> None:
        """Let in what belongs to older connections, this one among them. Their packets meanwhile are sent again."""
        commands = _inherited.elements(self._on_host(*_inherited.LIST).text)
        if commands:
            self._on_host("nft", commands)  # a table of another's making may have no such sets

    def _require_an_answer(self) -> None:
        """Fail where the probe does not see the port while it is open: its silence would prove nothing later."""
        if self._connection.jumps:
            return  # whose own probe tells silence from a failure
        for _look in range(_LOOKS):
            probes = self._probes()
            if _silence.is_open(probes):
                return
            _knocking.send(_knocking.command(self._connection, [self._connection.spa_service()]))
        msg = (
            "this controller does not reach the port that ssh dials while it is open, so its silence would prove "
            f"nothing: {'; '.join(map(str, probes))}. Nothing was changed"
        )
        raise AnsibleActionFail(msg)

    def _require_silence(self) -> None:
        """Fail when the host still answers one who has not knocked, or cannot be asked; sshd is met only if open."""
        if self._connection.jumps:
            if not self._connection.spa_is_silent_behind_the_jump():
                msg = f"{self._connection.get_option('host')} still answers its jump host without a knock"
                raise AnsibleActionFail(msg)
            return
        against = _silence.broken(self._probes())
        if against:
            msg = f"the host is not silent without a knock: {against}"
            raise AnsibleActionFail(msg)

    def _probes(self) -> list[_silence.Probe]:
        dialled = self._connection.spa_dialled()
        return _silence.probe(dialled.host, dialled.port, dialled.bind_address)

    def _aftermath(self) -> str:
        """Return in words whether the host is back as it was."""
        status = self._doorward_status()
        if status["pending"]:
            msg = "its rollback is still pending: journalctl -u doorward-fw-rollback"
            raise AnsibleActionFail(msg)
        return f"The host has put the old table back (now: {status['table']}), and nothing was kept"
