# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON object that a program on the host has printed. Standard library only."""

from __future__ import annotations

import json


def object_in(text: str) -> dict:
    """Return the object; ssh may say something before and behind it.

    Raises:
        ValueError: there is none.
    """
    return json.loads(text[text.find("{") : text.rfind("}") + 1])
