"""The object that a host has printed is found among what ssh says."""

from __future__ import annotations

import pytest

from unit.collection_plugins import plugin

printed = plugin("plugin_utils._printed")


def test_an_object_is_found_between_other_words() -> None:
    assert printed.object_in("Warning: added\n" + '{"a": {"b": 1}}\nShared connection closed.\n') == {"a": {"b": 1}}


@pytest.mark.parametrize("text", ["", "no object", "} {", "{", "}", '{"a": }', "{it} {"])
def test_no_object_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting"):
        printed.object_in(text)
