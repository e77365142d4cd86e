"""One datagram to one verdict. Never raises, never silent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from doorward import policy
from doorward.crypto import symmetric
from doorward.errors import AuthenticationError, FirewallError, HelperError, ReplayError, WireError
from doorward.policy import Abilities, Denial, Facts
from doorward.values import Execution, Grant, Reason, address
from doorward.wire import fwknop

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.config.stanza import Stanza
    from doorward.values import Datagram, SymmetricKeys
    from doorward.wire.fwknop import Message

_RANK: Final = {reason: rank for rank, reason in enumerate(Reason)}
RECENT_MAX: Final = 4096  # payloads of at most 400 bytes
FUTURE_MAX: Final = 10_000  # a hundredth of the store
NO_ABILITIES: Final = Abilities()
_FOREVER: Final = 2**62  # Unix seconds: without ageing a packet never becomes too old to be accepted


class Memory(Protocol):
    """Where packets are remembered; ReplayStore, or a view of it that leaves no trace."""

    def remember(self, packet: bytes, made: int, until: int) -> bool:
        """Keep a packet and return whether it was new."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one datagram. `stanza` is the number of the one that decided, None where none fit."""

    reason: Reason
    datagram: Datagram
    stanza: int | None = None
    user: str | None = None
    grant: Grant | None = None
    execution: Execution | None = None
    detail: str = ""

    @property
    def granted(self) -> bool:
        """Whether the door is open."""
        return self.reason is Reason.GRANTED


@dataclass(slots=True)
class _Packet:
    """One datagram on its way past the stanzas, and what was remembered of it."""

    datagram: Datagram
    now: float
    new: dict[bytes, bool]


@dataclass(frozen=True, slots=True)
class _Way:
    """One stanza with what is prepared for its packets."""

    stanza: Stanza
    keys: SymmetricKeys
    everywhere: bool  # SOURCE and DESTINATION hold every address
    verify: symmetric.Verifier


def refuse_execution(execution: Execution) -> None:
    """Stand for doorward-exec where there is none.

    Raises:
        HelperError: always.
    """
    msg = f"nothing runs commands here, and stanza {execution.stanza} needs it"
    raise HelperError(msg)


class Gate:
    """The decision with its effects passed in: where packets are remembered and how a grant takes effect."""

    def __init__(  # noqa: PLR0913  what a decision rests on and what it may cause, each named
        self,
        stanzas: tuple[Stanza, ...],
        memory: Memory,
        open_grant: Callable[[Grant], None],
        max_age: int | None,
        *,
        abilities: Abilities = NO_ABILITIES,
        execute: Callable[[Execution], None] = refuse_execution,
    ) -> None:
        """Decide by `stanzas` in their order; `max_age` in seconds, None turns ageing off.

        `execute` hands an execution over and raises HelperError where nobody takes it.
        """
        self._ways = tuple(
            _Way(
                stanza,
                stanza.keys,
                stanza.source.everywhere and stanza.destination.everywhere,
                symmetric.Verifier(stanza.keys),
            )
            for stanza in stanzas
            if stanza.keys is not None
        )
        self._memory = memory
        self._open_grant = open_grant
        self._max_age = max_age
        self._abilities = abilities
        self._execute = execute
        self._recent: dict[bytes, int] = {}
        self._from_the_future = 0

    def judge(self, datagram: Datagram, now: float) -> Verdict:
        """Return the verdict of one datagram at `now` (Unix seconds), its effect done.

        An error that nobody foresaw opens nothing and ends nothing: it becomes a verdict of its own.
        """
        try:
            return self._judge(datagram, now)
        except Exception as error:  # noqa: BLE001  one packet must not end the daemon, and must not pass in silence
            return Verdict(Reason.INTERNAL, datagram, detail=f"{type(error).__name__}: {error}")

    def _judge(self, datagram: Datagram, now: float) -> Verdict:  # noqa: C901  a call a stanza would cost as much as its MAC
        """Return the verdict; the loop is what a flood runs through, and makes nothing until it must."""
        payload = datagram.payload
        try:
            fwknop.check(payload)
        except WireError as error:
            return Verdict(Reason.MALFORMED, datagram, detail=str(error))
        replayed = self._recent.get(payload)
        furthest: Verdict | None = None
        reason, number = Reason.NO_STANZA, None
        packet: _Packet | None = None
        for way in self._ways:
            stanza = way.stanza
            if not way.everywhere and not _concerns(stanza, datagram):
                continue
            if stanza.expires is not None and now >= stanza.expires:
                if reason is Reason.NO_STANZA:
                    reason, number = Reason.EXPIRED, stanza.number
                continue
            if replayed is not None:
                return Verdict(Reason.REPLAY, datagram, replayed)
            sealed = way.verify(payload)
            if sealed is None:
                if reason is not Reason.HMAC:
                    reason, number = Reason.HMAC, stanza.number
                continue
            packet = packet or _Packet(datagram, now, {})
            verdict = self._admit(way, packet, sealed)
            if packet.new:
                self._keep_recent(payload, stanza.number)
            if verdict.reason in _FINAL:
                return verdict
            if furthest is None or _RANK[verdict.reason] > _RANK[furthest.reason]:
                furthest = verdict
        return furthest or Verdict(reason, datagram, number)

    def _admit(self, way: _Way, packet: _Packet, sealed: bytes) -> Verdict:
        """Return the verdict of the stanza whose HMAC key made the packet."""
        stanza = way.stanza
        outcome = self._unseal(way.keys, packet, sealed)
        if isinstance(outcome, Denial):
            return Verdict(outcome.reason, packet.datagram, stanza.number, detail=outcome.detail)
        return self._decide(stanza, packet, outcome)

    def _unseal(self, keys: SymmetricKeys, packet: _Packet, sealed: bytes) -> Message | Denial:
        """Return the message of an authentic packet that was never seen before; it is remembered from here on."""
        try:
            blob = symmetric.decode(sealed)
            plaintext = symmetric.decrypt(blob, keys)
        except (WireError, AuthenticationError) as error:
            return Denial(Reason.DECRYPTION, str(error))
        try:
            message = fwknop.parse(plaintext)
        except WireError as error:
            return Denial(Reason.DECODE, str(error))
        try:
            new = self._is_new(hashlib.sha256(blob).digest(), packet, message)
        except ReplayError as error:
            return Denial(Reason.STORE, str(error))
        return message if new else Denial(Reason.REPLAY)

    def _keep_recent(self, payload: bytes, number: int) -> None:
        """Keep an authentic payload that the memory knows, so that sending it again in a flood costs next to nothing.

        Whatever is pushed out here is still in the memory.
        """
        if len(self._recent) >= RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self._recent[payload] = number

    def _is_new(self, name: bytes, packet: _Packet, message: Message) -> bool:
        """Remember once a packet, however many stanzas share its keys.

        A packet from the future is kept until it has become too old, or it could be sent again when its time has come.
        """
        if name not in packet.new:
            self._bound_the_future(packet.now, message)
            newest = max(packet.now, float(message.time))
            until = _FOREVER if self._max_age is None else int(newest) + 2 * self._max_age
            packet.new[name] = self._memory.remember(name, message.time, until)
        return packet.new[name]

    def _bound_the_future(self, now: float, message: Message) -> None:
        """Keep one client's keys from filling the store with what it may never forget; such a packet opens nothing.

        Raises:
            ReplayError: too many were remembered.
        """
        if self._max_age is None or message.time - now <= self._max_age:
            return
        if self._from_the_future >= FUTURE_MAX:
            msg = f"more than {FUTURE_MAX} packets from the future"
            raise ReplayError(msg)
        self._from_the_future += 1

    def _decide(self, stanza: Stanza, packet: _Packet, message: Message) -> Verdict:
        origin, destination = address(packet.datagram.origin), address(packet.datagram.destination)
        facts = Facts(stanza, message, origin, destination, packet.now, self._max_age, self._abilities)
        decision = policy.decide(facts)
        verdict = Verdict(Reason.GRANTED, packet.datagram, stanza.number, message.user)
        if isinstance(decision, Denial):
            return replace(verdict, reason=decision.reason, detail=decision.detail)
        if isinstance(decision, Execution):
            return self._do_execute(replace(verdict, execution=decision), decision)
        return self._do_open(replace(verdict, grant=decision), decision)

    def _do_open(self, verdict: Verdict, grant: Grant) -> Verdict:
        try:
            self._open_grant(grant)
        except FirewallError as error:
            return replace(verdict, reason=Reason.FIREWALL, detail=str(error))
        return verdict

    def _do_execute(self, verdict: Verdict, execution: Execution) -> Verdict:
        try:
            self._execute(execution)
        except HelperError as error:
            return replace(verdict, reason=Reason.COMMAND, detail=str(error))
        return verdict


def _concerns(stanza: Stanza, datagram: Datagram) -> bool:
    return datagram.origin in stanza.source and datagram.destination in stanza.destination


_FINAL: Final = frozenset({Reason.GRANTED, Reason.FIREWALL, Reason.COMMAND, Reason.STORE, Reason.REPLAY})
