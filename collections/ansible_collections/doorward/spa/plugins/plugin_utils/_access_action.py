# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions share that change the clients in a host's own access.conf, and prove it by knocks."""

from __future__ import annotations

import hashlib
import re
import threading
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.action.change import ActionModule as ChangeAction
from ansible_collections.doorward.spa.plugins.plugin_utils import (
    _archive,
    _host_access,
    _host_facts,
    _key_text,
    _knocking,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDER = "/etc/doorward"
_WATCHED = 5.0  # seconds in which a host sees whether knocks open it
_AGAIN = 1.0  # seconds between them
_WATCH = """
import json, subprocess, sys, time
source, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
subprocess.run(["/usr/bin/doorward", "close", "--from", source], check=True, stdout=subprocess.DEVNULL)
found = []
while not found and time.monotonic() < end:
    time.sleep(0.2)
    shown = subprocess.run(["/usr/bin/doorward", "status", "--json"], stdout=subprocess.PIPE, check=False).stdout
    found = [one for one in json.loads(shown)["grants"] if one["source"] == source]
print("grants=%d" % len(found))
"""


class AccessAction(ChangeAction):
    """An action that edits the access.conf that is there, whatever the inventory says."""

    def _note_python(self, task_vars: dict | None) -> None:
        """Keep the Python that doorward runs with on the host, as the roles know it."""
        self._python = str(self._templar.template((task_vars or {}).get("doorward_python", _host_facts.PYTHON)))

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
        applied = self._apply(staged, self._python, self._deadline(deadline))
        if applied.get("failed"):
            raise AnsibleActionFail(applied["msg"])

    def _arguments(self, text: str) -> tuple[str, ...]:
        """Return the client's arguments for a key text, which stays in a file of this run."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:20]
        file = _archive.scratch() / f"doorward-{digest}.proof"
        _archive.write_whole(file, _key_text.stanza(text))
        return ("--rc-file", str(file))

    def _opens(self, arguments: Sequence[str], services: Sequence[str]) -> bool:
        """Tell whether a knock with a key opens anything for this controller.

        The host watches from within one connection, since each new one of ssh without ControlMaster knocks by itself.
        It closes first what that connection has opened.
        """
        source = self._peer().source
        named = "" if self._connection.jumps else source
        command = _knocking.command(self._connection, services, source=named, key=arguments)
        knocks = _Knocking(command)
        with knocks:
            outcome = self._on_host(self._python, "-I", "-c", _WATCH, source, str(_WATCHED))
        if knocks.error is not None:
            raise knocks.error
        if outcome.code or not (found := re.search(r"^grants=(\d+)$", outcome.text, re.MULTILINE)):
            msg = f"the host cannot say what is open: {outcome.text[-500:]}"
            raise AnsibleActionFail(msg)
        return found[1] != "0"


class _Knocking:
    """Knocks that go on in the background, since one may be lost or come before the host begins to watch."""

    def __init__(self, command: Sequence[str]) -> None:
        """Knock with a client's command line."""
        self.error: AnsibleActionFail | None = None
        self._command, self._ended = command, threading.Event()
        self._thread = threading.Thread(target=self._knock, daemon=True)

    def __enter__(self) -> None:
        """Begin."""
        self._thread.start()

    def __exit__(self, *_failure: object) -> None:
        """End; no packet is sent any more."""
        self._ended.set()
        self._thread.join()

    def _knock(self) -> None:
        try:
            while not self._ended.wait(_AGAIN):
                _knocking.send(self._command)
        except AnsibleActionFail as error:
            self.error = error
