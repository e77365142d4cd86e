"""OpenPGP packets in the gate: they wait for their plaintext, and everything else goes on."""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doorward.config.stanza import OpenPgp
from doorward.crypto.openpgp import Signature, Status, Unsealed
from doorward.denials import Fit, NotDecrypted, NotExamined
from doorward.errors import ReplayError
from doorward.gate import RECENT_MAX, STRANGERS_MAX, Gate
from doorward.record import fwknop as record_fwknop
from doorward.record import line as record_line
from doorward.values import DigestType, Networks, Reason, Secret
from doorward.wire import fwknop
from unit.making import NOW, OTHER_KEYS, Door, Memory, datagram, message, payload, stanza

if TYPE_CHECKING:
    from doorward.config.stanza import Stanza
    from doorward.gate import Verdict
    from doorward.values import Datagram

ELSEWHERE = Networks.of([ipaddress.ip_network("203.0.113.0/24")])
ALICE, BOB = "A" * 40, "B" * 40
HOW = OpenPgp("host", Path("/home"), fingerprints=frozenset({ALICE}))
WITH_HMAC = replace(HOW, hmac_key=Secret(b"key"), hmac_digest=DigestType.SHA256)
WRONG_KEY = NotDecrypted("wrong key")
_NUMBERS = itertools.count()


class Room:
    """Takes messages as long as there is room, and keeps what it took."""

    def __init__(self, places: int = 8) -> None:
        self.taken: list[tuple[OpenPgp, bytes, bool]] = []
        self.places = places

    def submit(self, how: OpenPgp, blob: bytes, *, authentic: bool) -> int | None:
        if len(self.taken) >= self.places:
            return None
        self.taken.append((how, blob, authentic))
        return len(self.taken)


class Scene:
    """A gate with all that it acts on."""

    def __init__(
        self,
        *stanzas: Stanza,
        places: int = 8,
        memory: Memory | None = None,
        max_age: int | None = 120,
        begun: int = -1,
    ) -> None:
        self.room, self.door, self.memory = Room(places), Door(), memory or Memory()
        self.gate = Gate(stanzas or (openpgp(),), self.memory, self.door.open, max_age, unsealer=self.room, begun=begun)

    def take(self, knock: Datagram) -> Verdict | None:
        return self.gate.take(knock, NOW)

    def answer(self, signer: str | None = ALICE, status: Status = Status.GOOD, **changes: Any) -> Verdict | None:
        """Answer the last message that was taken."""
        signature = None if signer is None else Signature(status, signer, signer)
        return self.gate.resume(len(self.room.taken), Unsealed(fwknop.serialize(message(**changes)), signature))


def openpgp(number: int = 1, how: OpenPgp = HOW, **changes: Any) -> Stanza:
    return stanza(number, **{"keys": None, "openpgp": how, **changes})


SESSION_KEY = b"\x85\x01\x0c\x03" + bytes(8) + b"\x01" + bytes(258)


def blob() -> bytes:
    return SESSION_KEY + b"\xd2\x64" + next(_NUMBERS).to_bytes(100, "big")


def knock(content: bytes | None = None, hmac_key: bytes | None = None) -> Datagram:
    import hmac  # noqa: PLC0415  for this function alone

    sealed = fwknop.encode_blob(content or blob())
    tag = b"" if hmac_key is None else fwknop.encode_blob(hmac.digest(hmac_key, sealed, "sha256"))
    return datagram(sealed[2:] + tag)


def test_a_packet_waits_for_its_plaintext_and_then_opens() -> None:
    scene, content = Scene(), blob()
    assert scene.take(knock(content)) is None
    assert scene.room.taken == [(HOW, content, False)]
    assert not scene.door.grants
    verdict = scene.answer()
    assert verdict is not None
    assert (verdict.reason, verdict.stanza, verdict.user) == (Reason.GRANTED, 1, "alice")
    assert f" user=alice signer={ALICE} source=" in record_line.line(verdict)
    assert len(scene.door.grants) == 1


def test_symmetric_knocks_go_on_while_others_wait() -> None:
    scene = Scene(stanza(1), openpgp(2))
    assert scene.take(knock()) is None
    verdict = scene.take(datagram(payload()))
    assert verdict is not None
    assert verdict.granted
    assert (scene.answer(random="1" * 16) or verdict).stanza == 2


@pytest.mark.parametrize("others", [[], [openpgp(1)], [openpgp(3)], [openpgp(1), openpgp(3)]])
def test_the_reason_of_the_stanza_whose_key_the_packet_names_is_the_one_reported(others: list[Stanza]) -> None:
    stanzas = sorted(
        [stanza(9, keys=replace(OTHER_KEYS, hmac_key=None)), openpgp(2), *others], key=lambda one: one.number
    )
    scene, verdict = Scene(*stanzas), None
    assert scene.take(knock()) is None
    for number, one in enumerate([one for one in stanzas if one.openpgp], 1):
        mine = NotDecrypted("gpg took longer than 2 s", Fit.KEY)
        verdict = scene.gate.resume(number, mine if one.number == 2 else NotDecrypted("encrypted to B"))
    assert verdict is not None
    assert (verdict.stanza, verdict.denial) == (2, NotDecrypted("gpg took longer than 2 s", Fit.KEY))


def test_where_a_key_is_set_only_its_packets_reach_gpg() -> None:
    scene = Scene(openpgp(how=WITH_HMAC))
    for other in (None, b"another"):
        verdict = scene.take(knock(hmac_key=other))
        assert verdict is not None
        assert verdict.reason is Reason.HMAC
    assert not scene.room.taken
    assert scene.take(knock(hmac_key=b"key")) is None
    assert scene.room.taken[0][2] is True


SIGNERS: dict[str, tuple[dict[str, Any], str | None, Status, bool]] = {
    "the named one": ({}, ALICE, Status.GOOD, True),
    "another": ({}, BOB, Status.GOOD, False),
    "nobody": ({}, None, Status.GOOD, False),
    "nobody, where none is needed": ({"require_signature": False}, None, Status.GOOD, True),
    "another, where none is needed": ({"require_signature": False}, BOB, Status.BAD, True),
    "the named one, expired": ({}, ALICE, Status.EXPIRED, False),
    "the named one, revoked": ({}, ALICE, Status.REVOKED, False),
    "the named one, untrusted": ({}, ALICE, Status.UNTRUSTED, False),
    "the named one, unknown": ({}, ALICE, Status.MISSING_KEY, False),
    "the named one, not": ({}, ALICE, Status.BAD, False),
    "errors ignored": ({"ignore_signature_errors": True}, ALICE, Status.EXPIRED, True),
    "errors ignored, but another": ({"ignore_signature_errors": True}, BOB, Status.EXPIRED, False),
    "errors ignored, but nobody": ({"ignore_signature_errors": True}, None, Status.GOOD, False),
    "errors ignored, but bad": ({"ignore_signature_errors": True}, ALICE, Status.BAD, False),
    "by ID": ({"fingerprints": frozenset(), "remote_ids": frozenset({"A" * 8})}, ALICE, Status.GOOD, True),
    "by ID, another": ({"fingerprints": frozenset(), "remote_ids": frozenset({"A" * 8})}, BOB, Status.GOOD, False),
    "by both": ({"remote_ids": frozenset({"A" * 16})}, ALICE, Status.GOOD, True),
    "by both, and one does not fit": ({"remote_ids": frozenset({"B" * 8})}, ALICE, Status.GOOD, False),
}


@pytest.mark.parametrize("name", SIGNERS)
def test_only_the_right_signature_counts(name: str) -> None:
    changes, signer, status, granted = SIGNERS[name]
    scene = Scene(openpgp(how=replace(HOW, **changes)))
    scene.take(knock())
    verdict = scene.answer(signer, status)
    assert verdict is not None
    assert verdict.reason is (Reason.GRANTED if granted else Reason.SIGNATURE)
    assert bool(scene.memory.kept) is granted, "who is nobody fills no memory"


def test_a_primary_keys_fingerprint_names_its_signing_keys() -> None:
    scene = Scene()
    scene.take(knock())
    signed = Unsealed(fwknop.serialize(message()), Signature(Status.GOOD, BOB, ALICE))
    verdict = scene.gate.resume(1, signed)
    assert verdict is not None
    assert verdict.granted


def test_the_next_stanza_is_asked_where_one_fails_and_the_furthest_refusal_is_reported() -> None:
    for last, reason, number in ((ALICE, Reason.GRANTED, 3), (BOB, Reason.SIGNATURE, 1)):
        scene = Scene(openpgp(1), openpgp(2), openpgp(3))
        assert scene.take(knock()) is None
        assert scene.answer(BOB) is None
        assert scene.gate.resume(2, WRONG_KEY) is None
        verdict = scene.answer(last)
        assert verdict is not None
        assert (verdict.reason, verdict.stanza) == (reason, number)
        assert len(scene.room.taken) == 3


def test_a_plaintext_is_taken_once_in_whatever_frame() -> None:
    scene = Scene()
    for expected in (Reason.GRANTED, Reason.REPLAY):
        assert scene.take(knock()) is None
        verdict = scene.answer()
        assert verdict is not None
        assert verdict.reason is expected


@pytest.mark.parametrize("key", [None, b"key"])
def test_the_same_packet_again_costs_no_second_run_of_gpg(key: bytes | None) -> None:
    scene, sent = Scene(openpgp(how=HOW if key is None else WITH_HMAC)), knock(hmac_key=key)
    assert scene.take(sent) is None
    for _ in range(2):  # while it is under way, and after it
        verdict = scene.take(sent)
        assert verdict is not None
        assert verdict.reason is Reason.REPLAY
        scene.gate.resume(1, WRONG_KEY)
    assert len(scene.room.taken) == 1


def test_strangers_packets_push_out_nothing_but_their_own_kind() -> None:
    scene, good = Scene(openpgp(1, WITH_HMAC), openpgp(2), places=STRANGERS_MAX), knock(hmac_key=b"key")
    assert scene.take(good) is None
    for _ in range(RECENT_MAX + 1):
        assert scene.take(knock()) is None
    assert reason(scene.take(good)) is Reason.REPLAY


@pytest.mark.parametrize("max_age", [120, None])
@pytest.mark.parametrize("key", [None, b"key"])
def test_a_packet_for_which_there_was_no_room_opens_nothing_later(key: bytes | None, max_age: int | None) -> None:
    """Whoever keeps gpg busy has heard it, and could send it again from elsewhere."""
    how = HOW if key is None else WITH_HMAC
    scene = Scene(openpgp(how=how), places=0, max_age=max_age)
    sent, missed = knock(hmac_key=key), knock(hmac_key=key)
    assert reason(scene.take(sent)) is Reason.BUSY
    assert reason(scene.gate.take(knock(hmac_key=key), NOW + 0.01)) is Reason.BUSY
    scene.room.places = 2
    assert reason(scene.gate.take(sent, NOW + 0.02)) is Reason.REPLAY
    assert scene.take(missed) is None
    assert reason(scene.gate.resume(1, NotExamined())) is Reason.BUSY
    assert reason(scene.take(missed)) is Reason.REPLAY
    reloaded = Scene(openpgp(how=how))
    reloaded.gate.go_on_from(scene.gate)
    assert reason(reloaded.take(sent)) is Reason.REPLAY
    assert reloaded.take(knock(hmac_key=key)) is None
    assert bool(scene.memory.kept) is (key is not None), "only authentic packets reach the memory"


@pytest.mark.parametrize("key", [None, b"key"])
def test_a_packet_for_which_there_was_no_room_opens_nothing_in_another_frame(key: bytes | None) -> None:
    scene = Scene(openpgp(how=HOW if key is None else WITH_HMAC), places=0)
    block = bytes(range(100))
    assert reason(scene.take(knock(SESSION_KEY + b"\xd2\x64" + block, key))) is Reason.BUSY
    scene.room.places = 8
    for frame in (b"\xd2\xff\0\0\0\x64" + block, b"\xd2\xe5" + block[:32] + b"\x44" + block[32:]):
        assert reason(scene.take(knock(SESSION_KEY + frame, key))) is Reason.REPLAY
        assert reason(scene.take(knock(2 * SESSION_KEY + frame, key))) is Reason.REPLAY
    assert not scene.room.taken
    assert scene.take(knock(hmac_key=key)) is None


@pytest.mark.parametrize("outcome", ["no room", "given up", "killed"])
def test_an_authentic_packet_without_a_verdict_opens_nothing_after_a_restart(outcome: str) -> None:
    scene, sent = Scene(openpgp(how=WITH_HMAC), places=0 if outcome == "no room" else 8), knock(hmac_key=b"key")
    assert reason(scene.take(sent)) is (Reason.BUSY if outcome == "no room" else None)
    assert outcome != "given up" or [reason(one) for one in scene.gate.give_up()] == [Reason.BUSY]
    restarted = Scene(openpgp(how=WITH_HMAC), memory=scene.memory)
    assert reason(restarted.take(sent)) is Reason.REPLAY
    assert restarted.take(knock(hmac_key=b"key")) is None


@pytest.mark.parametrize("max_age", [120, None])
def test_what_anybody_can_make_opens_nothing_after_a_restart_unless_it_is_newer(max_age: int | None) -> None:
    start = int(NOW)
    scene = Scene(openpgp(), openpgp(2, WITH_HMAC), max_age=max_age, begun=start)
    for made, outcome in ((start - 1, Reason.REPLAY), (start, Reason.REPLAY), (start + 1, Reason.GRANTED)):
        assert scene.take(knock()) is None
        assert reason(scene.answer(time=made, random=f"{made:016}")) is outcome
    assert scene.take(knock(hmac_key=b"key")) is None
    assert reason(scene.answer(time=start)) is Reason.GRANTED, "the store knows what an HMAC key made"
    reloaded = Scene(openpgp(), max_age=max_age)
    reloaded.gate.go_on_from(scene.gate)
    assert reloaded.take(knock()) is None
    assert reason(reloaded.answer(time=start)) is Reason.REPLAY


def test_an_authentic_packet_that_cannot_be_remembered_does_not_reach_gpg() -> None:
    scene = Scene(openpgp(how=WITH_HMAC), memory=Memory(ReplayError("locked")))
    assert reason(scene.take(knock(hmac_key=b"key"))) is Reason.STORE
    assert not scene.room.taken


def test_a_packet_that_two_stanzas_with_one_hmac_key_open_is_asked_of_both() -> None:
    scene = Scene(openpgp(1, WITH_HMAC), openpgp(2, WITH_HMAC))
    assert scene.take(knock(hmac_key=b"key")) is None
    assert scene.gate.resume(1, WRONG_KEY) is None
    assert reason(scene.answer()) is Reason.GRANTED


def test_what_a_symmetric_key_has_opened_is_judged_by_that_alone() -> None:
    """A stanza for OpenPGP behind it would take it for a replay of what it is itself."""
    scene = Scene(stanza(1, open_ports=frozenset()), openpgp(2), openpgp(3, WITH_HMAC))
    sent = datagram(payload())
    assert reason(scene.take(sent)) is Reason.SERVICES
    assert reason(scene.take(sent)) is Reason.REPLAY


def test_a_flood_that_cannot_be_kept_makes_older_knocks_worthless() -> None:
    scene = Scene(places=0)
    for _ in range(STRANGERS_MAX + 1):
        assert reason(scene.take(knock())) is Reason.BUSY
    assert len(scene.gate._strangers) == 1  # noqa: SLF001  the bound is what is tested
    scene.room.places = 2
    assert scene.take(knock()) is None
    assert reason(scene.answer()) is Reason.REPLAY
    later = NOW + 200
    assert scene.gate.take(knock(), later) is None
    assert reason(scene.answer(time=int(later))) is Reason.GRANTED


def test_what_is_too_old_to_be_sent_again_is_not_kept() -> None:
    scene = Scene(places=0)
    scene.take(knock())
    scene.gate.take(knock(), NOW + 241)
    assert len(scene.gate._strangers) == 1  # noqa: SLF001  the bound is what is tested


def reason(verdict: Verdict | None) -> Reason | None:
    return None if verdict is None else verdict.reason


def test_what_still_waits_at_the_end_has_a_verdict_too() -> None:
    scene = Scene()
    knocks = [knock(), knock()]
    for one in knocks:
        assert scene.take(one) is None
    given_up = list(scene.gate.give_up())
    assert [(one.reason, one.datagram) for one in given_up] == [(Reason.BUSY, one) for one in knocks]
    assert scene.gate.resume(1, WRONG_KEY) is None, "it has its verdict"


def test_without_an_unsealer_openpgp_packets_are_not_looked_at() -> None:
    gate = Gate((openpgp(),), Memory(), Door().open, 120)
    assert gate.judge(knock(), NOW).reason is Reason.BUSY


def test_who_asks_for_a_verdict_at_once_has_one() -> None:
    assert Scene().gate.judge(knock(), NOW).reason is Reason.BUSY


REFUSED: dict[str, tuple[Datagram, dict[str, Any], Reason]] = {
    "a short packet": (datagram(payload(keys=OTHER_KEYS)), {}, Reason.DECRYPTION),
    "noise": (datagram(b"A" * 600), {}, Reason.DECRYPTION),
    "an expired stanza": (knock(), {"expires": 1}, Reason.EXPIRED),
    "another network": (knock(), {"source": ELSEWHERE}, Reason.NO_STANZA),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_knock_never_reaches_gpg(name: str) -> None:
    sent, changes, reason = REFUSED[name]
    scene = Scene(openpgp(**changes))
    verdict = scene.take(sent)
    assert verdict is not None
    assert verdict.reason is reason
    assert not scene.room.taken


@pytest.mark.parametrize("plaintext", [b"hello", b"0123456789012345:" + b"x" * 60])
def test_a_plaintext_that_is_none_opens_nothing(plaintext: bytes) -> None:
    scene = Scene()
    scene.take(knock())
    verdict = scene.gate.resume(1, Unsealed(plaintext, Signature(Status.GOOD, ALICE, ALICE)))
    assert verdict is not None
    assert verdict.reason in {Reason.DECRYPTION, Reason.DECODE}


def test_without_the_store_nothing_opens_and_a_bug_is_a_verdict() -> None:
    for error, reason in ((ReplayError("full"), Reason.STORE), (RuntimeError("unforeseen"), Reason.INTERNAL)):
        scene = Scene(memory=Memory(error))  # type: ignore[arg-type]  # one that nobody expects
        scene.take(knock())
        verdict = scene.answer()
        assert verdict is not None
        assert verdict.reason is reason
        assert not scene.door.grants


@pytest.mark.parametrize(
    ("signer", "changes", "said"),
    [
        (ALICE, {}, "info Incoming SPA data signed by 'AAAAAAAA' (fingerprint 'AAAA"),
        (BOB, {}, "warning Incoming SPA packet signed by: BBBB"),
        (BOB, {}, "BBBB, but that fingerprint is not in the GPG_FINGERPRINT_ID list."),
        (
            BOB,
            {"fingerprints": frozenset(), "remote_ids": frozenset({"A" * 8})},
            "warning Incoming SPA packet signed by ID: BBBBBBBB, but that ID is not in the GPG_REMOTE_ID list.",
        ),
        (None, {}, "warning Error creating fko context: Missing GPG signature"),
    ],
)
def test_fwknopds_line_names_the_signer(signer: str | None, changes: dict[str, Any], said: str) -> None:
    scene = Scene(openpgp(how=replace(HOW, **changes)))
    scene.take(knock())
    verdict = scene.answer(signer)
    assert verdict is not None
    lines = [f"{one.severity} {one.text.partition(') ')[2]}" for one in record_fwknop.entries(verdict, NOW)]
    assert any(said in line for line in lines), lines
