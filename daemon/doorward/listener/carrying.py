"""Grants that one of two gateways tells the other, so that a fail-over shuts no door that was just opened.

A record is authenticated by keys of the stanza that granted it, and opens here at most once, for what is left of its
window, and only what a stanza with these keys allows here. So whoever can write to the share can open nothing.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.crypto.grant_record import ID_BYTES, NONCE_BYTES, key_of
from doorward.errors import AuthenticationError, FirewallError, HelperError, ReplayError, ShareError
from doorward.frozen import dataclass
from doorward.helper.limits import Limits
from doorward.linux.codec import Codec
from doorward.listener.share import TELLING
from doorward.record.line import Carried
from doorward.values import Grant  # noqa: TC001  the codec reads the hints
from doorward.wire.resp import ENTRIES_MAX, RECORD_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.config.access import Access
    from doorward.config.stanza import Stanza
    from doorward.crypto.grant_record import RecordKey
    from doorward.gate import Memory
    from doorward.listener.share import Share
    from doorward.values import Permissions, Secret

CLOCKS_APART: Final = 5.0  # seconds that nobody explains by a poll a second and by replication
UNTOLD_MAX: Final = 256  # records that the share has not taken yet
_SECOND: Final = 1000  # milliseconds
_OVERHEAD: Final = ID_BYTES + NONCE_BYTES + 16  # bytes: and the tag


@dataclass(frozen=True, slots=True)
class Told:
    """What one gateway tells the other: a grant, and when it ends by its clock, in Unix milliseconds."""

    grant: Grant
    end: int


CODEC: Final = Codec[Told](b"G", Told, RECORD_MAX - _OVERHEAD)


class _Keyed(NamedTuple):
    """The stanzas that have one key, and what they allow."""

    key: RecordKey
    limits: Limits


class Carrier:
    """Tells the other gateway of grants, and opens those that it tells of."""

    def __init__(
        self, share: Share, store: Memory, open_grant: Callable[[Grant], None], publish: Callable[[Carried], None]
    ) -> None:
        """Remember records in `store`, this host's own; `publish` gets what came of each record that has a line."""
        self._share = share
        self._store = store
        self._open_grant = open_grant
        self._publish = publish
        self._host_key: Secret | None = None
        self._keyed: dict[bytes, _Keyed] = {}
        self._kept = 0  # seconds for which a record is remembered at least
        self._untold: list[tuple[bytes, int]] = []  # records, and when they end
        self._caught_up = False  # whether the next records are those of the last moment

    def follow(self, access: Access, permissions: Permissions, max_age: int) -> None:
        """Take the stanzas of a configuration; packets are accepted for `max_age` seconds."""
        found: dict[bytes, tuple[RecordKey, list[Stanza]]] = {}
        for stanza in access.stanzas:
            key = key_of(stanza, access.host_key)
            if key is not None:
                found.setdefault(key.name, (key, []))[1].append(stanza)
        self._keyed = {name: _Keyed(key, Limits(tuple(some), permissions)) for name, (key, some) in found.items()}
        self._host_key = access.host_key
        self._kept = 2 * max_age

    def post(self, stanza: Stanza, grant: Grant, now: float) -> None:
        """Tell the other gateway of a grant that was opened at `now` (Unix seconds)."""
        key = key_of(stanza, self._host_key)
        if key is None:
            return
        end = int((now + grant.seconds) * _SECOND)
        try:
            record = key.seal(CODEC.encode(Told(grant, end)), os.urandom(NONCE_BYTES))
            self._is_new(record, now, end)  # or it would be opened here again, after root has closed it
        except (HelperError, ReplayError) as error:
            self._publish(Carried(grant, f"the other gateway is not told: {error}"))
            return
        self._untold = [*self._untold, (record, end)][-UNTOLD_MAX:]
        self.tell(now)

    def tell(self, now: float) -> None:
        """Append the records that the share has not taken, unless they have ended by `now`; a slow one gets some."""
        deadline = time.monotonic() + TELLING
        while self._untold and time.monotonic() < deadline:
            record, end = self._untold[0]
            if end > now * _SECOND:
                try:
                    self._share.append(record)
                except ShareError:
                    return
            del self._untold[0]

    def take(self, now: float) -> None:
        """Open the grants that the share has and that were not opened here, at `now` (Unix seconds)."""
        try:
            entries = self._share.read()
        except ShareError:
            self._caught_up = False
            return
        strange = []
        for entry in entries:
            try:
                outcome = self._take(entry.content, now)
            except AuthenticationError as error:
                strange.append(str(error))
                continue
            if outcome is not None:
                self._publish(outcome)
        if strange:  # one line, whatever whoever writes to the share makes up
            self._publish(Carried(None, f"{len(strange)} records, of which the last one: {strange[-1]}"))
        self._caught_up = len(entries) < ENTRIES_MAX

    def _take(self, record: bytes, now: float) -> Carried | None:
        """What came of a record; None where it was taken before, or is over.

        Raises:
            AuthenticationError: no gateway of this pair made it.
        """
        told, limits = self._told(record)
        grant, left = told.grant, told.end / _SECOND - now
        age = grant.seconds - left
        apart = self._apart(age)
        if age < -CLOCKS_APART or left < 1:
            return Carried(grant, apart) if apart else None
        opened = replace(grant, seconds=min(grant.seconds, int(left)))
        try:
            if not self._is_new(record, now - age, told.end):
                return None
            refusal = limits.refuses(grant, now)
            if refusal is None:
                self._open_grant(opened)
        except (FirewallError, ReplayError) as error:
            refusal = str(error)
        return Carried(opened, refusal or apart, opened=refusal is None)

    def _told(self, record: bytes) -> tuple[Told, Limits]:
        keyed = self._keyed.get(record[:ID_BYTES])
        if keyed is None:
            msg = "no stanza here has the keys that it names"
            raise AuthenticationError(msg)
        try:
            return CODEC.decode(keyed.key.unseal(record)), keyed.limits
        except HelperError as error:
            msg = f"it is of another version of doorward: {error}"
            raise AuthenticationError(msg) from error

    def _apart(self, age: float) -> str:
        """What the age of a record, in seconds, says about the clocks; nothing of one that may have waited for us."""
        if age < -CLOCKS_APART:
            return f"granted {-age:.0f} s from now: the clocks of the gateways are apart"
        if self._caught_up and age > CLOCKS_APART:
            return f"granted {age:.0f} s ago: the clocks of the gateways are apart, or it came late"
        return ""

    def _is_new(self, record: bytes, made: float, end: int) -> bool:
        """Remember a record, so that it opens once; return whether it was new.

        It is not forgotten before the packets of its time, or they would be forgotten with it.
        """
        until = int(max(end / _SECOND, made + self._kept)) + 1
        return self._store.remember(hashlib.sha256(record).digest(), int(made), until)
