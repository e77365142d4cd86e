# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One value of what several groups of a host say; standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LISTS = (list, tuple)


class ContraryError(ValueError):
    """Two groups of one host say what cannot both be; the text names both variables."""


def merged(said: Mapping[str, Any]) -> list | dict:
    """Return one list, or one mapping, of the values of several variables.

    Lists are joined, without what is there twice. Entries with the same `name` become one, and mappings too: what only
    one of them has is taken, lists in them are joined, and everything else has to be the same.

    Raises:
        ContraryError: it is not, or a value is neither a list nor a mapping.
    """
    kinds = {"list" if isinstance(value, _LISTS) else type(value).__name__ for value in said.values()}
    if kinds == {"dict"}:
        return _of_mappings([(name, "", value) for name, value in said.items()])
    if kinds - {"list"}:
        msg = f"{' and '.join(said)} have to be all lists or all mappings, and are {' and '.join(sorted(kinds))}"
        raise ContraryError(msg)
    return _of_lists(said)


def _of_lists(said: Mapping[str, list]) -> list:
    """Join lists; `places` keeps the order of first appearance."""
    plain: list[Any] = []
    named: dict[str, list[tuple[str, str, dict]]] = {}
    places: list[tuple[str, Any]] = []
    for variable, entries in said.items():
        for entry in entries:
            name = str(entry["name"]) if isinstance(entry, dict) and "name" in entry else ""
            if name and name in named:
                named[name].append((variable, name, entry))
            elif name:
                named[name] = [(variable, name, entry)]
                places.append((name, None))
            elif entry not in plain:
                plain.append(entry)
                places.append(("", entry))
    return [_of_mappings(named[name]) if name else entry for name, entry in places]


def _of_mappings(parts: list[tuple[str, str, dict]]) -> dict:
    """Make one mapping of several; each comes with its variable, and the name of the entry that it is."""
    found: dict[str, Any] = {}
    whence: dict[str, str] = {}
    for variable, entry, mapping in parts:
        for option, value in mapping.items():
            before = found.get(option)
            if option not in found:
                found[option], whence[option] = value, variable
            elif isinstance(before, _LISTS) and isinstance(value, _LISTS):
                found[option] = [*before, *(one for one in value if one not in before)]
            elif before != value:
                whose = f"{entry} has one {option}" if entry else f"{option} is one"  # no values: one may be secret
                msg = f"{whose} in {whence[option]} and another in {variable}, and this host has both: say it once"
                raise ContraryError(msg)
    return found
