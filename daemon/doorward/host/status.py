"""The command `doorward status`: open grants, our table, and other firewalls."""

from __future__ import annotations

import json
import math
import shlex
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from doorward import __version__
from doorward.commands import journal
from doorward.commands.journal import Moment
from doorward.config.access import Access
from doorward.firewall import ruleset
from doorward.firewall.elements import ANYONE
from doorward.firewall.libnftables import Libnftables
from doorward.firewall.standing import Word, lasting, opening
from doorward.host.causes import Cause, legend
from doorward.host.here import DONE, FAILED, Answer, Host, packet_filter
from doorward.host.running import holder
from doorward.processes.configuration import Configuration
from doorward.record.counters import counters_beside, published
from doorward.values import Protocol

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable, Iterator

    from doorward.commands.journal import Cycle
    from doorward.config.settings import DaemonSettings
    from doorward.firewall.forwards import Forward
    from doorward.firewall.standing import Standing
    from doorward.values import LiveGrant, Nat, Service

_ORDER: Final = tuple(Word)
_OVERDUE: Final = 5  # seconds; doorward-exec looks every second
EPILOG: Final = f"""\
Without root, or with --me: who am I to the hosts that I knock at, for which hosts have I keys, how do they see me, is
my clock right. The exit code is then 0 where all is well, 1 where something is not, 3 for a mistake in ~/.fwknoprc,
and 4 on a host, about which only root is told.

As root it is about the host: the exit code is 0 where the host is closed and well, else 1. Every cause has a line
`NOT WELL: WORD: …`, and an entry in `causes` of --json. A grant of one address is no cause.

{legend()}
"""


def report(host: Host, arguments: argparse.Namespace) -> Answer:
    """The status of daemon, firewall and grants."""
    settings = host.settings_or_defaults(arguments)
    pid = holder(settings.pid_file)
    held, standing, grants = _held(host, settings)
    packets, heard, share = (pid is not None and published(counters_beside(settings.replay_file))) or (None, None, None)
    found = {
        "version": __version__,
        "running": pid is not None,
        "pid": pid,
        "pid_file": str(settings.pid_file),
        **held,
        "cycles": [_cycle_words(cycle) for cycle in journal.listed(settings.exec_folder)],
        "packets": packets,
        "heard": heard or None,
        **({} if settings.replay_share is None else {"share": share or None}),
    }
    causes = sorted(_causes(found, standing), key=lambda one: _ORDER.index(one.word))
    shown = found | {"well": not causes, "causes": [{"word": one.word.value, "text": one.text} for one in causes]}
    text = json.dumps(shown) if arguments.json else _status_text(found, grants, causes)
    return Answer(text, FAILED if causes else DONE)


def _causes(found: dict[str, Any], standing: Standing) -> Iterator[Cause]:
    """Yield every cause that keeps the host from being closed and well."""
    if not found["running"]:
        yield Cause(Word.DOWN, f"doorwardd is not running, by {found['pid_file']}")
    yield from _causes_in_table(found, standing)
    if found["pending"]:
        left = found["pending_seconds"]
        yield Cause(Word.PENDING, f"the table waits for `doorward firewall confirm`, for {left} s more")
    yield from (Cause(Word.FOREIGN, line) for line in found["foreign_drops"])
    for cycle in found["cycles"]:
        if cycle["failures"] or cycle["remaining"] < -_OVERDUE:
            yield Cause(
                Word.OVERDUE, f"the command cycle of stanza {cycle['stanza']}{_named(cycle)} for {cycle['source']}"
            )


def _causes_in_table(found: dict[str, Any], standing: Standing) -> Iterator[Cause]:
    """Yield what keeps our table from closing the host."""
    yield from (Cause(word, text) for word, text in standing.doubts)
    if found["table"] in {"drop", "guard"} and found["forwarded"] and not found["closes_forwarded"]:
        yield Cause(Word.OPEN, f"what other programs forward passes table {ruleset.TABLE}, which is an older one")


def _held(host: Host, settings: DaemonSettings) -> tuple[dict[str, Any], Standing, tuple[LiveGrant, ...]]:
    """The state of our table, its grants, and other firewalls that can drop them."""
    served = Configuration(settings, Access((), ()), ()).served
    with closing(packet_filter(settings, host.switch_folder)) as firewall:
        table, foreign, listed = firewall.table(), firewall.foreign(), firewall.grants()
        standing = firewall.standing(served, listed)
        switch = host.switch(Libnftables())
        gate = firewall.gate()
        grants = tuple(grant for grant in listed if gate is None or not _is_guarded(grant, served))
        held = {
            "table": table.kind if table else "absent",
            "closed": standing.closed,
            "pending": switch.pending() is not None,
            "pending_seconds": switch.seconds_left(),
            "gate": None if gate is None else {"tags": gate.tags, "refused": gate.refused},
            "grants": [grant_words(grant) for grant in grants],
            "foreign_firewall": str(settings.foreign_firewall),
            "closes_forwarded": table is not None and table.closes_forwarded,
            "forwarded": [_forward_words(*one) for one in firewall.forwarded()],
            "foreign_drops": [*foreign.findings(), *foreign.without_sessions()],
        }
    return held, standing, grants


def _is_guarded(grant: LiveGrant, served: Collection[Service]) -> bool:
    """Whether a grant is the port of our UDP server, which is open to what the kernel gate lets pass."""
    service = grant.service
    return grant.source == ANYONE and service in served and service is not None and service.protocol is Protocol.UDP


def _status_text(found: dict[str, Any], grants: Iterable[LiveGrant], causes: list[Cause]) -> str:
    """The status as text."""
    running = f"running, PID {found['pid']}" if found["running"] else f"NOT RUNNING (by {found['pid_file']})"
    lines = [f"doorwardd {found['version']}: {running}", *_held_text(found, grants), *map(_cycle_text, found["cycles"])]
    if found["heard"]:
        lines.append(f"knocks: {found['heard']}")
    if found.get("share"):
        lines.append(f"share: {found['share']}")
    if found["packets"]:
        lines.append("packets: " + ", ".join(f"{word} {count}" for word, count in found["packets"].items()))
    if not (found["cycles"] or found["grants"] or any(cause.exposes for cause in causes)):
        lines.append("nothing is open")
    return "\n".join([*lines, *map(str, causes)])


def _held_text(found: dict[str, Any], grants: Iterable[LiveGrant]) -> list[str]:
    """Table, other firewalls and grants as text."""
    return [
        f"table {ruleset.TABLE}: {found['table']}{', waiting to be confirmed' if found['pending'] else ''}",
        *([] if found["gate"] is None else [_gate_text(**found["gate"])]),
        *(f"another firewall: {line}" for line in found["foreign_drops"]),
        *(f"forwarded by another program: {_forward_text(one)}" for one in found["forwarded"]),
        *map(grant_text, grants),
    ]


def _gate_text(tags: int, refused: int) -> str:
    """The kernel gate as text."""
    return f"kernel gate: {tags} tags, {refused} packets refused"


def _forward_words(one: Forward, closed: bool) -> dict[str, Any]:  # noqa: FBT001  a pair of forwarded()
    """A rule of others that forwards, for JSON; `service` is null where it is not one port."""
    return {
        "service": None if one.service is None else str(one.service),
        "target": one.target,
        "place": one.place,
        "closed": closed,
    }


def _forward_text(one: dict[str, Any]) -> str:
    """The same as text."""
    closed = "closed without a grant" if one["closed"] else "not closed by this table"
    return f"{one['service'] or 'what its rule matches'} to {one['target']} ({one['place']}): {closed}"


def grant_words(grant: LiveGrant) -> dict[str, Any]:
    """A grant for JSON; `remaining` is null for a permanent one, `service` null for all services."""
    words: dict[str, Any] = {
        "source": "any" if grant.source == ANYONE else grant.whence,
        "service": None if grant.service is None else str(grant.service),
        "remaining": None if math.isinf(grant.remaining) else grant.remaining,
    }
    if grant.nat is not None:
        words |= {"nat": _nat_words(grant.nat)}
    if grant.os is not None:
        words |= {"os": grant.os}
    if grant.name is not None:
        words |= {"name": grant.name}
    return words | ({} if grant.destination is None else {"destination": str(grant.destination)})


def grant_text(grant: LiveGrant, *, of: bool = True) -> str:
    """The same as text, with `of` whom it is."""
    source = "any" if grant.source == ANYONE else grant.whence
    named = f", {grant.name}" if of and grant.name is not None else ""
    return f"open: {source} {opening(grant)} {lasting(grant)}{named}"


def _nat_words(nat: Nat) -> dict[str, Any]:
    """The NAT of a grant for JSON; `target` null is this host, `port` null all ports."""
    return {
        "target": None if nat.target is None else "everywhere" if nat.everywhere else str(nat.target),
        "port": nat.port,
        "rewrite": nat.rewrite,
        "snat": None if nat.snat is None else str(nat.snat),
        "masquerade": nat.masquerade,
    }


def _cycle_words(cycle: Cycle) -> dict[str, Any]:
    """A command cycle for JSON; `remaining` below 0 is overdue."""
    return {
        "source": cycle.source,
        "stanza": cycle.stanza,
        **({} if cycle.client is None else {"name": cycle.client}),
        "close": shlex.join(cycle.close),
        "remaining": cycle.remaining(Moment.now()),
        "failures": cycle.failures,
    }


def _cycle_text(cycle: dict[str, Any]) -> str:
    """The same for people."""
    failed = f", CLOSING FAILED {cycle['failures']} times" if cycle["failures"] else ""
    about = f"(stanza {cycle['stanza']}{_named(cycle)})"
    return f"open by command: {cycle['source']} for {cycle['remaining']:.0f} s {about}{failed}"


def _named(opened: dict[str, Any]) -> str:
    """Whose grant or cycle it is, as text."""
    return f", {opened['name']}" if "name" in opened else ""
