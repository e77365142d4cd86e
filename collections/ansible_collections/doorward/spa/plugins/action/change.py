# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.change: new files of the daemon under a dead man's switch."""

from __future__ import annotations

import contextlib
import re
import time

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.doorward.spa.plugins.plugin_utils._printed import object_in
from ansible_collections.doorward.spa.plugins.plugin_utils._way_in import AFTER, MARGIN, WayInAction

_OPTIONS = {
    "state": {"type": "str", "choices": ["staged", "applied"], "required": True},
    "folder": {"type": "str"},
    "deadline": {"type": "int"},
    "python": {"type": "str", "default": "/usr/bin/python3"},
}
_ARCHIVE = "new/usr/lib/doorward/doorward.pyz"
_WAITING = "[ -e /etc/doorward/change/pending ] || [ -e /etc/doorward/change/rolling ]"
_WAITS = "doorward-change-is-pending"
# Copies our files twice: as they are, and to be changed. A folder that somebody left goes after a day.
_STAGE = f"""
set -eu
umask 077
if {_WAITING}; then echo {_WAITS}; exit 0; fi
find /run -maxdepth 1 -name 'doorward-change.*' -mmin +1440 -exec rm -rf {{}} +
folder=$(mktemp -d /run/doorward-change.XXXXXXXXXX)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/base"
cd /
for path in etc/doorward usr/lib/doorward usr/bin/doorward usr/sbin/doorwardd \\
        etc/systemd/system/doorward* etc/tmpfiles.d/doorward*; do
    [ ! -e "$path" ] || cp -a --parents "$path" "$folder/base"
done
rm -rf "$folder/base/etc/doorward/change" "$folder/base/etc/systemd/system/doorward-change.service"
cp -a "$folder/base" "$folder/new"
umask 022
cd "$folder/new"
mkdir -p etc/doorward etc/systemd/system etc/tmpfiles.d usr/bin usr/lib/doorward usr/sbin
trap - EXIT
echo "staged=$folder"
"""
# One command, since the next connection is the proof. The grant of its own connection is closed too: what lets the next
# one in is a knock at the new files.
_APPLY = """
source=$1 folder=$2
shift 2
"$@"
code=$?
rm -rf "$folder"
[ $code != 0 ] || [ -z "$source" ] || /usr/bin/doorward close --from "$source" >/dev/null 2>&1
exit $code
"""
_SETTLED = 600.0  # seconds in which a change of another run must be confirmed or taken back


class ActionModule(WayInAction):
    """The action `doorward.spa.change`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Stage, or apply and confirm."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        if self._task.check_mode:  # in which files are compared with those in force
            return {"changed": False, "folder": "", "root": ""}
        if options["state"] == "staged":
            return self._stage()
        if not options["folder"]:
            msg = "folder is missing: it is what state=staged has returned"
            raise AnsibleActionFail(msg)
        return self._apply(options["folder"], options["python"], self._deadline(options["deadline"]))

    def _stage(self) -> dict:
        """Copy the files in force, once no other change is pending."""
        until = time.monotonic() + _SETTLED
        while _WAITS in (outcome := self._on_host("sh", "-c", _STAGE)).text:
            if time.monotonic() > until:
                msg = (
                    "another change of this host has been pending for 10 minutes: see `doorward change rollback` there"
                )
                raise AnsibleActionFail(msg)
            time.sleep(2)
        found = re.search(r"staged=(/run/doorward-change\.\w+)", outcome.text)  # ssh may say something behind it
        if outcome.code or not found:
            msg = f"the files cannot be staged, and nothing was changed: {outcome.text[-800:]}"
            raise AnsibleActionFail(msg)
        return {"changed": False, "folder": found[1], "root": f"{found[1]}/new"}

    def _apply(self, folder: str, python: str, deadline: int) -> dict:
        """Swap, then confirm; on failure wait until the host has taken the change back."""
        begun = time.monotonic()
        applied = self._swap(folder, python, deadline)
        result = {"paths": applied["paths"], "deadline": deadline}
        if not applied["token"]:
            return result | {"changed": False}
        try:
            with self._no_shared_connection():
                self._confirm(("change", "confirm", applied["token"]), begun + deadline - MARGIN)
        except AnsibleError as error:
            aftermath = self._once_back(begun + deadline + AFTER, self._aftermath)
            changed = ", ".join(applied["paths"]) or "units"
            msg = f"the change of {changed} lets this controller in no more, so it was not kept: {error}. {aftermath}"
            return result | {"failed": True, "changed": False, "msg": msg}
        return result | {"changed": True}

    def _swap(self, folder: str, python: str, deadline: int) -> dict:
        """Have the archive that was staged swap the files, and return what it says."""
        archive = f"{folder}/{_ARCHIVE}"
        words = ("change", "apply", folder, "--deadline", f"{deadline}s", "--json")
        source = self._peer().source if getattr(self._connection, "knocks", False) else ""
        outcome = self._on_host("sh", "-c", _APPLY, "sh", source, folder, python, "-I", archive, *words)
        if outcome.code == 0:
            with contextlib.suppress(ValueError):
                return object_in(outcome.text)
        if "invalid choice" in outcome.text:
            msg = "the host's archive is older than this collection: run with the tag doorward_install as well"
            raise AnsibleActionFail(msg)
        msg = f"the change was not made: {outcome.text[-1500:]}"
        raise AnsibleActionFail(msg)

    def _aftermath(self) -> str:
        """Return what the host says once its deadline is over."""
        outcome = self._on_host("sh", "-c", f"if {_WAITING}; then echo {_WAITS}; fi")
        if outcome.code or _WAITS in outcome.text:
            msg = f"its rollback is still under way: {outcome.text[-200:]}"
            raise AnsibleActionFail(msg)
        return "The host has put all of its files back, and can be entered as before"
