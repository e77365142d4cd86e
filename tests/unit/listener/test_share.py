"""The share of two gateways: what is asked, what is no answer, and the two policies."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.errors import ReplayError, ShareError
from doorward.listener import share as share_module
from doorward.listener.share import APART, SharedMemory, ask_once
from doorward.values import ShareFailure
from unit.making import Memory

if TYPE_CHECKING:
    from doorward.record.log import Log
    from unit.resp_server import Server

PATH = Path("/run/valkey.sock")
REFUSE, LOCAL = ShareFailure.REFUSE, ShareFailure.LOCAL


def test_a_packet_is_new_to_the_first_of_two_gateways_alone(server: Server, lines: Log) -> None:
    stores = Memory(), Memory()
    one, two = (SharedMemory(store, server.share(lines)) for store in stores)
    now = int(time.time())
    assert one.remember(b"packet", now, now + 240)
    assert not two.remember(b"packet", now, now + 240)
    assert two.remember(b"other", now, now + 240)
    assert not one.remember(b"packet", now, now + 240)
    assert b"packet" in stores[1].kept, "the second one's own store knows it too"
    (kept, _) = server.names.values()
    assert kept is not None
    assert 1000 * (240 + APART - 60) < kept <= 1000 * (240 + APART)
    assert not [name for name in server.names if b"packet" in name]


def test_a_packet_that_the_own_store_knows_is_not_new_whatever_the_share_says(server: Server, lines: Log) -> None:
    memory = SharedMemory(Memory(), server.share(lines))
    assert memory.remember(b"packet", 1, 2)
    server.names.clear()
    assert not memory.remember(b"packet", 1, 2)


def test_a_step_of_a_code_is_used_up_for_both_and_a_sequence_for_ever(server: Server, lines: Log) -> None:
    one, two = (SharedMemory(Memory(), server.share(lines)) for _ in range(2))
    step = int(time.time()) // 30
    assert one.use_step(b"name", step)
    assert not two.use_step(b"name", step)
    assert two.use_step(b"name", step + 1)
    assert two.use_step(b"another", step)
    assert None not in server.names.values()
    assert one.use_step(b"sequence", 0)
    assert not two.use_step(b"sequence", 0)
    assert list(server.names.values()).count(None) == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"-READONLY You can't write against a read only replica.\r\n",
        b":1\r\n",
        b"+QUEUED\r\n",
        b"+OK\r\n+OK\r\n",
        b"$1\r\nx\r\n",
    ],
)
@pytest.mark.parametrize("policy", [REFUSE, LOCAL])
def test_what_is_no_answer_is_left_to_the_policy(
    server: Server, lines: Log, reply: bytes, policy: ShareFailure
) -> None:
    store, share = Memory(), server.share(lines, policy)
    memory = SharedMemory(store, share)
    server.script = lambda words: reply if words[0] == b"SET" else None
    if policy is LOCAL:
        assert memory.remember(b"packet", 1, 2)
    else:
        with pytest.raises(ReplayError, match="the share cannot say whether it is new"):
            memory.remember(b"packet", 1, 2)
    assert b"packet" in store.kept, "it is never new again here"
    assert not share.works
    assert share.state.startswith(f"{PATH}: FAILS: ")
    assert share.refuses_all is (policy is REFUSE and not reply.startswith(b"-READONLY"))
    server.script = lambda _words: None
    share.revive()
    memory.tell(0.0)
    assert len(server.names) == 1, "the share is told afterwards"
    assert share.state == f"{PATH}: works"
    assert not SharedMemory(Memory(), share).remember(b"packet", 1, 2)


def test_a_share_that_is_away_is_told_everything_that_has_not_ended(
    server: Server, lines: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.down = "it cannot be reached"
    share = server.share(lines, LOCAL)
    memory = SharedMemory(Memory(), share)
    now = int(time.time())
    for number, until in enumerate((now - APART - 1, now + 9)):
        assert memory.remember(bytes([number]), 1, max(until, 1))
    assert memory.use_step(b"sequence", 0)
    memory.tell(now)
    server.down = ""
    share.revive()
    memory.tell(now)
    assert sorted(server.names.values(), key=str) == [pytest.approx(1000 * (9 + APART), abs=2000), None]
    memory.tell(now)
    assert len([words for words in server.asked if words[0] == b"SET"]) == 2, "nothing is told twice"
    monkeypatch.setattr(share_module, "UNTOLD_MAX", 1)
    server.stop("away")
    assert memory.remember(b"one", now, now + 9)
    with pytest.raises(ReplayError, match="has not been told of 1 packets"):
        memory.remember(b"two", now, now + 9)


def test_a_connection_that_ends_or_says_something_unasked_is_not_used_on(server: Server, lines: Log) -> None:
    share = server.share(lines)
    assert share.claim(b"one", 1)
    server.say(b"+OK\r\n")
    with pytest.raises(ShareError, match="says what it was not asked"):
        share.claim(b"one", 1)
    with pytest.raises(ShareError, match="says what it was not asked"):
        share.claim(b"one", 1)
    share.revive()
    assert not share.claim(b"one", 1)
    server.stop("gone")
    with pytest.raises(ShareError):
        share.claim(b"two", 1)
    share.revive()
    assert share.state == f"{PATH}: FAILS: gone"


def test_a_share_that_does_not_answer_in_time_is_not_waited_for(
    server: Server, lines: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_module, "PATIENCE", 0.02)
    share = server.share(lines)
    server.script = lambda _words: b""
    with pytest.raises(ShareError, match="no reply within 20 ms"):
        share.claim(b"one", 1)
    server.script = lambda _words: b"+O"
    share.revive()
    with pytest.raises(ShareError, match="no reply within 20 ms"):
        share.claim(b"one", 1)


def test_a_question_that_finds_no_room_is_no_question(
    server: Server, lines: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = server.share(lines)
    monkeypatch.setattr(os, "write", lambda _descriptor, _content: 1)
    with pytest.raises(ShareError, match="it takes no question"):
        share.claim(b"one", 1)


def test_entries_are_read_on_and_from_the_start_after_another_connection(server: Server, lines: Log) -> None:
    share = server.share(lines)
    for number in range(70):
        server.add(b"%d" % number)
    assert [len(share.read()) for _ in range(3)] == [64, 6, 0]
    share.append(b"last")
    assert [one.content for one in share.read()] == [b"last"]
    server.script = lambda words: b"-NOPERM no\r\n" if words[0] == b"XREAD" else None
    with pytest.raises(ShareError, match="NOPERM no"):
        share.read()
    assert share.claim(b"name", 1), "knocks go on"
    assert not share.refuses_all
    server.script = lambda _words: None
    share.close()
    share.revive()
    assert len(share.read()) == 64


def test_a_share_that_could_not_be_written_is_tried_until_it_can(server: Server, lines: Log) -> None:
    share = server.share(lines)
    share.probe()
    assert server.asked == [], "nothing is wrong"
    server.script = lambda words: b"-OOM no room\r\n" if words[0] == b"SET" else None
    with pytest.raises(ShareError, match="OOM"):
        share.claim(b"one", 1)
    share.probe()
    assert share.refuses_all
    server.script = lambda _words: None
    share.probe()
    assert share.state == f"{PATH}: works"
    assert list(server.names) == [b"doorward:probe"]


def test_a_slow_share_is_told_some_and_the_rest_later(
    server: Server, lines: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.down = "away"
    share = server.share(lines, LOCAL)
    memory = SharedMemory(Memory(), share)
    now = int(time.time())
    assert all(memory.remember(bytes([number]), now, now + 240) for number in range(9))
    server.down = ""
    share.revive()
    monkeypatch.setattr(share_module, "TELLING", 0.0)
    memory.tell(now)
    assert server.names == {}
    monkeypatch.setattr(share_module, "TELLING", 60.0)
    memory.tell(now)
    assert len(server.names) == 9


def test_a_check_asks_and_changes_nothing(server: Server) -> None:
    ask_once(server.connect())
    server.add(b"x")
    ask_once(server.connect())
    for reply, problem in ((b"-NOPERM no\r\n", "NOPERM no"), (b"+OK\r\n", "no reply to XREAD"), (b":\r\n", "unknown")):
        server.script = lambda _words, reply=reply: reply  # type: ignore[misc]
        with pytest.raises(ShareError, match=problem):
            ask_once(server.connect())
    assert {words[0] for words in server.asked} == {b"XREAD"}
