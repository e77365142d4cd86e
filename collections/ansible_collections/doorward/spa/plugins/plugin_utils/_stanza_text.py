# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of one stanza, written by the template that the role `daemon` has for each of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.doorward.spa.plugins.plugin_utils import _host_stanza, _key_text, _values
from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TEMPLATES = Path(__file__).resolve().parents[2] / "roles" / "daemon" / "templates"
_LONGEST = 100  # characters of a name
_ELSEWHERE = ("name", "public_key", "key")  # options with a check of their own


def problems(options: Mapping) -> Iterator[str]:
    """Yield what is wrong with the options of a stanza, as far as no host has to be asked; no secret is repeated."""
    yield from (f"name: {cause}" for cause in _of_name(options["name"]))
    if bool(options["public_key"]) == bool(options["key"]):
        yield "public_key or key: a stanza has one of them: the client's public key, or the key that it shares"
    yield from _of_key("public_key", options["public_key"], _key_text.public)
    yield from _of_key("key", options["key"], _key_text.parse)
    yield from _values.rights(options)
    if options["services"] == [] and not options["commands"]:
        yield "services: none of them would be every service"
    for option, value in options.items():
        if option not in _ELSEWHERE and not all(map(_is_one_value, _texts(value))):
            yield f"{option}: a line break, another control character, or a semicolon, which ends a value"


def text(options: Mapping) -> str:
    """Return the file of a stanza, for options without problems."""
    fields = {option: value for option, value in options.items() if value is not None}
    fields["sources"] = options["sources"] or []
    if options["public_key"]:
        key = " ".join(options["public_key"].split()[:2])
        fields["client"] = f"{key} {options['name']}"
    if options["key"]:
        fields["key"] = "\n".join(f"{name:23} {value}" for name, value in _key_text.parse(options["key"]).items())
    environment = Environment(  # noqa: S701  no page: what could end a line was refused
        loader=FileSystemLoader(_TEMPLATES), trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    return _host_stanza.HEAD + environment.get_template("stanza.j2").render(fields=fields)


def key(options: Mapping) -> str:
    """Return what the client is known by: its public key, or the fingerprint of the key that it shares."""
    if options["key"]:
        return _key_text.fingerprint(options["key"])
    return " ".join(_key_text.public(options["public_key"]).split()[:2])


def _of_name(name: str) -> Iterator[str]:
    yield from _values.name(name)
    if name.startswith("."):
        yield "begins with a dot, and the file that is named after it would not be read"
    if len(name) > _LONGEST:
        yield f"has more than {_LONGEST} characters"


def _of_key(option: str, value: str | None, read: Callable[[str], object]) -> Iterator[str]:
    try:
        read(value) if value else None
    except _key_text.KeyTextError as error:
        yield f"{option}: {error}"


def _texts(value: object) -> Iterator[str]:
    """Yield the texts in a value."""
    if isinstance(value, dict):
        yield from (str(part) for pair in value.items() for part in pair)
    elif isinstance(value, list):
        yield from map(str, value)
    elif isinstance(value, str):
        yield value


def _is_one_value(text: str) -> bool:
    """Tell whether a text is the whole of a value, where it is written into a line."""
    return text.isprintable() and ";" not in text
