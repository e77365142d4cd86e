# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions that talk to a host's `doorward` command share."""

from __future__ import annotations

import contextlib
import ipaddress
import shlex
from typing import TYPE_CHECKING, NamedTuple

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.doorward.spa.plugins.plugin_utils._printed import object_in

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST_COMMAND = "/usr/bin/doorward"


class Outcome(NamedTuple):
    """How a command on the host ended; `text` is all it printed, since a tty mixes both streams."""

    code: int
    text: str


class Peer(NamedTuple):
    """One end of the SSH connection as the host sees it: who connects, and sshd's own port."""

    source: str
    port: int


class HostAction(ActionBase):
    """An action that runs commands on the host through the task's own connection and privileges."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def _on_host(self, *words: str, become: bool = True) -> Outcome:
        """Run one command; AnsibleConnectionFailure when the host cannot be reached."""
        result = self._low_level_execute_command(shlex.join(words), sudoable=become)
        text = f"{result['stdout']}\n{result['stderr']}".replace("\r\n", "\n").strip()
        return Outcome(result["rc"], text)

    def _doorward(self, *words: str) -> Outcome:
        return self._on_host(HOST_COMMAND, *words)

    def _doorward_json(self, *words: str) -> dict:
        """Run a `doorward` command on the host and return the object it prints; fail with its words otherwise."""
        return self._object(words, accepted=(0,))

    def _doorward_status(self) -> dict:
        """Return what `doorward status` knows; it ends with 1 where the host is not closed and well."""
        return self._object(("status",), accepted=(0, 1))

    def _object(self, words: Sequence[str], accepted: Sequence[int]) -> dict:
        outcome = self._doorward(*words, "--json")
        if outcome.code in accepted:
            with contextlib.suppress(ValueError):
                return object_in(outcome.text)
        msg = f"`doorward {shlex.join(words)}` on the host ended with {outcome.code}: {outcome.text[-800:]}"
        raise AnsibleActionFail(msg)

    def _peer(self) -> Peer:
        """Return who connects in the host's eyes: the address that a grant must be for."""
        outcome = self._on_host("printenv", "SSH_CONNECTION", become=False)
        words = outcome.text.split()
        if outcome.code or len(words) < 4:  # noqa: PLR2004  client address and port, server address and port
            msg = f"the host shows no SSH_CONNECTION, so this is no SSH connection: {outcome.text[-200:]!r}"
            raise AnsibleActionFail(msg)
        return Peer(str(ipaddress.ip_address(words[0].partition("%")[0])), int(words[3]))
