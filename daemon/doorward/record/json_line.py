"""A verdict as one JSON object on a line (LOG_FORMAT json): the keys of the line, numbers as numbers, and the time."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, Final

from doorward.record.line import pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.gate import Verdict
    from doorward.record.line import Carried, Suppressed

_TYPES: Final[dict[str, Callable[[str], Any]]] = {
    **dict.fromkeys(("origin_port", "stanza", "seconds", "suppressed"), int),
    "services": lambda listed: listed.split(","),
}


def json_line(verdict: Verdict | Suppressed | Carried, now: float, *, test: bool = False) -> str:
    """The object of a verdict, in printable ASCII; `now` in Unix seconds, `test` marks a daemon that opens nothing."""
    time = dt.datetime.fromtimestamp(now, dt.timezone.utc).isoformat(timespec="milliseconds")
    said: dict[str, Any] = {"time": time, **({"test": True} if test else {})}
    said.update((key, _TYPES.get(key, _plain)(value)) for key, value in pairs(verdict))
    return json.dumps(said).replace("\x7f", "\\u007f")  # json escapes every other control character


def _plain(value: str) -> str:
    """A text without lone surrogates, which few parsers of JSON accept."""
    return value.encode("utf-8", "replace").decode()
