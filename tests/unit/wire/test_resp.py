"""RESP2: the commands' bytes, and replies, of which only the expected ones are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import WireError
from doorward.wire import resp
from doorward.wire.resp import Entry, Refusal

STREAM = b"grants"


def array(*items: bytes) -> bytes:
    return b"*%d\r\n" % len(items) + b"".join(items)


def bulk(content: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(content), content)


def row(name: bytes, content: bytes, field: bytes = b"g") -> bytes:
    return array(bulk(name), array(bulk(field), bulk(content)))


def streams(*rows: bytes, name: bytes = STREAM) -> bytes:
    return array(array(bulk(name), array(*rows)))


REPLIES = {
    b"+OK\r\n": "OK",
    b"$-1\r\n": None,
    b"*-1\r\n": None,
    b"$0\r\n\r\n": b"",
    b"$3\r\na\r\n\r\n": b"a\r\n",
    b"*0\r\n": (),
    b"*2\r\n$1\r\na\r\n+b\r\n": (b"a", "b"),
    b"-READONLY You can't write\r\n": Refusal("READONLY You can't write"),
    b"-\x1b[2J\xff\r\n": Refusal("?[2J?"),
    streams(row(b"1-0", b"x")): ((STREAM, ((b"1-0", (b"g", b"x")),)),),
}


@pytest.mark.parametrize("content", REPLIES)
def test_a_reply_is_read_with_its_length_and_needs_all_of_its_bytes(content: bytes) -> None:
    assert resp.parse(content) == (REPLIES[content], len(content))
    assert resp.parse(content + b"+OK\r\n") == (REPLIES[content], len(content)), "what is behind it stays"
    for length in range(len(content)):
        assert resp.parse(content[:length]) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b":1\r\n", "unknown kind"),
        (b"\r\n", "unknown kind"),
        (b"%0\r\n", "unknown kind"),
        (b"$-2\r\n", "no length"),
        (b"$+1\r\n", "no length"),
        (b"$01\r\n", "no length"),
        (b"$\r\n", "no length"),
        (b"$2049\r\n", "no length up to 2048"),
        (b"*65\r\n", "no length up to 64"),
        (b"$1\r\nabc\r\n", "longer than it says"),
        (b"+" + b"x" * 511, "without an end"),
        (b"*1\r\n" * 6, "unknown kind: b'\\*'"),
        (bytes(resp.REPLY_MAX + 1), "more than 262144 bytes"),
    ],
)
def test_anything_else_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        resp.parse(content)


@given(st.binary(max_size=300) | st.lists(st.sampled_from([*REPLIES, b"*3\r\n", b"$9\r\n"]), max_size=9).map(b"".join))
def test_bytes_are_a_reply_or_need_more_or_are_refused(content: bytes) -> None:
    try:
        found = resp.parse(content)
    except WireError:
        return
    assert found is None or 0 < found[1] <= len(content)


def test_the_commands_are_arrays_of_strings() -> None:
    assert resp.claim(b"n", 1500) == b"*6\r\n$3\r\nSET\r\n$1\r\nn\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n$4\r\n1500\r\n"
    assert resp.claim(b"n", None).endswith(b"$2\r\nNX\r\n")
    assert resp.append(b"s", b"\r\n", 9).endswith(b"$6\r\nMAXLEN\r\n$1\r\n9\r\n$1\r\n*\r\n$1\r\ng\r\n$2\r\n\r\n\r\n")
    assert resp.read(b"s", b"0-0").endswith(b"$7\r\nSTREAMS\r\n$1\r\ns\r\n$3\r\n0-0\r\n")


def test_a_claim_is_new_or_was_there() -> None:
    assert resp.was_new("OK")
    assert not resp.was_new(None)
    for reply in ("QUEUED", b"OK", (), Refusal("ERR no")):
        with pytest.raises(WireError, match="no reply to SET"):
            resp.was_new(reply)


def test_an_entry_is_appended_under_a_name() -> None:
    assert resp.appended(b"17-0") == b"17-0"
    for reply in ("17-0", b"17", b"017-0", b"17-0\n", None):
        with pytest.raises(WireError, match="no reply to XADD"):
            resp.appended(reply)


def read(content: bytes, after: bytes = resp.FIRST) -> tuple[Entry, ...]:
    found = resp.parse(content)
    assert found is not None
    return resp.entries(found[0], STREAM, after)


def test_entries_are_read_in_their_order() -> None:
    assert read(b"*-1\r\n") == ()
    assert read(streams(row(b"9-0", b"x"), row(b"10-0", b"y"), row(b"10-1", b""))) == (
        Entry(b"9-0", b"x"),
        Entry(b"10-0", b"y"),
        Entry(b"10-1", b""),
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"+OK\r\n", "no reply to XREAD: 'OK'"),
        (b"*0\r\n", "no reply to XREAD"),
        (b"-ERR no\r\n", "no reply to XREAD: ERR no"),
        (streams(row(b"1-0", b""), name=b"others"), "no reply to XREAD"),
        (streams(row(b"1-0", b""), row(b"1-0", b"")), "read before"),
        (streams(row(b"2-0", b""), row(b"1-0", b"")), "read before"),
        (streams(row(b"0-0", b"")), "read before"),
        (streams(row(b"1", b"")), "no entry"),
        (streams(row(b"1-0", b"", field=b"h")), "no entry"),
        (streams(array(bulk(b"1-0"), b"$-1\r\n")), "no entry"),
        (streams(b"+OK\r\n"), "no entry"),
    ],
)
def test_what_is_no_reply_to_a_read_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        read(content)
