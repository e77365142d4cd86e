"""What the grants of a host leave to be done for a task that wants some open or closed."""

from __future__ import annotations

import pytest

from unit.collection_plugins import plugin

grants = plugin("plugin_utils._grants")

ADDRESS = "192.0.2.7"
SSH = {"source": ADDRESS, "service": "tcp/22", "remaining": 60.0}


@pytest.mark.parametrize(
    ("live", "missing"),
    [
        ([], ["tcp/22", "tcp/80"]),
        ([SSH], ["tcp/80"]),
        ([SSH | {"remaining": 29.9}], ["tcp/22", "tcp/80"]),
        ([SSH | {"remaining": None}], ["tcp/80"]),
        ([SSH | {"service": None}], []),
        ([SSH | {"source": "any"}], ["tcp/22", "tcp/80"]),
        ([SSH | {"nat": {}}, SSH | {"os": "Linux"}, SSH | {"destination": "192.0.2.1"}], ["tcp/22", "tcp/80"]),
        ([SSH | {"name": "alice"}, SSH | {"service": "tcp/80"}], []),
    ],
)
def test_a_service_is_missing_where_no_grant_of_it_lasts_long_enough(
    live: list[dict[str, object]], missing: list[str]
) -> None:
    assert grants.lacking(live, ADDRESS, ["tcp/22", "tcp/80"], 30) == missing


def test_closing_for_everybody_ends_all_grants_and_for_one_address_its_own() -> None:
    live = [SSH, SSH | {"source": "any"}]
    assert grants.held(live, "any") == live
    assert grants.held(live, ADDRESS) == [SSH]
    assert grants.held(live, "192.0.2.8") == []


def test_a_source_is_written_as_the_host_shows_it() -> None:
    assert [grants.source(text) for text in ("ANY", "FD00:0::1", ADDRESS)] == ["any", "fd00::1", ADDRESS]
    with pytest.raises(ValueError, match=r"gw\.example"):
        grants.source("gw.example")
