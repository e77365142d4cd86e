"""What SECURITY.md says of risks that are accepted, and of what strangers cost: each is so, and goes no further."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from doorward.gate import Gate
from doorward.record import chain
from doorward.replay import Past, ReplayStore
from doorward.values import Networks, Reason, SymmetricKeys
from unit.making import KEYS, NOW, ORIGIN, OTHER_KEYS, Door, Memory, datagram, message, payload, stanza
from unit.record.test_chain import sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from doorward.config.stanza import Stanza
    from doorward.gate import Verdict
    from doorward.values import Datagram

AGE = 120
OBSERVER = bytes([203, 0, 113, 9])
INSIDE = Networks.of([ipaddress.ip_network("192.0.2.0/24")])
ANY_SOURCE = "0.0.0.0,tcp/22"


def knock(**changes: Any) -> Datagram:
    return datagram(payload(message(**changes)))


@contextlib.contextmanager
def stored(folder: Path, **begun: int) -> Iterator[tuple[Gate, ReplayStore]]:
    """A gate before the store in a folder; it ends as a daemon does."""
    store = ReplayStore(folder / "replay.db", **begun)
    try:
        yield Gate((stanza(),), store, Door().open, AGE), store
    finally:
        store.close()


# ---- what a stranger's packet costs ----------------------------------------------------------------------------------


STEPS = ("_walk", "compare_digest", "decode_blob", "decrypt", "remember", "parse", "decide", "open")


def work(take: Callable[[], object]) -> dict[str, int]:
    """How often each step of a packet's way is taken meanwhile: a measure of work that no clock has a part in."""
    called: Counter[str] = Counter()

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "call":
            called[frame.f_code.co_name] += 1
        elif event == "c_call":
            called[function.__name__] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        take()
    finally:
        sys.setprofile(before)
    return {step: called[step] for step in STEPS}


def test_a_strangers_packet_costs_one_hmac_for_each_stanza_whose_source_fits_and_nothing_else() -> None:
    elsewhere = stanza(9, source=Networks.of([ipaddress.ip_network("203.0.113.0/24")]))
    many = (*map(stanza, (1, 2, 3)), elsewhere, stanza(4, expires=1))
    gate = Gate(many, Memory(), Door().open, AGE)
    cost = work(lambda: gate.judge(datagram(payload(keys=OTHER_KEYS)), NOW))
    assert cost == dict.fromkeys(STEPS, 0) | {"_walk": 1, "compare_digest": 3}
    assert 0 not in work(lambda: gate.judge(knock(), NOW)).values(), "the other steps would have been seen"


def test_where_no_hmac_key_is_a_strangers_packet_costs_a_decryption_and_is_not_remembered() -> None:
    memory = Memory()
    gate = Gate((stanza(keys=SymmetricKeys(KEYS.key, None)),), memory, Door().open, AGE)
    cost = work(lambda: gate.judge(datagram(payload(keys=SymmetricKeys(OTHER_KEYS.key, None))), NOW))
    assert (cost["compare_digest"], cost["decrypt"], cost["remember"]) == (0, 2, 0)  # ours, and the cipher's
    assert not memory.kept


def test_a_flood_from_the_owners_address_leaves_nothing_behind_and_the_owners_knock_costs_what_it_did() -> None:
    memory, door = Memory(), Door()
    gate = Gate((stanza(),), memory, door.open, AGE)
    before = work(lambda: gate.judge(knock(), NOW))
    flood = [datagram(payload(keys=OTHER_KEYS)) for _ in range(500)]
    cost = work(lambda: [gate.judge(one, NOW) for one in flood])
    assert (cost["compare_digest"], cost["_walk"]) == (500, 500)
    assert len(memory.kept) == 1, "the first good knock alone"
    after = work(lambda: gate.judge(knock(), NOW))
    assert after == before
    assert len(door.grants) == 2, "nobody is locked out for what others sent in his name"


def test_a_good_packet_that_is_sent_again_and_again_costs_no_hmac_and_no_look_into_the_store() -> None:
    gate, good = Gate((stanza(),), Memory(), Door().open, AGE), knock()
    assert gate.judge(good, NOW).granted
    cost = work(lambda: [gate.judge(good, NOW) for _ in range(500)])
    assert (cost["_walk"], cost["compare_digest"], cost["remember"]) == (500, 0, 0)


# ---- packets that are sent again -------------------------------------------------------------------------------------


def test_a_host_restored_from_a_snapshot_accepts_what_came_after_it_and_only_while_it_is_fresh(tmp_path: Path) -> None:
    state, snapshot, earlier, later = tmp_path / "state", tmp_path / "snapshot", knock(), knock(time=int(NOW) + 1)
    state.mkdir()
    with stored(state) as (gate, _):
        assert gate.judge(earlier, NOW).granted
    shutil.copytree(state, snapshot)
    with stored(state) as (gate, _):
        assert gate.judge(later, NOW).granted
        assert gate.judge(later, NOW).reason is Reason.REPLAY
    shutil.rmtree(state)
    shutil.copytree(snapshot, state)
    with stored(state, if_lost=int(NOW) + AGE) as (gate, store):
        assert store.past is Past.COMPLETE, "store and lock file agree: nothing shows that they are old"
        assert gate.judge(later, NOW + 2 + AGE).reason is Reason.STALE
        assert gate.judge(earlier, NOW).reason is Reason.REPLAY
    shutil.rmtree(state)
    shutil.copytree(snapshot, state)
    with stored(state) as (gate, _):
        assert gate.judge(later, NOW + 1 + AGE).granted, "the risk that is accepted"


@pytest.mark.parametrize("restored", ["replay.db", "replay.db.lock"])
def test_a_backup_of_one_of_the_two_files_is_noticed(restored: str, tmp_path: Path) -> None:
    with stored(tmp_path) as (gate, _):
        assert gate.judge(knock(), NOW).granted
    backup, later = (tmp_path / restored).read_bytes(), knock(time=int(NOW) + 1)
    (tmp_path / "replay.db").unlink()
    (tmp_path / "replay.db.lock").unlink()
    with stored(tmp_path) as (gate, _):
        assert gate.judge(later, NOW).granted
    (tmp_path / restored).write_bytes(backup)
    with stored(tmp_path, if_lost=int(NOW) + AGE) as (gate, store):
        assert store.past is Past.LOST
        assert gate.judge(later, NOW + 1).reason is Reason.REPLAY


def test_a_knock_of_a_client_whose_clock_is_ahead_is_granted_once_for_as_long_as_it_is_fresh(tmp_path: Path) -> None:
    ahead = knock(time=int(NOW) + 100)
    with stored(tmp_path) as (gate, store):
        assert gate.judge(ahead, NOW).granted
        for now in (NOW + 99, NOW + 101, NOW + 100 + AGE):
            store.prune(now)
            assert Gate((stanza(),), store, Door().open, AGE).judge(ahead, now).reason is Reason.REPLAY
    assert Gate((stanza(),), Memory(), Door().open, AGE).judge(ahead, NOW + 101 + AGE).reason is Reason.STALE


def test_where_all_of_the_state_was_deleted_such_a_knock_is_granted_again_for_as_long_as_the_clock_was_ahead(
    tmp_path: Path,
) -> None:
    ahead, honest = knock(time=int(NOW) + 60), knock()
    for begun, granted in ((59, True), (60, False)):
        folder = tmp_path / str(begun)
        folder.mkdir()
        with stored(folder, if_new=int(NOW) + begun) as (gate, _):
            assert gate.judge(honest, NOW + begun).reason is Reason.REPLAY
            assert gate.judge(ahead, NOW + begun).granted is granted


def test_a_packet_that_fits_no_source_is_not_remembered_and_opens_from_an_address_that_does() -> None:
    memory, door = Memory(), Door()
    gate = Gate((stanza(source=INSIDE),), memory, door.open, AGE)
    sent = knock(text=ANY_SOURCE)
    assert gate.judge(sent._replace(origin=OBSERVER), NOW).reason is Reason.NO_STANZA
    assert not memory.kept
    assert gate.judge(sent, NOW + AGE + 1).reason is Reason.STALE
    gate = Gate((stanza(source=INSIDE),), Memory(), door.open, AGE)
    assert gate.judge(sent, NOW + AGE).granted, "the risk that is accepted"


def at_two_hosts(one: Stanza, other: Stanza) -> tuple[Verdict, Verdict, Verdict]:
    """A knock without an address; then an observer sends it to the same host, and to another one."""
    sent, (first, second) = knock(text=ANY_SOURCE), (Gate((each,), Memory(), Door().open, AGE) for each in (one, other))
    observed = sent._replace(origin=OBSERVER)
    return first.judge(sent, NOW), first.judge(observed, NOW), second.judge(observed, NOW)


def test_a_key_that_two_hosts_share_opens_the_second_one_for_an_observer_and_a_key_of_its_own_does_not() -> None:
    here, again, there = at_two_hosts(stanza(), stanza())
    assert (here.granted, again.reason, there.granted) == (True, Reason.REPLAY, True)
    assert here.grant is not None
    assert there.grant is not None
    assert (here.grant.source.packed, there.grant.source.packed) == (ORIGIN, OBSERVER)
    assert at_two_hosts(stanza(), stanza(keys=OTHER_KEYS))[2].reason is Reason.HMAC
    required = stanza(require_source_address=True)
    assert [one.reason for one in at_two_hosts(required, required)] == [
        Reason.SOURCE_REQUIRED,
        Reason.REPLAY,
        Reason.SOURCE_REQUIRED,
    ]


# ---- AUDIT_FILE ------------------------------------------------------------------------------------------------------


def test_a_chain_that_was_rewritten_or_cut_holds_and_shows_against_a_hash_that_was_noted() -> None:
    file = sealed("one", "two", "three")
    noted = chain.last(file[-1])
    for forged in (sealed("one", "TWO", "three"), file[:-1]):
        count, last, broken = chain.verify(forged)
        assert (count, broken) == (len(forged), None), "the risk that is accepted"
        assert last != noted
