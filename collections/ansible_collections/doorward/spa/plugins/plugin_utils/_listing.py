# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listings of nftables; standard library only."""

from __future__ import annotations

import re

_SET = re.compile(r"^\t(?:set|map) \S+ \{\n(?:\t\t.*\n)*?\t\}\n", re.MULTILINE)
_FLAGS = re.compile(r"^\t\tflags [^\n]*\btimeout\b", re.MULTILINE)
_ELEMENTS = re.compile(r"^\t\telements = \{[^}]*\}\n", re.MULTILINE)


def without_grants(listing: str) -> str:
    """Return a listing of `nft -s list table` without the elements of sets whose elements expire.

    nft's own terse listing would also hide what static sets hold, and with it a difference that matters.
    """
    return _SET.sub(_strip, listing)


def _strip(match: re.Match[str]) -> str:
    text = match[0]
    return _ELEMENTS.sub("", text) if _FLAGS.search(text) else text
