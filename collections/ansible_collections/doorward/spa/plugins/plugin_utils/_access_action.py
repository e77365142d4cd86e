# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions share that change the clients in a host's own access.conf, and prove it by knocks."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.action.change import ActionModule as ChangeAction
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive, _host_access, _key_text, _knocking

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDER = "/etc/doorward"
_HEARD = 3.0  # seconds in which a knock is surely judged
_AGAIN = 1.0  # seconds before it is sent again: one may be lost
_LOOK = 0.2


class AccessAction(ChangeAction):
    """An action that edits the access.conf that is there, whatever the inventory says."""

    def _access(self, folder: str = _FOLDER, *words: str) -> _host_access.Access:
        """Return the clients of a folder's access.conf; words are for the program that edits it."""
        try:
            return _host_access.read(self._on_host(*_host_access.words(folder, *words)).text)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error

    def _edit(self, deadline: int | None, *words: str) -> None:
        """Edit a copy of access.conf, and put it into force once this controller has come in anew."""
        staged = self._stage()["folder"]
        self._access(f"{staged}/new{_FOLDER}", *words)
        applied = self._apply(staged, self._deadline(deadline))
        if applied.get("failed"):
            raise AnsibleActionFail(applied["msg"])

    def _arguments(self, text: str) -> tuple[str, ...]:
        """Return the client's arguments for a key text, which stays in a file of this run."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:20]
        file = _archive.scratch() / f"doorward-{digest}.proof"
        _archive.write_whole(file, _key_text.stanza(text))
        return ("--rc-file", str(file))

    def _opens(self, arguments: Sequence[str], services: Sequence[str]) -> bool:
        """Tell whether a knock with a key opens anything for this controller, which has nothing open before."""
        source = self._peer().source
        self._doorward("close", "--from", source)
        named = "" if self._connection.jumps else source
        command = _knocking.command(self._connection, services, source=named, key=arguments)
        start, again = time.monotonic(), 0.0
        while (waited := time.monotonic() - start) < _HEARD:
            if waited >= again:
                _knocking.send(command)
                again = waited + _AGAIN
            if any(one["source"] == source for one in self._doorward_status()["grants"]):
                return True
            time.sleep(_LOOK)
        return False
