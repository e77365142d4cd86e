# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was found of hosts, and how it is shown: lines in plain words, a table, an object for JSON. No I/O.

Standard library only. Names and texts come from inventories and hosts: what is shown holds no control characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OK, NOTE, WRONG = "ok", "note", "wrong"
WELL, NOT_WELL, NOT_REACHED = "well", "not well", "not reached"
REACHED = "reached"
TOPICS: Mapping[str, str] = {
    REACHED: "reached",
    "dark": "dark before",
    "knock": "knock",
    "open": "open after",
    "closed": "closed again",
    "outsider": "outsider",
    "forwarded": "ghost services",
    "daemon": "daemon",
    "clients": "clients",
    "keys": "key age",
    "clock": "clock",
    "version": "version",
}
_ORDER = tuple(TOPICS)
_STATES = (NOT_WELL, NOT_REACHED, WELL)  # in which hosts are shown


class Finding(NamedTuple):
    """One thing that was looked at: its topic, whether it is as it should be, in a word or two, and in a sentence."""

    topic: str
    state: str
    short: str
    text: str


class Row(NamedTuple):
    """One host: what was found, and the clients that it knows."""

    host: str
    findings: tuple[Finding, ...]
    clients: tuple[str, ...] = ()
    is_open: bool = False

    @property
    def state(self) -> str:
        """Whether the host is well, not well, or was not reached."""
        wrong = {each.topic for each in self.findings if each.state == WRONG}
        return NOT_REACHED if REACHED in wrong else NOT_WELL if wrong else WELL

    @property
    def line(self) -> str:
        """The host in one line of plain words."""
        against = "; ".join(f"{TOPICS[each.topic]}: {each.text}" for each in self.findings if each.state == WRONG)
        known = ", ".join(self.clients) or "nobody"
        if self.state == NOT_REACHED:
            return f"{self.host}: not reached: {next(each.text for each in self.findings if each.topic == REACHED)}"
        if self.state == NOT_WELL:
            return f"{self.host}: NOT WELL: {against}; knows {known}"
        return f"{self.host}: {'OPEN, hears' if self.is_open else 'hidden, opens to'} a knock of {known}"


def row(host: str, findings: Iterable[Mapping[str, str]], clients: Sequence[str] = (), *, is_open: bool = False) -> Row:
    """Return the row of a host, its findings in the order of the topics.

    Raises:
        KeyError: a finding has no such topic, or lacks a word.
    """
    made = [
        Finding(each["topic"], each["state"], plain(each["short"]), plain(each["text"]))
        for each in findings
        if TOPICS[each["topic"]]
    ]
    ordered = sorted(made, key=lambda each: _ORDER.index(each.topic))
    return Row(plain(host), tuple(ordered), tuple(map(plain, clients)), is_open)


def not_reached(host: str, reason: str) -> Row:
    """Return the row of a host about which nothing is known."""
    return Row(plain(host), (Finding(REACHED, WRONG, "no", plain(reason)),))


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with those first that need somebody."""
    return sorted(rows, key=lambda each: (_STATES.index(each.state), each.host))


def summary(rows: Sequence[Row]) -> str:
    """Return in one sentence how the hosts are."""
    wrong = [each for each in rows if each.state != WELL]
    if not rows:
        return "no host was looked at"
    if not wrong:
        return "the one host is well" if len(rows) == 1 else f"all {len(rows)} hosts are well"
    return f"{len(wrong)} of {len(rows)} hosts {'is' if len(wrong) == 1 else 'are'} not well"


def table(rows: Sequence[Row]) -> str:
    """Return the hosts as a table of text; what is wrong has an exclamation mark, and a line below says it."""
    seen = {each.topic for row in rows for each in row.findings}
    topics = [topic for topic in _ORDER if topic in seen]
    lines = [["host", *(TOPICS[topic] for topic in topics)]]
    for each in in_order(rows):
        found = {one.topic: f"{'! ' if one.state == WRONG else ''}{one.short}" for one in each.findings}
        lines.append([each.host, *(found.get(topic, "-") for topic in topics)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [
        f"{each.host}: {TOPICS[one.topic]}: note: {one.text}"
        for each in in_order(rows)
        for one in each.findings
        if one.state == NOTE
    ]
    return "\n".join([*texts, "", *notes, *([""] if notes else []), *(each.line for each in in_order(rows))])


def as_object(rows: Sequence[Row], seen_by: str, when: str) -> dict:
    """Return the report for JSON; `when` is in UTC."""
    return {
        "when": when,
        "seen_by": plain(seen_by),
        "well": bool(rows) and all(each.state == WELL for each in rows),
        "summary": summary(rows),
        "hosts": [
            {
                "host": each.host,
                "state": each.state,
                "line": each.line,
                "clients": list(each.clients),
                "findings": [one._asdict() for one in each.findings],
            }
            for each in in_order(rows)
        ],
    }


def plain(text: object) -> str:
    """Return a text in one line without control characters, which a terminal or a reader could be misled by."""
    words = " ".join(str(text).split())
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in words)
