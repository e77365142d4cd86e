# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds proxies in ssh's arguments; standard library only."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FLAGS = "[46AaCfGgKkMNnqsTtVvXxYy]*"  # ssh's flags without a value, which may stand before -J and -o in one word
# Compiled where they are used, since every task imports this.
_JUMP_FLAG = rf"(?as)-({_FLAGS})J(.*)"
_OPTION = rf"(?is)(?:-({_FLAGS})o)?\s*(proxyjump|proxycommand)(?:[\s=]+(.*))?"


class _Proxy(NamedTuple):
    """A proxy in a list of words: what names it, its value, the words from `start` to `end`, and flags beside it."""

    name: str
    value: str
    start: int
    end: int
    flags: str


def foreign_proxy(arguments: Iterable[str]) -> str | None:
    """Return what makes ssh go through a proxy of its own, or None; `none` is no proxy."""
    found = (proxy for text in arguments for proxy in _proxies(shlex.split(text or "")))
    return next((proxy.name for proxy in found if proxy.value.lower() != "none"), None)


def without_none(text: str) -> str:
    """Return arguments without the proxies `none`, which ssh would take for a word against every later proxy."""
    words = shlex.split(text or "")
    found = [proxy for proxy in _proxies(words) if proxy.value.lower() == "none"]
    for proxy in reversed(found):
        words[proxy.start : proxy.end] = [f"-{proxy.flags}"] if proxy.flags else []
    return shlex.join(words) if found else text


def _proxies(words: list[str]) -> Iterator[_Proxy]:
    for place, word in enumerate(words):
        after = words[place + 1] if place + 1 < len(words) else ""
        option = re.fullmatch(_OPTION, word) if "proxy" in word.lower() else None
        jump = re.fullmatch(_JUMP_FLAG, word) if "J" in word else None
        if option:
            is_apart = option[1] is None and words[place - 1 : place] == ["-o"]
            yield _Proxy(option[2], (option[3] or "").strip(), place - is_apart, place + 1, option[1] or "")
        elif jump:
            yield _Proxy("-J", jump[2] or after, place, place + 1 + (not jump[2]), jump[1])
