# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.report: what was found of all hosts, on the terminal and in a file."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.doorward.spa.plugins.plugin_utils import _archive, _page, _report
from ansible_collections.doorward.spa.plugins.plugin_utils._local_action import LocalAction
from ansible_collections.doorward.spa.plugins.plugin_utils._report import NOTE, OK, WRONG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPTIONS = {
    "hosts": {"type": "list", "elements": "str", "required": True},
    "outsider": {"type": "str", "default": ""},
    "seen_by": {"type": "str", "default": "controller"},
    "files": {"type": "list", "elements": "path", "default": []},
}
_FOUND = "verify_found"
_OUTSIDE = ("verify_outside_dark", "verify_outside_open", "verify_outside_closed")


class ActionModule(LocalAction):
    """The action `doorward.spa.report`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Show the hosts of the play, and fail where one of them is not well."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        variables = (task_vars or {}).get("hostvars") or {}
        rows = [row for host in options["hosts"] for row in _rows(host, _known(variables, host), options["outsider"])]
        when = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime())
        seen_by = " and ".join(filter(None, (options["seen_by"], options["outsider"])))
        self._display.display(f"\n{_report.table(rows)}\n")
        said = _report.as_object(rows, seen_by, when)
        for name in options["files"]:
            _write(Path(name).expanduser(), rows, seen_by, when)
        return {"changed": False, "failed": not said["well"], "msg": said["summary"]}


def _known(variables: Mapping, host: str) -> Mapping:
    return variables[host] if host in variables else {}  # noqa: SIM401  HostVars.get gives an undefined value instead


def _rows(host: str, known: Mapping, outsider: str) -> Iterator[_report.Row]:
    """Yield the row of a host; none where the play had nothing to do with it."""
    found = known.get(_FOUND) or {}
    if found.get("skipped"):
        return
    if "findings" not in found:
        yield _report.not_reached(host, _reason(found))
        return
    findings = [*found["findings"], *(_from_outside(known, outsider) if outsider else ())]
    yield _report.row(host, findings, found["clients"], is_open=found["is_open"])


def _reason(found: Mapping) -> str:
    """Return why nothing was found, in the words of the error."""
    return re.sub(r"\s+", " ", str(found.get("msg") or "the run ended before it"))[:500]


def _from_outside(known: Mapping, outsider: str) -> Iterator[dict[str, str]]:
    """Yield what the outsider saw: nothing, then the port while it was let in, then nothing again."""
    dark, lit, closed = (known.get(name) or {} for name in _OUTSIDE)
    if not dark or dark.get("skipped"):  # the host was not reached, or does not knock
        return
    for each in (dark, lit, closed):
        if "words" not in each:
            text = f"{outsider} could not look: {_reason(each)}"
            yield {"topic": "outsider", "state": WRONG, "short": "?", "text": text}
            return
    answers = [each["words"] for each in (dark, closed) if not each["silent"]]
    if answers:
        state, short, text = WRONG, "no", f"{outsider} gets an answer: {'; '.join(answers)}"
    elif not lit["open"]:
        more = "so that its silence proves nothing"
        state, short, text = WRONG, "?", f"{outsider} sees nothing even when it is let in ({lit['words']}), {more}"
    else:
        state, short, text = OK, "dark", f"{outsider} gets no answer, and did for the moment in which it was let in"
    if state == OK and known.get(_FOUND, {}).get("is_open"):
        state = NOTE
    yield {"topic": "outsider", "state": state, "short": short, "text": text}


def _write(file: Path, rows: list[_report.Row], seen_by: str, when: str) -> None:
    """Write JSON or a page, by the ending of the name; it names hosts and their clients, so others do not read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json":
        text = json.dumps(_report.as_object(rows, seen_by, when), indent=2, ensure_ascii=False) + "\n"
    else:
        text = _page.page(rows, seen_by, when)
    _archive.write_whole(file, text)
