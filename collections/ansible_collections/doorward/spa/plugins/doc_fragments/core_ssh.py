# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of ansible.builtin.ssh, read from the ansible-core that runs, so that none is ever missing."""

from __future__ import annotations

import yaml
from ansible.plugins.connection import ssh as _core


def _options() -> dict:
    """Return the core plugin's options without `version_added`, which counts in core's versions, not in ours."""
    options = yaml.safe_load(_core.DOCUMENTATION)["options"]
    for option in options.values():
        option.pop("version_added", None)
        for place in ("ini", "env", "vars", "cli", "keyword"):
            for entry in option.get(place) or []:
                entry.pop("version_added", None)
    return options


class ModuleDocFragment:
    """The fragment `doorward.spa.core_ssh`."""

    DOCUMENTATION = yaml.safe_dump({"options": _options()}, sort_keys=False)
