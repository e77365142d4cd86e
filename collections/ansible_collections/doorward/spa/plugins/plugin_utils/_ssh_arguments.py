# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds proxies in ssh's arguments; standard library only."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FLAGS = "[46AaCfGgKkMNnqsTtVvXxYy]*"  # ssh's flags without a value, which may stand before -J and -o in one word
_JUMP_FLAG = re.compile(rf"-{_FLAGS}J.*", re.ASCII | re.DOTALL)
_OPTION = re.compile(rf"(?:-{_FLAGS}o)?\s*(proxyjump|proxycommand)(?:[\s=].*)?", re.IGNORECASE | re.DOTALL)


def foreign_proxy(arguments: Iterable[str]) -> str | None:
    """Return the first argument that makes ssh go through a proxy of its own, or None."""
    for word in (word for text in arguments for word in shlex.split(text or "")):
        option = _OPTION.fullmatch(word)
        if option:
            return option[1]
        if _JUMP_FLAG.fullmatch(word):
            return "-J"
    return None
