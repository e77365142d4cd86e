"""One datagram to one verdict. Never raises, never silent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from doorward import policy
from doorward.crypto import openpgp, symmetric
from doorward.crypto.openpgp import Status, Unsealed
from doorward.errors import AuthenticationError, FirewallError, HelperError, ReplayError, WireError
from doorward.policy import Abilities, Denial, Facts
from doorward.values import DigestType, Execution, Grant, Reason, address
from doorward.wire import fwknop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doorward.config.stanza import OpenPgp, Stanza
    from doorward.values import Datagram, SymmetricKeys
    from doorward.wire.fwknop import Message

_RANK: Final = {reason: rank for rank, reason in enumerate(Reason)}
RECENT_MAX: Final = 4096  # payloads, most of 200 bytes, none of more than 1500
STRANGERS_MAX: Final = 32_768  # digests of OpenPGP payloads without HMAC, some 6 MB
FUTURE_MAX: Final = 10_000  # a hundredth of the store
NO_ABILITIES: Final = Abilities()
_HQ: Final = fwknop.GPG_PREFIX
_FOREVER: Final = 2**62  # Unix seconds: without ageing a packet never becomes too old to be accepted


class Memory(Protocol):
    """Where packets are remembered; ReplayStore, or a view of it that leaves no trace."""

    def remember(self, packet: bytes, made: int, until: int) -> bool:
        """Keep a packet and return whether it was new."""


class Unsealer(Protocol):
    """Who decrypts OpenPGP messages; the answers go to Gate.resume()."""

    def submit(self, how: OpenPgp, blob: bytes, *, authentic: bool) -> int | None:
        """Return the number under which the answer will come, or None where there is no room for another message."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one datagram. `stanza` is the number of the one that decided, None where none fit."""

    reason: Reason
    datagram: Datagram
    stanza: int | None = None
    user: str | None = None
    grant: Grant | None = None
    execution: Execution | None = None
    signer: str | None = None  # the fingerprint of whoever signed an OpenPGP packet, where gpg found it good
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
    kept: bool = False  # what is kept of it was kept just now


@dataclass(frozen=True, slots=True)
class _Pending:
    """An OpenPGP packet that waits for its plaintext; `place` is the way that it is on."""

    packet: _Packet
    place: int
    furthest: Verdict


@dataclass(frozen=True, slots=True)
class _OpenPgpWay:
    """One stanza with what is prepared for its OpenPGP packets."""

    stanza: Stanza
    how: OpenPgp
    verify: symmetric.Verifier


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
        unsealer: Unsealer | None = None,
    ) -> None:
        """Decide by `stanzas` in their order; `max_age` in seconds, None turns ageing off.

        `execute` hands an execution over and raises HelperError where nobody takes it. Without an `unsealer` OpenPGP
        packets are not looked at.
        """
        self._ways = tuple(
            _Way(
                stanza,
                stanza.keys,
                stanza.source.everywhere and stanza.destination.everywhere,
                symmetric.Verifier(stanza.keys.hmac_key, stanza.keys.hmac_digest),
            )
            for stanza in stanzas
            if stanza.keys is not None
        )
        self._openpgp_ways = tuple(
            _OpenPgpWay(one, how, symmetric.Verifier(how.hmac_key, how.hmac_digest or DigestType.SHA256, _HQ))
            for one, how in ((stanza, stanza.openpgp) for stanza in stanzas)
            if how is not None
        )
        self._unsealer = unsealer
        self._pending: dict[int, _Pending] = {}
        self._memory = memory
        self._open_grant = open_grant
        self._max_age = max_age
        self._abilities = abilities
        self._execute = execute
        self._recent: dict[bytes, int] = {}
        self._strangers: dict[bytes, tuple[int, float]] = {}  # the stanza's number, and when
        self._blind_until = 0.0  # Unix seconds: what was made earlier may have been seen and pushed out
        self._from_the_future = 0

    def go_on_from(self, other: Gate) -> None:
        """Take over what another gate has seen, after a reload."""
        self._recent, self._strangers = other._recent, other._strangers
        self._blind_until, self._from_the_future = other._blind_until, other._from_the_future

    def judge(self, datagram: Datagram, now: float) -> Verdict:
        """Return what take() returns, for gates whose verdicts wait for nobody; one that would have to is BUSY."""
        verdict = self.take(datagram, now)
        return next(self.give_up()) if verdict is None else verdict

    def take(self, datagram: Datagram, now: float) -> Verdict | None:
        """Return the verdict of one datagram at `now` (Unix seconds), its effect done.

        None where it waits for its plaintext: the verdict then comes from resume(), or give_up(). An error that nobody
        foresaw opens nothing and ends nothing: it becomes a verdict of its own.
        """
        try:
            return self._judge(datagram, now)
        except Exception as error:  # noqa: BLE001  one packet must not end the daemon, and must not pass in silence
            return Verdict(Reason.INTERNAL, datagram, detail=f"{type(error).__name__}: {error}")

    def resume(self, number: int, answer: Unsealed | str | None) -> Verdict | None:
        """Return the verdict of a packet that waited, None where it waits for another keyring now, or is none of ours.

        `answer` is what came out of it, or why gpg refuses it, or None where nobody has looked at it.
        """
        pending = self._pending.pop(number, None)
        if pending is None:
            return None
        try:
            return self._continue(pending, answer)
        except Exception as error:  # noqa: BLE001  as in take()
            return Verdict(Reason.INTERNAL, pending.packet.datagram, detail=f"{type(error).__name__}: {error}")

    def give_up(self) -> Iterator[Verdict]:
        """Yield a verdict for every packet that still waits: nobody will look at it."""
        while self._pending:
            pending = self._pending.pop(next(iter(self._pending)))
            yield self._missed(pending, "it was not looked at before doorwardd read its files again, or ended")

    def _judge(self, datagram: Datagram, now: float) -> Verdict | None:  # noqa: C901  a call a stanza would cost as much as its MAC
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
        furthest = furthest or Verdict(reason, datagram, number)
        if self._openpgp_ways and (packet is None or not packet.new):  # what a symmetric key has opened is no OpenPGP
            return self._judge_openpgp(packet or _Packet(datagram, now, {}), 0, furthest)
        return furthest

    def _judge_openpgp(self, packet: _Packet, start: int, furthest: Verdict) -> Verdict | None:
        """Return the verdict of a packet from the way at `start` on, or None where it waits for its plaintext."""
        for place, way in enumerate(self._openpgp_ways[start:], start):
            verdict = self._try(way, packet)
            if isinstance(verdict, int):
                self._pending[verdict] = _Pending(packet, place, furthest)
                return None
            if verdict.reason in _FINAL:
                return verdict
            furthest = _further(furthest, verdict)
        return furthest

    def _try(self, way: _OpenPgpWay, packet: _Packet) -> Verdict | int:
        """Return the number under which a packet waits for its plaintext, or why it does not."""
        stanza, datagram = way.stanza, packet.datagram
        if not _concerns(stanza, datagram):
            return Verdict(Reason.NO_STANZA, datagram)
        if stanza.expires is not None and packet.now >= stanza.expires:
            return Verdict(Reason.EXPIRED, datagram, stanza.number)
        seen = None if packet.kept else self._seen(datagram.payload)
        if seen is not None:
            return Verdict(Reason.REPLAY, datagram, seen)
        outcome = self._submit(way, packet)
        if isinstance(outcome, int):
            return outcome
        return Verdict(outcome.reason, datagram, stanza.number, detail=outcome.detail)

    def _submit(self, way: _OpenPgpWay, packet: _Packet) -> int | Denial:
        """Have gpg look at a packet that the stanza's HMAC key made, or at any packet where it has none."""
        payload = packet.datagram.payload
        sealed = way.verify(payload)
        if sealed is None:
            return Denial(Reason.HMAC)
        try:
            blob = openpgp.decode(sealed)
        except WireError as error:
            return Denial(Reason.DECRYPTION, str(error))
        authentic = way.how.hmac_key is not None
        number = None if self._unsealer is None else self._unsealer.submit(way.how, blob, authentic=authentic)
        self._keep_seen(way, packet)
        packet.kept = True
        return Denial(Reason.BUSY) if number is None else number

    def _seen(self, payload: bytes) -> int | None:
        """Return the stanza for which gpg looked at a payload a short time ago."""
        number = self._recent.get(payload)
        return self._strangers.get(_short(payload), (None, 0.0))[0] if number is None else number

    def _keep_seen(self, way: _OpenPgpWay, packet: _Packet) -> None:
        """Keep a payload, whether gpg looks at it or has no time: sent again it costs no second run, and opens nothing.

        Else whoever keeps gpg busy could send a good knock again that came in vain. What strangers can make pushes out
        nothing but what strangers could have made; and where that is too much to keep, nothing that is old enough to
        have been among it counts any more.
        """
        payload, age = packet.datagram.payload, self._max_age
        if way.how.hmac_key is not None:
            self._keep_recent(payload, way.stanza.number)
            return
        kept = self._strangers
        # without ageing nothing becomes too old to be accepted, and nothing is forgotten but by number
        while age is not None and kept and kept[oldest := next(iter(kept))][1] < packet.now - 2 * age:
            del kept[oldest]
        if len(kept) >= STRANGERS_MAX:
            kept.clear()
            self._blind_until = packet.now + (age or 0)
        kept[_short(payload)] = (way.stanza.number, packet.now)

    def _continue(self, pending: _Pending, answer: Unsealed | str | None) -> Verdict | None:
        packet, way = pending.packet, self._openpgp_ways[pending.place]
        if answer is None:
            return self._missed(pending, "gpg could not look at it")
        outcome = Denial(Reason.DECRYPTION, answer) if isinstance(answer, str) else self._read(way, packet, answer)
        if isinstance(outcome, Denial):
            verdict = Verdict(outcome.reason, packet.datagram, way.stanza.number, detail=outcome.detail)
        else:
            verdict = replace(self._decide(way.stanza, packet, outcome), signer=_signer(answer))
        if verdict.reason in _FINAL:
            return verdict
        return self._judge_openpgp(packet, pending.place + 1, _further(pending.furthest, verdict))

    def _missed(self, pending: _Pending, text: str) -> Verdict:
        """Return the verdict of a packet that nobody looked at."""
        number = self._openpgp_ways[pending.place].stanza.number
        return Verdict(Reason.BUSY, pending.packet.datagram, number, detail=text)

    def _read(self, way: _OpenPgpWay, packet: _Packet, unsealed: Unsealed) -> Message | Denial:
        """Return the message of a plaintext that the right person signed, and that was never seen before.

        What names it in the memory is its plaintext: the same session keys in another order, or with another header,
        are other bytes around the same message. Nothing is remembered before the signature has been looked at, or
        whoever has the public key could fill the memory.
        """
        if not fwknop.is_plaintext(unsealed.plaintext):
            return Denial(Reason.DECRYPTION, "the plaintext does not begin as one does")
        refusal = _refused_signature(way.how, unsealed)
        if refusal is not None:
            return Denial(Reason.SIGNATURE, refusal)
        try:
            message = fwknop.parse(unsealed.plaintext)
        except WireError as error:
            return Denial(Reason.DECODE, str(error))
        if way.how.hmac_key is None and message.time <= self._blind_until:
            return Denial(Reason.REPLAY, "made before a flood of OpenPGP packets: it may have been seen")
        try:
            new = self._is_new(hashlib.sha256(unsealed.plaintext).digest(), packet, message)
        except ReplayError as error:
            return Denial(Reason.STORE, str(error))
        return message if new else Denial(Reason.REPLAY)

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
        forwarded = None if packet.datagram.forwarded is None else address(packet.datagram.forwarded)
        facts = Facts(stanza, message, origin, destination, packet.now, self._max_age, self._abilities, forwarded)
        decision = policy.decide(facts)
        if isinstance(decision, Grant):
            granted = Verdict(Reason.GRANTED, packet.datagram, stanza.number, message.user, decision)
            return self._do_open(granted, decision)
        verdict = Verdict(Reason.GRANTED, packet.datagram, stanza.number, message.user)
        if isinstance(decision, Denial):
            return replace(verdict, reason=decision.reason, detail=decision.detail)
        return self._do_execute(replace(verdict, execution=decision), decision)

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


def _further(one: Verdict, other: Verdict) -> Verdict:
    """Return the refusal that came further, the first of two that came as far."""
    return other if _RANK[other.reason] > _RANK[one.reason] else one


def _short(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()[:16]


def _signer(unsealed: Unsealed | str) -> str | None:
    """Return who is proven to have signed a plaintext."""
    if isinstance(unsealed, str) or unsealed.signature is None or unsealed.signature.status is not Status.GOOD:
        return None
    return unsealed.signature.fingerprint


def _refused_signature(how: OpenPgp, unsealed: Unsealed) -> str | None:
    """Return why a signature does not count, or None (server/incoming_spa.c, handle_gpg_sigs)."""
    signature = unsealed.signature
    if not how.require_signature:
        return None
    if signature is None:
        return "not signed"
    ignored = how.ignore_signature_errors and signature.status is not Status.BAD  # there gpg itself stops
    if signature.status is not Status.GOOD and not ignored:
        return f"{signature.status}: signed by {signature.fingerprint}"
    if how.fingerprints and not signature.is_one_of(how.fingerprints):
        return f"signed by {signature.fingerprint}, which GPG_FINGERPRINT_ID does not name"
    if how.remote_ids and not signature.is_one_of(how.remote_ids):
        return f"signed by {signature.fingerprint}, which GPG_REMOTE_ID does not name"
    return None


def _concerns(stanza: Stanza, datagram: Datagram) -> bool:
    return datagram.origin in stanza.source and datagram.destination in stanza.destination


_FINAL: Final = frozenset({Reason.GRANTED, Reason.FIREWALL, Reason.COMMAND, Reason.STORE, Reason.REPLAY})
