# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one page of HTML: no script, nothing from elsewhere, light and dark. Standard library only."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ansible_collections.doorward.spa.plugins.plugin_utils import _report

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARKS = {_report.OK: "\N{CHECK MARK}", _report.NOTE: "\N{BULLET}", _report.WRONG: "\N{BALLOT X}"}
_WORDS = {_report.OK: "", _report.NOTE: "note", _report.WRONG: "wrong"}
_CLASSES = {_report.WELL: "ok", _report.NOT_WELL: "wrong", _report.NOT_REACHED: "gone"}
_FOOTER = (
    "<footer>Written by doorward.spa.verify. A host is well where a stranger gets no answer, a knock opens it, and it "
    "closes again.</footer>"
)
_OPEN_MAX = 3  # so many well hosts are unfolded as well
_STYLE = """
:root { --ground: #f5f6f4; --card: #fff; --ink: #1d2422; --soft: #5b6663; --line: #dde2df;
  --ok: #1b6b4a; --ok-ground: #e3f1ea; --wrong: #a3231b; --wrong-ground: #fbe6e3; --gone: #7a5200;
  --gone-ground: #fbeed2; }
@media (prefers-color-scheme: dark) { :root { --ground: #121615; --card: #1a201e; --ink: #e8edea; --soft: #9daba6;
  --line: #2d3634; --ok: #7fd3a9; --ok-ground: #17352a; --wrong: #ff9d92; --wrong-ground: #43201d; --gone: #f2c56b;
  --gone-ground: #3b2e12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
.brand { margin: 0; color: var(--soft); font-size: .8rem; letter-spacing: .14em; text-transform: uppercase; }
h1 { margin: .2rem 0 .3rem; font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.2; letter-spacing: -.015em; }
.soft { margin: 0; color: var(--soft); }
.tally { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1.25rem 0 1.5rem; padding: 0; list-style: none; }
.tag, .tally li { border-radius: 99rem; padding: .1rem .7rem; font-size: .85rem; font-weight: 600;
  white-space: nowrap; }
.ok > .tag, li.ok { color: var(--ok); background: var(--ok-ground); }
.wrong > .tag, li.wrong { color: var(--wrong); background: var(--wrong-ground); }
.gone > .tag, li.gone { color: var(--gone); background: var(--gone-ground); }
details { margin: 0 0 .75rem; border: 1px solid var(--line); border-left-width: .3rem; border-radius: .6rem;
  background: var(--card); }
details.ok { border-left-color: var(--ok); }
details.wrong { border-left-color: var(--wrong); }
details.gone { border-left-color: var(--gone); }
summary { padding: .8rem 1rem; cursor: pointer; }
summary h2 { display: inline; margin: 0 .5rem 0 .1rem; font-size: 1.1rem; }
summary p { margin: .15rem 0 0; color: var(--soft); font-size: .95rem; }
dl { display: grid; grid-template-columns: 1fr; margin: 0; padding: 0 1rem .6rem; }
dl div { padding: .45rem 0; border-top: 1px solid var(--line); }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; display: grid; grid-template-columns: 1.3rem 1fr; }
.ok > dd > i { color: var(--ok); }
.wrong > dd > i, .wrong > dd b { color: var(--wrong); }
i { font-style: normal; }
footer { padding: 1rem 1.25rem 3rem; color: var(--soft); font-size: .85rem; }
@media (min-width: 48rem) { dl { grid-template-columns: 1fr 1fr; column-gap: 2rem; } }
@media print { :root { --ground: #fff; } details { break-inside: avoid; } }
"""


def page(rows: Sequence[_report.Row], seen_by: str, when: str) -> str:
    """Return the page; `when` is in UTC. Every name and text is escaped."""
    ordered = _report.in_order(rows)
    sentence = _report.summary(rows)
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>doorward: {escape(sentence)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f'<header><p class="brand">doorward</p><h1>{escape(_as_title(sentence))}</h1>',
        f'<p class="soft">As seen from {escape(_report.plain(seen_by))}, {escape(when)}</p>',
        _tally(rows),
        "</header>",
        "<main>",
        *(_host(each, unfolded=each.state != _report.WELL or len(ordered) <= _OPEN_MAX) for each in ordered),
        "</main>",
        _FOOTER,
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _as_title(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _tally(rows: Sequence[_report.Row]) -> str:
    """Return how many hosts are in each state, in words."""
    counts = {state: sum(each.state == state for each in rows) for state in _CLASSES}
    items = [f'<li class="{_CLASSES[state]}">{count} {state}</li>' for state, count in counts.items() if count]
    return f'<ul class="tally">{"".join(items)}</ul>'


def _host(row: _report.Row, *, unfolded: bool) -> str:
    """Return one host: its name, its state in words, its line, and what was found."""
    found = "".join(map(_finding, row.findings if row.state != _report.NOT_REACHED else row.findings[1:]))
    return (
        f'<details class="{_CLASSES[row.state]}"{" open" if unfolded else ""}>'
        f'<summary class="{_CLASSES[row.state]}"><h2>{escape(row.host)}</h2><span class="tag">{row.state}</span>'
        f"<p>{escape(_line(row))}</p></summary><dl>{found}</dl></details>"
    )


def _line(row: _report.Row) -> str:
    """Return the line below a host's name; the findings below it say the rest of what is wrong."""
    if row.state != _report.NOT_WELL:
        return row.line.removeprefix(f"{row.host}: ").removeprefix(f"{_report.NOT_REACHED}: ")
    wrong = [_report.TOPICS[one.topic] for one in row.findings if one.state == _report.WRONG]
    return f"wrong: {', '.join(wrong)}; knows {', '.join(row.clients) or 'nobody'}"


def _finding(one: _report.Finding) -> str:
    word = f"<b>{_WORDS[one.state]}:</b> " if _WORDS[one.state] else ""
    return (
        f'<div class="{one.state}"><dt>{escape(_report.TOPICS[one.topic])}</dt>'
        f'<dd><i aria-hidden="true">{_MARKS[one.state]}</i><span>{word}{escape(one.text)}</span></dd></div>'
    )
