"""The command `doorward who`: live grants, and the connections that came through one, by the name of the client.

Connection tracking knows the connections, the packet filter the live grants, and the helper's record
(record/granted.py) those that have ended. A connection is of whom its source and service were granted to when it began.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from doorward.frozen import dataclass
from doorward.host.here import Answer, Host, add_json, packet_filter, runs
from doorward.host.status import grant_text, grant_words
from doorward.linux import sessions
from doorward.record import granted
from doorward.record.granted import Record
from doorward.values import Service

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from doorward.linux.sessions import Flow
    from doorward.record.granted import Granted
    from doorward.values import LiveGrant

_UNKNOWN: Final = "(no name)"
_EPILOG: Final = """\
A connection is of the client to whom its source and service were granted when it began; where two clients have one
address, both are named. Times are exact where the kernel keeps them (sysctl net.netfilter.nf_conntrack_timestamp=1 for
connections from then on), else the first and the last moment at which it can have begun. `doorward close --from ADDRESS
--sessions` ends them.
"""


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that came through a grant; it began between `first` and `last` (Unix seconds).

    `names` are those to whom it can have been granted; None stands for a stanza without one.
    """

    flow: Flow
    service: Service
    names: tuple[str | None, ...]
    first: float
    last: float


def add_who(subparsers: argparse._SubParsersAction[Any], host: Host) -> None:
    """Add `who`."""
    words = "on a host: who is in: live grants, and the connections that came through one, by client"
    parser = subparsers.add_parser("who", help=words, description=words, epilog=_EPILOG)
    add_json(parser)
    runs(parser, host, _who)


def _who(host: Host, arguments: argparse.Namespace) -> Answer:
    settings = host.settings_or_defaults(arguments)
    with closing(packet_filter(settings)) as firewall:
        live = firewall.grants()
    record = Record(granted.read(settings.run_folder))
    found = sorted(through(sessions.of_sources(record.knows), record, time.time()), key=_order)
    if arguments.json:
        said = {"grants": [grant_words(one) for one in live], "connections": [_words(one) for one in found]}
        return Answer(json.dumps(said))
    return Answer("\n".join(_text(live, found)) or "nobody is in")


def through(flows: Iterable[Flow], record: Record, now: float) -> Iterator[Connection]:
    """Yield the established connections of others that came through one of these grants; `now` in Unix seconds."""
    for flow in flows:
        fitting = record.fitting(flow)
        if fitting:
            yield _connection(flow, fitting, now)


def _connection(flow: Flow, fitting: list[Granted], now: float) -> Connection:
    names = tuple(dict.fromkeys(entry.name for entry in fitting))
    first, last = min(entry.begun for entry in fitting), min(now, max(entry.ended for entry in fitting))
    exact = flow.began
    service = Service(flow.protocol, flow.asked.port)
    return Connection(flow, service, names, *((first, last) if exact is None else (exact, exact)))


def _order(one: Connection) -> tuple[Any, ...]:
    return _named(one.names), one.first, int(one.flow.source.address), one.flow.source.port


def _named(names: Iterable[str | None]) -> str:
    return " or ".join(name or _UNKNOWN for name in names)


def _words(one: Connection) -> dict[str, Any]:
    """A connection for JSON; `name` is null where two clients can have begun it, or the stanza has none."""
    led = one.flow.asked != one.flow.answering
    return {
        "name": one.names[0] if len(one.names) == 1 else None,
        "names": list(one.names),
        "source": str(one.flow.source.address),
        "source_port": one.flow.source.port,
        "service": str(one.service),
        "target": f"{one.flow.answering.address},{one.flow.answering.port}" if led else None,
        "since": _time(one.first) if one.first == one.last else None,
        "between": [_time(one.first), _time(one.last)],
    }


def _text(live: Iterable[LiveGrant], found: Iterable[Connection]) -> Iterator[str]:
    """Yield the lines, by name."""
    lines: dict[str, list[str]] = {}
    for grant in live:
        lines.setdefault(_named([grant.name]), []).append(grant_text(grant, of=False))
    for one in found:
        lines.setdefault(_named(one.names), []).append(_line(one))
    for name in sorted(lines):
        yield name
        yield from (f"  {line}" for line in lines[name])


def _line(one: Connection) -> str:
    words = _words(one)
    led = f" to {words['target']}" if words["target"] else ""
    since = f"since {words['since']}" if words["since"] else "began between {} and {}".format(*words["between"])
    return f"in: {words['source']} port {words['source_port']} {words['service']}{led}, {since}"


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).isoformat(" ", "seconds")
