"""Metrics as text, read by the reference parsers of both formats."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from doorward.record.openmetrics import Family, Sample, gauge, text

Read = dict[str, dict[tuple[tuple[str, str], ...], float]]


def read_by_both(content: bytes) -> Read:
    """What both parsers read, by name and labels."""
    found = []
    for parser in (openmetrics, prometheus):
        said: Read = {}
        for family in parser(content.decode()):
            for sample in family.samples:
                said.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        found.append(said)
    assert found[0] == found[1]
    return found[0]


def test_both_formats_read_the_same_counters_and_gauges() -> None:
    families = [
        Family("a_total", "Counted.", (Sample(3, {"reason": "hmac", "name": ""}), Sample(1 << 60, {"reason": "tag"}))),
        gauge("b_seconds", "Now.", 1764423248.125),
        gauge("c_info", "It.", 1, version="1.2"),
        Family("nothing", "Has no values.", ()),
    ]
    content = text(families)
    assert read_by_both(content) == {
        "a_total": {(("name", ""), ("reason", "hmac")): 3, (("reason", "tag"),): 1 << 60},
        "b_seconds": {(): 1764423248.125},
        "c_info": {(("version", "1.2"),): 1},
    }
    assert b"nothing" not in content
    assert content.endswith(b"\n# EOF\n")


def test_a_gauge_has_its_type_and_a_counter_none_in_both() -> None:
    content = text([gauge("a_total", "Counted.", 1), gauge("b", "Now.", 1)]).decode()
    types = [{family.name: family.type for family in parser(content)} for parser in (openmetrics, prometheus)]
    assert types == [{"a_total": "unknown", "b": "gauge"}] * 2


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.integers(-(1 << 50), 1 << 50))
def test_no_label_breaks_out_of_its_line(label: str, value: int) -> None:
    content = text([Family("a", "One.", (Sample(value, {"name": label}),)), gauge("b", "Two.", 2)])
    assert read_by_both(content) == {"a": {(("name", label),): value}, "b": {(): 2}}


def test_what_utf_8_does_not_have_is_replaced() -> None:
    assert read_by_both(text([gauge("a", "One.", 1, file="/etc/\udcff.conf")])) == {
        "a": {(("file", "/etc/?.conf"),): 1}
    }
