"""SESSION_MAX and KEEP_WHILE_USED: connections that end by themselves, and grants that live while they are used.

Both look at connection tracking every two seconds, on hosts whose stanzas ask for it. Whose a connection is: see
record/granted.py. In doubt nothing is ended: a connection that another grant can have let in goes on.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.linux import sessions
from doorward.record import granted
from doorward.record.granted import Granted, Record
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from doorward.config.stanza import Stanza
    from doorward.firewall.nftables import Nftables
    from doorward.helper.limits import Ledger
    from doorward.linux.sessions import Flow
    from doorward.record.log import Log
    from doorward.values import LiveGrant

_EVERY: Final = 2.0  # seconds between two looks
_REST: Final = 20  # times the duration of a look, before the next one
KEPT: Final = 30  # seconds for which a grant is kept each time, and so at most after its last connection
_LOW: Final = 15.0  # seconds that remain of a grant when it is kept on
_HELD_MAX: Final = 50_000  # grants in memory, some 25 MB


class Sessions:
    """The connections of the stanzas in force. Logs all events, and raises nothing."""

    def __init__(self, log: Log) -> None:
        """Look at nothing before follow()."""
        self._log = log
        self._stanzas: dict[str | None, list[Stanza]] = {}
        self._limiting = self._keeping = False
        self._held: list[Granted] | None = None  # None where no stanza needs it
        self._record = Record()
        self._began: dict[bytes, float] = {}  # connections without a time of their own: Unix seconds
        self._next = 0.0
        self._failed = ""

    def follow(self, folder: Path, stanzas: Iterable[Stanza]) -> None:
        """Look after the connections of these stanzas; `folder` has the record of earlier processes."""
        self._stanzas = {}
        for stanza in stanzas:
            for name in {stanza.name, *(client.name or stanza.name for client in stanza.clients)}:
                self._stanzas.setdefault(name, []).append(stanza)
        found = [stanza for some in self._stanzas.values() for stanza in some]
        self._limiting = any(one.session_max is not None for one in found)
        self._keeping = any(one.keep_while_used for one in found)
        if not self._limiting:
            self._held, self._record, self._began = None, Record(), {}
        elif self._held is None:
            self._held = granted.read(folder)
            self._record = Record(self._held)

    def opened(self, entries: Collection[Granted]) -> None:
        """Remember new grants."""
        if self._held is None:
            return
        self._held.extend(entries)
        if len(self._held) > _HELD_MAX:
            self._held = self._held[-_HELD_MAX // 2 :]
            self._record = Record(self._held)
        else:
            self._record.add(entries)

    def look(self, now: float, firewall: Nftables, ledger: Ledger, withdraw: Callable[[], None]) -> None:
        """End connections that are too old, and keep grants that are used, if it is time.

        `now` in seconds of time.monotonic(). `withdraw` has the ledger forget what root has closed meanwhile.
        """
        if not (self._limiting or self._keeping) or now < self._next:
            return
        try:
            if self._limiting:
                self._end_old(firewall)
            if self._keeping:
                self._keep_used(firewall, ledger, withdraw)
        except FirewallError as error:
            if self._failed != str(error):  # once, not every two seconds
                self._log.error("SESSION_MAX and KEEP_WHILE_USED have no effect: %s", error)
            self._failed = str(error)
        else:
            self._failed = ""
        ended = time.monotonic()
        self._next = ended + max(_EVERY, _REST * (ended - now))

    def _end_old(self, firewall: Nftables) -> None:
        now = time.time()
        flows = sessions.of_sources(self._record.knows) if self._held else []
        self._began = {flow.key: self._began[flow.key] for flow in flows if flow.key in self._began}
        old = [(flow, *found) for flow in flows if (found := self._too_old(flow, now))]
        if not old:
            return
        ended = [flow for flow, _, _ in old]
        firewall.keep_ended(
            (flow.source.address, Service(flow.protocol, flow.answering.port))
            for flow in ended
            if flow.protocol is Protocol.UDP
        )
        try:
            sessions.end_sockets_of(ended)
        finally:
            sessions.end(ended)
        for flow, limit, names in old:
            service = Service(flow.protocol, flow.asked.port)
            self._log.info("ended: %s port %d %s, %s: SESSION_MAX %d", *_from(flow), service, names, limit)

    def _too_old(self, flow: Flow, now: float) -> tuple[int, str] | None:
        """The limit that a connection has exceeded, and whose it is."""
        fitting = self._record.fitting(flow)
        limits = [self._limit(entry) for entry in fitting]
        known = [limit for limit in limits if limit is not None]
        if not known or len(known) < len(limits):
            return None
        began = flow.began
        if began is None:  # at the latest when it is seen first; for one of before, when its last grant began
            began = self._began.setdefault(flow.key, max(entry.begun for entry in fitting))
        names = " or ".join(dict.fromkeys(entry.name or "no name" for entry in fitting))
        return (max(known), names) if now - began > max(known) else None

    def _limit(self, entry: Granted) -> int | None:
        """The longest time that a stanza allows the connections of a grant, in seconds; None for any."""
        limits = [one.session_max for one in self._of(entry.name, entry.service)]
        known = [limit for limit in limits if limit is not None]
        return max(known) if known and len(known) == len(limits) else None

    def _of(self, name: str | None, service: Service | None) -> list[Stanza]:
        """The stanzas that can have granted a service under a name."""
        return [one for one in self._stanzas.get(name, ()) if _opens(one, service)]

    def _keep_used(self, firewall: Nftables, ledger: Ledger, withdraw: Callable[[], None]) -> None:
        withdraw()
        low = [one for one in ledger.live(time.monotonic()) if one.remaining < _LOW and self._is_kept(one)]
        if not low:
            return
        record = Record(map(_at_any_time, low))
        used = {entry for flow in sessions.of_sources(record.knows) for entry in record.fitting(flow)}
        kept = [replace(one, remaining=float(KEPT)) for one in low if _at_any_time(one) in used]
        if not kept:
            return
        firewall.prolong(kept)
        withdraw()  # what root closed in this moment stays closed
        gone = [one for one in kept if not ledger.prolong(one, time.monotonic())]
        if gone:
            firewall.end(gone, ledger.live(time.monotonic()))

    def _is_kept(self, live: LiveGrant) -> bool:
        now, stanzas = time.time(), self._of(live.name, live.service)
        return bool(stanzas) and all(
            one.keep_while_used and (one.expires is None or now < one.expires) for one in stanzas
        )


def _opens(stanza: Stanza, service: Service | None) -> bool:
    return service is None or stanza.open_ports is None or stanza.any_ports or service in stanza.open_ports


def _at_any_time(live: LiveGrant) -> Granted:
    target, port = (None, None) if live.nat is None else (live.nat.target, live.nat.port)
    return Granted(0.0, math.inf, live.network, live.service, target, port, live.name)


def _from(flow: Flow) -> tuple[str, int]:
    return str(flow.source.address), flow.source.port
