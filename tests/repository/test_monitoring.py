"""docs/monitoring: rules, dashboard and page name the metrics that we write, and Grafana knows all of the dashboard."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import programs
from doorward.firewall.standing import Standing, Word
from doorward.helper.messages import Gauges, Row
from doorward.helper.metrics_file import Snapshot, Table, families
from doorward.record.openmetrics import text
from doorward.values import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = programs.REPOSITORY / "docs/monitoring"
RULES: Final = FOLDER / "doorward.rules.yml"
ALERTS: Final = yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]
DASHBOARD: Final[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
FULL: Final = Snapshot(
    (*(Row(None, reason, 2, 1) for reason in Reason), *(Row("laptop", reason, 1, 1) for reason in Reason)),
    Gauges(1, 1, 1, 1, 1, share=True),
    Table(Standing(closed=False, doubts=((Word.OPEN, "x"),)), "drop", 1, {"laptop": 1}, 1),
    built=1,
    since=1,
    keys={"/etc/doorward/access.conf": 1},
    now=1,
)
CONTENT: Final = text(families(FULL))
NAMES: Final = frozenset(re.findall(r"^(doorward_\w+)", CONTENT.decode(), re.MULTILINE))
VARIABLES: Final = {"$host": "h", "$__rate_interval": "1m"}


def expressions() -> dict[str, str]:
    """The expressions of the dashboard's panels, with the variables as Grafana would replace them."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found[f"{panel['title']} {target['refId']}"] = expression
    return found


@pytest.mark.parametrize(
    "expression", [*expressions().values(), *(alert["expr"] for alert in ALERTS)], ids=lambda one: one[:40]
)
def test_an_expression_names_only_what_we_write(expression: str) -> None:
    named = set(re.findall(r"doorward_\w+", expression))
    assert named
    assert named <= NAMES


def test_the_page_lists_every_metric_and_no_other() -> None:
    page = (FOLDER / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(doorward_\w+)", page, re.MULTILINE)) == NAMES


def test_the_page_lists_every_alert_and_no_other() -> None:
    page = (FOLDER / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| (Doorward\w+) ", page, re.MULTILINE)) == {alert["alert"] for alert in ALERTS}


# ---- the dashboard ---------------------------------------------------------------------------------------------------


def unknown(written: object, read: object, place: str = "") -> Iterator[str]:
    """Yield the places of a dashboard that Grafana's own types do not know, or read otherwise."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            yield from unknown(value, read[key], f"{place}.{key}") if key in read else [f"{place}.{key}"]
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, pair in enumerate(zip(written, read, strict=True)):
            yield from unknown(*pair, f"{place}[{number}]")
    elif written != read:
        yield place


def read_by_grafana(dashboard: dict[str, Any]) -> object:
    """The dashboard after the way through the types that Grafana generates from its schemas."""
    plugins.register_default_plugins()
    found: object = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return found


def test_grafanas_types_know_every_key_of_the_dashboard() -> None:
    assert list(unknown(DASHBOARD, read_by_grafana(DASHBOARD))) == []


@pytest.mark.parametrize(
    "key", ["title", "gridPos", "fieldConfig", "expr", "legendFormat", "showLegend", "schemaVersion"]
)
def test_they_would_not_know_a_key_that_is_misspelt(key: str) -> None:
    misspelt = json.loads(json.dumps(DASHBOARD).replace(f'"{key}": ', f'"{key}x": '))
    assert any(place.endswith(f"{key}x") for place in unknown(misspelt, read_by_grafana(misspelt)))


def test_no_two_panels_overlap_and_each_has_its_own_number() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert max(x for x, _ in taken) == 23  # Grafana's grid
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
