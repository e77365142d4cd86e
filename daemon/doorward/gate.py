"""One datagram to one verdict. Never raises, never silent."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from doorward import policy
from doorward.crypto import curve, magic, openpgp, symmetric
from doorward.crypto.doorward import Directory, Pair, nonce_of
from doorward.crypto.one_time_code import Codes
from doorward.crypto.openpgp import Status, Unsealed
from doorward.denials import (
    EXPIRED,
    FORGED,
    NO_STANZA,
    REPLAYED,
    UNKNOWN_TAG,
    WRONG_HMAC,
    BadSignature,
    Bug,
    CommandFailed,
    FirewallFailed,
    Fit,
    Malformed,
    MaybeReplayed,
    NotDecrypted,
    NotExamined,
    NotSigned,
    SentElsewhere,
    StoreFailed,
    Undecodable,
    WrongSigner,
)
from doorward.errors import AuthenticationError, FirewallError, HelperError, ReplayError, WireError
from doorward.frozen import dataclass
from doorward.policy import Facts
from doorward.values import (
    NO_PERMISSIONS,
    Completed,
    DigestType,
    Execution,
    Grant,
    Permissions,
    PublicKey,
    Reason,
    SymmetricKeys,
    address,
)
from doorward.values import Protocol as TransportProtocol
from doorward.wire import doorward, fwknop
from doorward.wire import magic as wire_magic
from doorward.wire.fwknop import Message
from doorward.wire.wish import Kind, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from doorward.config.stanza import Client, Magic, OpenPgp, Stanza
    from doorward.crypto.doorward import Found
    from doorward.crypto.openpgp import Signature
    from doorward.denials import Denial
    from doorward.values import Datagram, Secret

_RANK: Final = {reason: rank for rank, reason in enumerate(Reason)}
RECENT_MAX: Final = 4096  # payloads, most of 200 bytes, none of more than 1500
STRANGERS_MAX: Final = 32_768  # digests of OpenPGP messages without HMAC, some 6 MB
_SHORT: Final = 16  # bytes of such a digest
FUTURE_MAX: Final = 10_000  # a hundredth of the store
_Who = tuple[int, str | None]  # number and name of a stanza, which outlive its keys in a reload
_ICMP: Final = frozenset({1, 58})  # and ICMPv6
_KEPT: Final = 128  # seconds after its own time for which a packet of doorward 1 is remembered; it is accepted for 64
_FOREVER: Final = 2**62  # Unix seconds: without ageing a packet never becomes too old to be accepted


class Memory(Protocol):
    """Where packets are remembered; ReplayStore, or a view of it that leaves no trace."""

    def remember(self, packet: bytes, made: int, until: int, *, client: bytes = b"") -> bool:
        """Keep a packet and return whether it was new."""

    def use_step(self, name: bytes, step: int) -> bool:
        """Keep the step of a one-time code as used, and return whether it is later than all used under this name."""


class Unsealer(Protocol):
    """Decrypts OpenPGP messages; the answers go to Gate.resume()."""

    def submit(self, how: OpenPgp, blob: bytes, *, authentic: bool) -> int | None:
        """The number under which the answer will come, or None where there is no room for another message."""


class Verdict(NamedTuple):
    """The outcome of one datagram. `stanza` is the number of the one that decided, None where none fit.

    A named tuple for the reason that Datagram is one.
    """

    denial: Denial | None  # None: granted
    datagram: Datagram
    stanza: int | None = None
    user: str | None = None
    grant: Grant | None = None
    execution: Execution | None = None
    signer: str | None = None  # the fingerprint of an OpenPGP packet's signer, where gpg found the signature good
    name: str | None = None  # of the client, or of the stanza
    second: Grant | Execution | None = None  # for the other family of addresses
    other: Denial | None = None  # of one of two sources, where the other one is let in

    @property
    def granted(self) -> bool:
        """Whether the door is open."""
        return self.denial is None

    @property
    def reason(self) -> Reason:
        """The one word for logs and counters."""
        return Reason.GRANTED if self.denial is None else self.denial.reason


@dataclass(frozen=True, slots=True)
class _Way:
    """One stanza with one kind of its keys, and the state prepared for their packets."""

    place: int
    stanza: Stanza
    keys: SymmetricKeys | OpenPgp
    everywhere: bool  # SOURCE and DESTINATION hold every address
    strangers: bool  # OpenPGP without an HMAC key: anybody's packets reach gpg
    verify: symmetric.Verifier
    who: _Who


class _Member(NamedTuple):
    """One stanza that names a public key."""

    stanza: Stanza
    client: Client

    @property
    def who(self) -> _Who:
        """The stanza's number, and the client's name or the stanza's."""
        return self.stanza.number, self.client.name or self.stanza.name


PairKey = tuple[bytes, bytes, bytes]  # public keys of client and host, and the pre-shared key or nothing


class _Packet:
    """One datagram on its way past the stanzas."""

    __slots__ = ("datagram", "furthest", "kept", "new", "now")

    def __init__(self, datagram: Datagram, now: float) -> None:
        self.datagram = datagram
        self.now = now
        self.furthest: Verdict | None = None  # the refusal that came furthest so far
        self.kept = False  # its payload was kept by itself, so that to find it there means nothing
        self.new: dict[bytes, bool] = {}  # whether each of its names was new


def refuse_execution(execution: Execution) -> None:
    """Stand for doorward-exec where there is none.

    Raises:
        HelperError: always.
    """
    msg = f"nothing runs commands here, and stanza {execution.stanza} needs it"
    raise HelperError(msg)


class Gate:
    """The decision with its effects passed in: where packets are remembered and how a grant takes effect."""

    def __init__(  # noqa: PLR0913  the inputs and effects of a decision, each named
        self,
        stanzas: tuple[Stanza, ...],
        memory: Memory,
        open_grant: Callable[[Grant], None],
        max_age: int | None,
        *,
        permissions: Permissions = NO_PERMISSIONS,
        execute: Callable[[Execution], None] = refuse_execution,
        unsealer: Unsealer | None = None,
        begun: int = -1,
        host_key: Secret | None = None,
        pairs: Mapping[PairKey, Pair] | None = None,
    ) -> None:
        """Decide by `stanzas` in their order; `max_age` in seconds, None turns ageing off.

        `execute` hands an execution over and raises HelperError where nobody takes it. Without an `unsealer` OpenPGP
        packets are not looked at. Those that anybody can make are kept in this process alone: one made up to `begun`
        (Unix seconds), when it started, may have been seen by an earlier process. `host_key` is the host's private key
        for stanzas with clients, which nobody can be without it; `pairs` are another gate's, which cost 0.05 ms each.
        """
        self._ways = tuple(_ways(stanzas))
        self._unsealer = unsealer
        self._pending: dict[int, tuple[_Packet, _Way, OpenPgp]] = {}
        self._memory = memory
        self._open_grant = open_grant
        self._max_age = max_age
        self._permissions = permissions
        self._execute = execute
        self._recent: dict[bytes, _Who] = {}
        self._strangers: dict[bytes, tuple[_Who, float]] = {}  # and when
        self._blind_until = float(begun)  # Unix seconds: packets made earlier may have been seen and forgotten
        self._from_the_future = 0
        self.pairs: dict[PairKey, Pair] = {}
        self._directory: Directory[tuple[_Member, ...]] | None = None
        if host_key is not None:
            host = PublicKey(curve.public(host_key.reveal()))
            members = _members(stanzas, host)
            for key, (one, *_) in members.items():
                known = (pairs or {}).get(key)
                self.pairs[key] = known or Pair.of_host(host_key, host, one.client.key, one.stanza.psk)
            if members:
                self._directory = Directory((members[key], pair) for key, pair in self.pairs.items())
        self._recent_tagged: dict[bytes, tuple[_Who, bytes]] = {}  # and the first origin
        self._codes = Codes()
        self._sequences = {sequence.mark: stanza for stanza in stanzas for sequence in stanza.sequences}

        self._magic = tuple((one, one.magic) for one in stanzas if one.magic is not None)

    def follow(self, now: float) -> None:
        """Make the tags of the epoch that begins, before the first packet waits for them; `now` in Unix seconds."""
        if self._directory is not None:
            self._directory.follow(doorward.epoch_of(int(now * 1000)))

    def tags(self, now: float) -> dict[int, tuple[bytes, ...]]:
        """The tags that packets may have at `now` (Unix seconds), by their epochs; none where no client has a key."""
        if self._directory is None:
            return {}
        self.follow(now)
        return self._directory.tags

    def go_on_from(self, other: Gate) -> None:
        """Take over the packets that another gate has seen, after a reload."""
        self._recent, self._strangers = other._recent, other._strangers
        self._recent_tagged, self._codes = other._recent_tagged, other._codes
        self._blind_until, self._from_the_future = other._blind_until, other._from_the_future

    def judge(self, datagram: Datagram, now: float) -> Verdict:
        """The verdict of take(), for gates without an unsealer; a packet that would wait is BUSY."""
        verdict = self.take(datagram, now)
        return next(self.give_up()) if verdict is None else verdict

    def take(self, datagram: Datagram, now: float) -> Verdict | None:
        """The verdict of one datagram at `now` (Unix seconds), its effect done.

        None where it waits for its plaintext: the verdict then comes from resume(), or give_up(). An unforeseen
        error opens nothing and ends nothing: it becomes a verdict of its own.
        """
        try:
            if isinstance(datagram, Completed):
                return self._take_sequence(_Packet(datagram, now))
            if self._directory is not None and len(datagram.payload) == doorward.PACKET:
                return self._take_tagged(self._directory, _Packet(datagram, now))
            if self._magic and len(datagram.payload) == wire_magic.PACKET:
                return self._take_magic(_Packet(datagram, now))
            try:
                fwknop.check(datagram.payload)
            except WireError as error:
                return Verdict(Malformed(str(error)), datagram)
            return self._walk(_Packet(datagram, now))
        except Exception as error:  # noqa: BLE001  one packet must not end the daemon, and must not pass in silence
            return Verdict(Bug(f"{type(error).__name__}: {error}"), datagram)

    def resume(self, number: int, answer: Unsealed | NotDecrypted | NotExamined) -> Verdict | None:
        """The verdict of a packet that waited, None where it waits for another keyring now, or is none of ours.

        `answer` is the plaintext, or why there is none. A packet that gpg did not examine does not go to the next
        keyring.
        """
        if number not in self._pending:
            return None
        packet, way, how = self._pending.pop(number)
        try:
            verdict = self._answered(way, how, packet, answer)
            if verdict.reason in _FINAL or isinstance(answer, NotExamined):
                return verdict
            packet.furthest = _further(packet.furthest, verdict)
            return self._walk(packet, way.place + 1)
        except Exception as error:  # noqa: BLE001  as in take()
            return Verdict(Bug(f"{type(error).__name__}: {error}"), packet.datagram)

    def give_up(self) -> Iterator[Verdict]:
        """A verdict for every packet that still waits: gpg will not examine it."""
        denial = NotExamined("it was not examined before doorwardd reloaded or ended")
        while self._pending:
            packet, way, _ = self._pending.pop(next(iter(self._pending)))
            yield _refused(denial, packet, way.who)

    def _take_tagged(self, directory: Directory[tuple[_Member, ...]], packet: _Packet) -> Verdict:
        """The verdict of a packet of doorward 1: a stranger's costs one look-up."""
        payload = packet.datagram.payload
        self.follow(packet.now)
        found = directory.find(payload)
        if not found:
            return Verdict(UNKNOWN_TAG, packet.datagram)
        seen = self._recent_tagged.get(payload)
        if seen is not None:
            who, first = seen
            elsewhere = first != packet.datagram.origin
            return _refused(SentElsewhere(address(first)) if elsewhere else REPLAYED, packet, who)
        for sender in found:
            try:
                plaintext = sender.pair.unseal(payload, sender.epoch)
            except AuthenticationError:
                continue
            return self._accept_tagged(sender, packet, plaintext)
        return _refused(FORGED, packet, found[0].sender[0].who)

    def _take_sequence(self, packet: _Packet) -> Verdict:
        """The verdict of a sequence of ports that the kernel saw complete. A reload may have removed its stanza."""
        mark = packet.datagram.payload
        stanza = self._sequences.get(mark)
        if stanza is None or not _concerns(stanza, packet.datagram):
            return Verdict(NO_STANZA, packet.datagram)
        who = stanza.number, stanza.name
        if stanza.expires is not None and packet.now >= stanza.expires:
            return _refused(EXPIRED, packet, who)
        if stanza.one_time:
            try:
                if not self._memory.use_step(hashlib.sha256(b"sequence " + mark).digest(), 0):
                    return _refused(REPLAYED, packet, who)
            except ReplayError as error:
                return _refused(StoreFailed(str(error)), packet, who)
        return self._decide(stanza, packet, Wish(Kind.ACCESS, packet.now, None, None), None)

    def _take_magic(self, packet: _Packet) -> Verdict:
        """The verdict of a packet of the magic packet's length; it is remembered once a password has made it."""
        datagram, furthest = packet.datagram, Verdict(NO_STANZA, packet.datagram)
        try:
            message = wire_magic.parse(datagram.payload)
        except WireError as error:
            return Verdict(Malformed(str(error)), datagram)
        for stanza, wanted in self._magic:
            who = stanza.number, stanza.name
            if not _comes_by(wanted, datagram) or not _concerns(stanza, datagram):
                continue
            if stanza.expires is not None and packet.now >= stanza.expires:
                verdict = _refused(EXPIRED, packet, who)
            elif not magic.is_of(message, wanted.password):
                verdict = _refused(WRONG_HMAC, packet, who)
            else:
                return self._accept_magic(stanza, packet, message.made)
            furthest = _further(furthest, verdict)
        return furthest

    def _accept_magic(self, stanza: Stanza, packet: _Packet, made: int) -> Verdict:
        who = stanza.number, stanza.name
        try:
            if not self._is_new(hashlib.sha256(packet.datagram.payload).digest(), packet, made):
                return _refused(REPLAYED, packet, who)
        except ReplayError as error:
            return _refused(StoreFailed(str(error)), packet, who)
        return self._decide(stanza, packet, Wish(Kind.ACCESS, made, None, None), self._max_age)

    def _accept_tagged(self, found: Found[tuple[_Member, ...]], packet: _Packet, plaintext: bytes) -> Verdict:
        """The verdict of a packet that a client made; it is remembered before anything else is asked."""
        members, datagram = found.sender, packet.datagram
        message = self._new_tagged(found, packet, plaintext)
        if not isinstance(message, doorward.Message):
            return _refused(message, packet, members[0].who)
        wish, furthest = doorward.wish(message), Verdict(NO_STANZA, datagram, name=members[0].client.name)
        for stanza, client in members:
            if not _concerns(stanza, datagram):
                continue
            if stanza.expires is not None and packet.now >= stanza.expires:
                verdict = Verdict(EXPIRED, datagram, stanza.number, name=client.name or stanza.name)
            else:
                verdict = self._decide(stanza, packet, wish, doorward.SKEW_SECONDS, client=client)
            if verdict.reason in _FINAL:
                return verdict
            furthest = _further(furthest, verdict)
        return furthest

    def _new_tagged(
        self, found: Found[tuple[_Member, ...]], packet: _Packet, plaintext: bytes
    ) -> doorward.Message | Denial:
        """The message of a plaintext that was never seen before."""
        payload, client = packet.datagram.payload, found.sender[0].client.key.raw
        try:
            message = doorward.parse(plaintext)
            if doorward.epoch_of(message.time) != found.epoch:
                return Undecodable(fwknop.Field.TIME, "the time and the tag are of different epochs")
            made = message.time // 1000
            new = self._memory.remember(client + nonce_of(payload), made, made + _KEPT, client=client)
        except fwknop.FieldError as error:
            return Undecodable(error.field, str(error))
        except ReplayError as error:
            return StoreFailed(str(error))
        if len(self._recent_tagged) >= RECENT_MAX:
            del self._recent_tagged[next(iter(self._recent_tagged))]
        self._recent_tagged[payload] = found.sender[0].who, packet.datagram.origin
        return message if new else REPLAYED

    def _walk(self, packet: _Packet, start: int = 0) -> Verdict | None:
        """The verdict of a packet from the way at `start` on, None where it waits for its plaintext.

        A flood runs through this loop: it makes no call and no object that it can avoid.
        """
        datagram, now, furthest = packet.datagram, packet.now, packet.furthest
        payload = datagram.payload
        seen = None if packet.kept else self._recent.get(payload)
        for way in self._ways[start:]:
            stanza = way.stanza
            if not way.everywhere and not _concerns(stanza, datagram):
                continue
            if stanza.expires is not None and now >= stanza.expires:
                verdict = Verdict(EXPIRED, datagram, stanza.number, name=stanza.name)
            elif seen is not None:
                return _refused(REPLAYED, packet, seen)
            elif (sealed := way.verify(payload)) is not None:
                packet.furthest = furthest
                opened = self._unseal(way, packet, sealed)
                if opened is None or opened.reason in _FINAL:
                    return opened
                verdict = opened
            elif furthest is None or furthest.denial is not WRONG_HMAC:
                verdict = Verdict(WRONG_HMAC, datagram, stanza.number, name=stanza.name)
            else:
                continue
            furthest = _further(furthest, verdict)
        return furthest or Verdict(NO_STANZA, datagram)

    def _unseal(self, way: _Way, packet: _Packet, sealed: bytes) -> Verdict | None:
        """The verdict of a packet that the stanza's HMAC key made, None where it waits for gpg."""
        try:
            if not isinstance(way.keys, SymmetricKeys):
                return self._submit(way, way.keys, packet, *openpgp.decode(sealed))
            blob = symmetric.decode(sealed)
            plaintext = symmetric.decrypt(blob, way.keys)
        except (WireError, AuthenticationError) as error:
            fit = Fit.NOTHING if isinstance(error, WireError) else Fit.KIND
            return _refused(NotDecrypted(str(error), fit), packet, way.who)
        verdict = self._accept(way, packet, hashlib.sha256(blob).digest(), plaintext)
        if packet.new:
            self._keep_recent(packet, way.who)
        return verdict

    def _submit(self, way: _Way, how: OpenPgp, packet: _Packet, blob: bytes, block: bytes) -> Verdict | None:
        """Have gpg examine a packet; None unless it has no time, or the packet was examined or refused before.

        A message is known by its encrypted block: anybody can frame that anew, or put it behind other headers.
        """
        name = hashlib.sha256(block).digest()
        known = self._known_stranger(name, packet) if way.strangers else self._known_authentic(way, name, packet)
        if known is not None:
            return known
        number = None if self._unsealer is None else self._unsealer.submit(how, blob, authentic=not way.strangers)
        if way.strangers:
            self._keep_stranger(name, packet, way.who)
        else:
            self._keep_recent(packet, way.who)
        if number is None:
            return _refused(NotExamined(), packet, way.who)
        self._pending[number] = (packet, way, how)
        return None

    def _answered(
        self, way: _Way, how: OpenPgp, packet: _Packet, answer: Unsealed | NotDecrypted | NotExamined
    ) -> Verdict:
        """The verdict of a packet that gpg has answered.

        The memory names it by its plaintext: the same session keys in another order, or another header, are other bytes
        around the same message. Nothing is remembered before the signature is verified, or anybody with the public
        key could fill the memory.
        """
        if not isinstance(answer, Unsealed):
            denial: Denial | None = answer
        elif not fwknop.is_plaintext(answer.plaintext):
            denial = NotDecrypted("the plaintext does not begin as one does", Fit.KEY)
        else:
            denial = _refused_signature(how, answer.signature)
        if denial is not None or not isinstance(answer, Unsealed):
            return _refused(denial, packet, way.who)
        name = hashlib.sha256(answer.plaintext).digest()
        return self._accept(way, packet, name, answer.plaintext, _signer(answer.signature))

    def _accept(self, way: _Way, packet: _Packet, name: bytes, plaintext: bytes, signer: str | None = None) -> Verdict:
        """The verdict of an authentic plaintext; from here on the packet is remembered under `name`."""
        message = self._new_message(way, packet, name, plaintext)
        if not isinstance(message, Message):
            return _refused(message, packet, way.who)
        return self._decide(way.stanza, packet, fwknop.wish(message), self._max_age, signer=signer)

    def _new_message(self, way: _Way, packet: _Packet, name: bytes, plaintext: bytes) -> Message | Denial:
        """The message of a plaintext that was never seen before."""
        try:
            message = fwknop.parse(plaintext)
            if way.strangers and message.time <= self._blind_until:
                return MaybeReplayed()
            return message if self._is_new(name, packet, message.time) else REPLAYED
        except fwknop.FieldError as error:
            return Undecodable(error.field, str(error))
        except ReplayError as error:
            return StoreFailed(str(error))

    def _known_stranger(self, name: bytes, packet: _Packet) -> Verdict | None:
        """The verdict of a message that anybody can make and that came before, None where it is new."""
        found = None if packet.kept else self._strangers.get(name[:_SHORT])
        return None if found is None else _refused(REPLAYED, packet, found[0])

    def _known_authentic(self, way: _Way, name: bytes, packet: _Packet) -> Verdict | None:
        """The verdict of an authentic message that came before, None where it is new.

        It is remembered before gpg looks at it: without a verdict, as when gpg has no time or doorwardd ends, it opens
        nothing later. Its time is not known yet, and is at most the accepted age from now.
        """
        if name not in packet.new:
            latest = int(packet.now) + (self._max_age or 0)
            until = _FOREVER if self._max_age is None else latest + self._max_age
            try:
                packet.new[name] = self._memory.remember(name, latest, until)
            except ReplayError as error:
                return _refused(StoreFailed(str(error)), packet, way.who)
        return None if packet.new[name] else _refused(REPLAYED, packet, way.who)

    def _keep_stranger(self, name: bytes, packet: _Packet, who: _Who) -> None:
        """Keep a message that anybody can make, whether gpg examines it or has no time.

        Sent again it costs no second run and opens nothing: else an attacker who keeps gpg busy could resend a good
        knock that was not examined. Unauthenticated entries only evict other unauthenticated entries. Where there are
        too many to keep, no packet old enough to have been among them is accepted any more.
        """
        kept, age = self._strangers, self._max_age
        packet.kept = True
        # without ageing nothing becomes too old to be accepted, and nothing is forgotten but by number
        while age is not None and kept and kept[oldest := next(iter(kept))][1] < packet.now - 2 * age:
            del kept[oldest]
        if len(kept) >= STRANGERS_MAX:
            kept.clear()
            self._blind_until = packet.now + (age or 0)
        kept[name[:_SHORT]] = (who, packet.now)

    def _keep_recent(self, packet: _Packet, who: _Who) -> None:
        """Keep an authentic payload, so that sending it again in a flood costs next to nothing.

        An evicted payload is still in the memory, or its plaintext will be.
        """
        packet.kept = True
        if len(self._recent) >= RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self._recent[packet.datagram.payload] = who

    def _is_new(self, name: bytes, packet: _Packet, made: int) -> bool:
        """Remember once a packet, however many stanzas share its keys.

        A packet from the future is kept until it is too old, or it could be sent again once its time has come.
        """
        if name not in packet.new:
            self._bound_the_future(packet.now, made)
            newest = max(packet.now, float(made))
            until = _FOREVER if self._max_age is None else int(newest) + 2 * self._max_age
            packet.new[name] = self._memory.remember(name, made, until)
        return packet.new[name]

    def _bound_the_future(self, now: float, made: int) -> None:
        """Bound the packets from the future, which the store may not forget early. Such a packet opens nothing.

        Raises:
            ReplayError: too many were remembered.
        """
        if self._max_age is None or made - now <= self._max_age:
            return
        if self._from_the_future >= FUTURE_MAX:
            msg = f"more than {FUTURE_MAX} packets from the future"
            raise ReplayError(msg)
        self._from_the_future += 1

    def _decide(  # noqa: PLR0913  what a decision is about, each named
        self,
        stanza: Stanza,
        packet: _Packet,
        wish: Wish,
        max_age: int | None,
        *,
        signer: str | None = None,
        client: Client | None = None,
    ) -> Verdict:
        """The verdict of a new message, its effect done.

        Of two sources each is decided for itself, as if two packets had named them: the client cannot know which
        families the stanza lets in. A one-time code is used up by what would be granted otherwise, and by nothing else.
        """
        datagram = packet.datagram
        origin, destination = address(datagram.origin), address(datagram.destination)
        forwarded = None if datagram.forwarded is None else address(datagram.forwarded)
        permissions = self._permissions
        name, key = (None, None) if client is None else (client.name, client.key)
        facts = Facts(stanza, wish, origin, destination, packet.now, max_age, permissions, forwarded, name, key)
        told = Verdict(None, datagram, stanza.number, wish.user, signer=signer, name=name or stanza.name)
        each = (wish,) if wish.second is None else (wish, _of_the_second(wish))
        decisions = [policy.decide(replace(facts, wish=one)) for one in each]
        allowed = [one for one in decisions if isinstance(one, Grant | Execution)]
        refused = [one for one in decisions if not isinstance(one, Grant | Execution)]
        if not allowed:
            return told._replace(denial=refused[0])
        denial = None if client is None else self._refuse_code(stanza, client, wish.code, packet.now)
        if denial is not None:
            return told._replace(denial=denial)
        return self._do(told._replace(other=refused[0] if refused else None), *allowed)

    def _do(self, told: Verdict, first: Grant | Execution, second: Grant | Execution | None = None) -> Verdict:
        """Have what was decided take effect; the verdict then."""
        denial = self._do_one(first)
        if second is not None:
            denial = denial or self._do_one(second, f"{first.source} is let in, and not the other")
        done = told._replace(denial=denial, second=second)
        return done._replace(grant=first) if isinstance(first, Grant) else done._replace(execution=first)

    def _refuse_code(self, stanza: Stanza, client: Client, code: int | None, now: float) -> Denial | None:
        """Why a stanza does not accept a one-time code, None where it does or wants none."""
        if stanza.one_time_code is None:
            return None
        try:
            return self._codes.refuses(stanza.one_time_code, client.key.raw, code, now, self._memory)
        except ReplayError as error:
            return StoreFailed(str(error))

    def _do_one(self, decision: Grant | Execution, before: str = "") -> Denial | None:
        """Have a grant opened, or commands run; `before` says what has been done, should it fail."""
        try:
            if isinstance(decision, Grant):
                self._open_grant(decision)
            else:
                self._execute(decision)
        except FirewallError as error:
            return FirewallFailed(": ".join(filter(None, (before, str(error)))))
        except HelperError as error:
            return CommandFailed(": ".join(filter(None, (before, str(error)))))
        return None


def _refused(denial: Denial | None, packet: _Packet, who: _Who) -> Verdict:
    """The verdict of a packet that a stanza did not accept."""
    number, name = who
    return Verdict(denial, packet.datagram, number, name=name)


def _of_the_second(wish: Wish) -> Wish:
    """What a packet asks for its second source."""
    return replace(wish, source=wish.second, prefix=wish.second_prefix)


def _ways(stanzas: tuple[Stanza, ...]) -> Iterator[_Way]:
    """The ways past the stanzas: all with symmetric keys, and then those to gpg, which cost a run of it."""
    keys: list[tuple[Stanza, SymmetricKeys | OpenPgp]]
    keys = [(stanza, stanza.keys) for stanza in stanzas if stanza.keys is not None]
    keys += [(stanza, stanza.openpgp) for stanza in stanzas if stanza.openpgp is not None]
    for place, (stanza, how) in enumerate(keys):
        everywhere = stanza.source.everywhere and stanza.destination.everywhere
        prefix = fwknop.PREFIX if isinstance(how, SymmetricKeys) else fwknop.GPG_PREFIX
        verify = symmetric.Verifier(how.hmac_key, how.hmac_digest or DigestType.SHA256, prefix)
        strangers = how.hmac_key is None and not isinstance(how, SymmetricKeys)
        yield _Way(place, stanza, how, everywhere, strangers, verify, (stanza.number, stanza.name))


def _members(stanzas: tuple[Stanza, ...], host: PublicKey) -> dict[PairKey, tuple[_Member, ...]]:
    """The stanzas that name each client, in their order; with one pre-shared key in several it is one client."""
    found: dict[PairKey, tuple[_Member, ...]] = {}
    for stanza in stanzas:
        psk = b"" if stanza.psk is None else stanza.psk.reveal()
        for client in stanza.clients:
            key = client.key.raw, host.raw, psk
            found[key] = (*found.get(key, ()), _Member(stanza, client))
    return found


def _further(one: Verdict | None, other: Verdict) -> Verdict:
    """The refusal that came further, the first of two that came as far."""
    return other if one is None or _way_come(other.denial) > _way_come(one.denial) else one


def _way_come(denial: Denial | None) -> tuple[int, int]:
    """How far a packet came with a stanza: by the order of the checks, and by how much of it fits."""
    reason = Reason.GRANTED if denial is None else denial.reason
    return _RANK[reason], denial.fit if isinstance(denial, NotDecrypted) else 0


def _signer(signature: Signature | None) -> str | None:
    """The fingerprint of the signer, where gpg found the signature good."""
    return signature.fingerprint if signature is not None and signature.status is Status.GOOD else None


def _refused_signature(how: OpenPgp, signature: Signature | None) -> Denial | None:
    """Why a signature does not count, or None (server/incoming_spa.c, handle_gpg_sigs)."""
    if not how.require_signature:
        return None
    if signature is None:
        return NotSigned()
    ignored = how.ignore_signature_errors and signature.status is not Status.BAD  # there gpg itself stops
    if signature.status is not Status.GOOD and not ignored:
        return BadSignature(str(signature.status), signature.fingerprint)
    if how.fingerprints and not signature.is_one_of(how.fingerprints):
        return WrongSigner(signature.fingerprint, "GPG_FINGERPRINT_ID")
    if how.remote_ids and not signature.is_one_of(how.remote_ids):
        return WrongSigner(signature.fingerprint, "GPG_REMOTE_ID")
    return None


def _comes_by(wanted: Magic, datagram: Datagram) -> bool:
    """Whether a packet came where a stanza waits for magic packets."""
    if wanted.port is None:
        return datagram.protocol in _ICMP
    return (datagram.protocol, datagram.destination_port) == (TransportProtocol.UDP, wanted.port)


def _concerns(stanza: Stanza, datagram: Datagram) -> bool:
    return datagram.origin in stanza.source and datagram.destination in stanza.destination


_FINAL: Final = frozenset({Reason.GRANTED, Reason.FIREWALL, Reason.COMMAND, Reason.STORE, Reason.REPLAY})
