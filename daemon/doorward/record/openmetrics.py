"""Metrics as text that OpenMetrics 1.0 and Prometheus' older text format 0.0.4 read alike.

node_exporter's textfile collector reads the older one, in which a counter's family has the name of its samples; in
OpenMetrics it has not (`_total` is left out). So counters have no TYPE line: both take that as "type unknown". The type
changes no query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Sample(NamedTuple):
    """One value, with the labels that distinguish it from others of its family."""

    value: float
    labels: Mapping[str, str]


class Family(NamedTuple):
    """All values of one name. A name that ends in `_total` is a counter, any other a gauge."""

    name: str
    about: str
    samples: tuple[Sample, ...]


def gauge(name: str, about: str, value: float, **labels: str) -> Family:
    """A family of one value; one that ends in `_total` is a counter."""
    return Family(name, about, (Sample(value, labels),))


def text(families: Iterable[Family]) -> bytes:
    """The families as a file; one without values is left out."""
    lines = [line for family in families if family.samples for line in _lines(family)]
    return "".join(f"{line}\n" for line in (*lines, "# EOF")).encode()


def _lines(family: Family) -> Iterator[str]:
    if not family.name.endswith("_total"):
        yield f"# TYPE {family.name} gauge"
    yield f"# HELP {family.name} {_escaped(family.about)}"
    for value, labels in family.samples:
        pairs = ",".join(f'{name}="{_escaped(label)}"' for name, label in labels.items())
        yield f"{family.name}{{{pairs}}} {value}" if pairs else f"{family.name} {value}"


def _escaped(words: str) -> str:
    """A text in which nothing ends a line or a label; what UTF-8 does not have is replaced by `?`."""
    plain = words.encode("utf-8", "replace").decode()
    return plain.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
