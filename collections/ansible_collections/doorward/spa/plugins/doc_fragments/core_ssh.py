# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of ansible.builtin.ssh, taken from the ansible-core that runs, so that none is ever missing.

Every task's worker does this, and then ansible-core reads what comes out. To have it read here too, for the only sake
of leaving out `version_added`, would take as long once more: so the options are cut out as text where that can be done.
"""

from __future__ import annotations

import re

from ansible.plugins.connection import ssh as _core

_OPTIONS = re.compile(r"^( *)options:\n(?:(?:\1 .*)?\n)+", re.MULTILINE)  # the heading, and what is indented below it
_VERSION = re.compile(r"^ *version_added:.*\n", re.MULTILINE)


def options(documentation: str) -> str:
    """Return a plugin's options without `version_added`, which counts in core's versions, not in ours."""
    found = _OPTIONS.search(documentation)
    text = _VERSION.sub("", found[0]) if found else ""
    return text if text and "version_added" not in text else _read(documentation)


def _read(documentation: str) -> str:
    """Do the same with the text in any other form of YAML."""
    import json  # noqa: PLC0415  no core plugin of today has another form

    from yaml import safe_load  # noqa: PLC0415  as above

    chosen = safe_load(documentation)["options"]
    for option in chosen.values():
        option.pop("version_added", None)
        for place in ("ini", "env", "vars", "cli", "keyword"):
            for entry in option.get(place) or []:
                entry.pop("version_added", None)
    return json.dumps({"options": chosen})


class ModuleDocFragment:
    """The fragment `doorward.spa.core_ssh`."""

    # Annotated, since the yamllint of ansible-test takes every plain assignment for a literal.
    DOCUMENTATION: str = options(_core.DOCUMENTATION)
