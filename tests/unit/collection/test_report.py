"""The report of doorward.spa.verify: its states in words, its order, and a page that hostile names cannot change."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from unit.collection_plugins import plugin

report = plugin("plugin_utils._report")
page = plugin("plugin_utils._page")

HOSTILE = '<script src="https://evil.example/x.js">alert(1)</script>&"\''
BIDI = "web\N{RIGHT-TO-LEFT OVERRIDE}\x1b[31m"
SPOKEN = {"ok": "", "note": "note:", "wrong": "wrong:"}


def finding(topic: str, state: str = "ok", text: str = "as it should be") -> dict[str, str]:
    return {"topic": topic, "state": state, "short": "yes" if state == "ok" else "no", "text": text}


WELL = report.row("web", [finding("clock"), finding("reached"), finding("dark")], ["controller", "laptop"])
WRONG = report.row("db", [finding("reached"), finding("closed", "wrong", "192.0.2.2 port 22 answers")], ["controller"])
NOTED = report.row("app", [finding("reached"), finding("version", "note", "doorward 0.1.0, and here 0.2.0")], ["me"])
GONE = report.not_reached("mail", "no route to host")
ROWS = [WELL, GONE, NOTED, WRONG]


class Reader(HTMLParser):
    """The elements of a page with their attributes, and its text without the style."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read(*rows: Any) -> Reader:
    reader = Reader()
    reader.feed(page.page(list(rows), "controller", "29 November 2026, 14:00 UTC"))
    return reader


def test_a_host_has_one_line_in_plain_words() -> None:
    assert [row.line for row in ROWS] == [
        "web: hidden, opens to a knock of controller, laptop",
        "mail: not reached: no route to host",
        "app: hidden, opens to a knock of me",
        "db: NOT WELL: closed again: 192.0.2.2 port 22 answers; knows controller",
    ]
    assert report.row("lab", [finding("reached")], ["me"], is_open=True).line == "lab: OPEN, hears a knock of me"


def test_the_sentence_counts_the_hosts_that_are_not_well() -> None:
    assert report.summary(ROWS) == "2 of 4 hosts are not well"
    assert report.summary([WELL, WRONG]) == "1 of 2 hosts is not well"
    assert report.summary([WELL, NOTED]) == "all 2 hosts are well"
    assert report.summary([WELL]) == "the one host is well"
    assert not report.as_object([], "controller", "now")["well"], "nothing was looked at"


def test_findings_stand_in_the_order_of_the_topics_and_an_unknown_one_is_an_error() -> None:
    assert [each.topic for each in WELL.findings] == ["reached", "dark", "clock"]
    with pytest.raises(KeyError):
        report.row("web", [finding("weather")])


def test_the_table_marks_what_is_wrong_and_says_it_below() -> None:
    lines = report.table(ROWS).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["db", "mail", "app", "web"], "those first that need somebody"
    columns = re.split(r" {2,}", lines[0])
    assert dict(zip(columns, re.split(r" {2,}", lines[1]), strict=True))["closed again"] == "! no"
    assert "app: version: note: doorward 0.1.0, and here 0.2.0" in lines
    assert lines[-4:] == [each.line for each in report.in_order(ROWS)]


def test_json_has_every_finding() -> None:
    said = json.loads(json.dumps(report.as_object(ROWS, "controller", "now")))
    assert [host["state"] for host in said["hosts"]] == ["not well", "not reached", "well", "well"]
    assert not said["well"]
    assert said["hosts"][0]["findings"][1] == finding("closed", "wrong", "192.0.2.2 port 22 answers")


def test_the_page_says_in_words_what_is_wrong() -> None:
    reader = read(*ROWS)
    assert "2 of 4 hosts are not well" in reader.text
    assert "db not well" in reader.text
    assert "mail not reached" in reader.text
    assert "wrong: 192.0.2.2 port 22 answers" in reader.text
    assert "note: doorward 0.1.0, and here 0.2.0" in reader.text
    assert read(WELL).text.count("wrong:") == 0
    opened = [attributes for tag, attributes in reader.elements if tag == "details"]
    assert ["open" in each for each in opened] == [True, True, False, False], "those that need somebody are unfolded"


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    reader = read(*ROWS)
    tags = {tag for tag, _attributes in reader.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "base", "a"}
    text = page.page(ROWS, "controller", "now")
    assert not re.search(r"https?:|//|url\(|@import", text), "no address of elsewhere"
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_a_hostile_name_is_text_on_the_page_and_the_terminal() -> None:
    hostile = report.row(HOSTILE, [finding("reached", "wrong", HOSTILE)], [HOSTILE])
    text = page.page([hostile, report.not_reached(BIDI, BIDI)], HOSTILE, "now")
    assert "<script" not in text
    assert "evil.example" in text, "it is there, as text"
    reader = Reader()
    reader.feed(text)
    assert "script" not in {tag for tag, _attributes in reader.elements}
    assert HOSTILE in reader.text
    for shown in (text, report.table([report.not_reached(BIDI, BIDI)])):
        assert "\x1b" not in shown
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown
        assert "\N{REPLACEMENT CHARACTER}" in shown
