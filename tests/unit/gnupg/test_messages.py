"""What passes between the listener and the process that runs gpg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from doorward.crypto.openpgp import Signature, Status, Unsealed
from doorward.denials import Fit
from doorward.errors import HelperError, WireError
from doorward.gnupg import messages, worker
from doorward.gnupg.messages import (
    Answer,
    Keyring,
    Missed,
    Packet,
    Piece,
    Ready,
    Refusal,
    Trouble,
    Unusable,
)
from doorward.values import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.linux.codec import Codec

REQUESTS = (
    Packet(7, 1, b"\x85" + bytes(1124), authentic=True),
    Piece(b"abc", last=False),
    Piece(bytes(messages.PIECE_MAX), last=True),
    Packet(7, 1, b"\x85" + bytes(1124)),
)
SIGNED = Unsealed(b"plain", Signature(Status.EXPIRED, "A" * 40, "B" * 40))
REPLIES = (
    Ready(),
    Ready(("a doubt", "another one")),
    Unusable("no gpg"),
    Trouble("it ended"),
    Answer(1, Refusal("why")),
    Answer(1, Refusal("why", Fit.KEY)),
    Answer(2**32 - 1, Missed("gone")),
    Answer(3, Unsealed(b"plain", None)),
    Answer(4, SIGNED),
    Answer(5, Unsealed(b"", Signature(Status.MISSING_KEY, "0123456789ABCDEF", "0123456789ABCDEF"))),
)


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_arrives_as_it_was_sent(request_: messages.Request) -> None:
    encoded = messages.REQUESTS.encode(request_)
    assert len(encoded) <= messages.MESSAGE_MAX
    assert messages.REQUESTS.decode(encoded) == request_


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_arrives_as_it_was_sent(reply: messages.Reply) -> None:
    assert messages.REPLIES.decode(messages.REPLIES.encode(reply)) == reply


def test_keyrings_arrive_as_they_were_sent() -> None:
    sent = (
        Keyring(b"\0tar", None, None, "A" * 40),
        Keyring(b"", "/usr/bin/gpg", Secret(b"p\xff"), "host", (("AB" * 20, "access.conf:1: GPG_FINGERPRINT_ID"),)),
    )
    assert messages.KEYRINGS.decode(messages.KEYRINGS.encode(sent)) == sent


def test_a_text_that_is_too_long_is_cut() -> None:
    long = messages.REPLIES.decode(messages.REPLIES.encode(Trouble("x" * 100_000)))
    assert isinstance(long, Trouble)
    assert len(long.text) == 1000


def test_the_most_doubts_that_a_worker_can_have_go_into_one_message() -> None:
    most = Ready(("x" * 10_000,) * (worker.DOUBTS_MAX + 1))
    assert messages.REPLIES.decode(messages.REPLIES.encode(most))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Answer(1, Unsealed(b"x" * 1501, None)),
        lambda: Answer(1, Unsealed(b"x", Signature(Status.GOOD, "", "AB"))),
        lambda: Answer(1, Unsealed(b"x", Signature(Status.GOOD, "AB", "A\n"))),
        lambda: Answer(1, Unsealed(b"x", Signature(Status.GOOD, "AB", "é"))),
        lambda: Piece(b"", last=True),
        lambda: Piece(bytes(messages.PIECE_MAX + 1), last=True),
        lambda: Packet(1, -1, b"x"),
        lambda: Packet(1, 0, b""),
        lambda: Packet(1, 0, bytes(1501)),
    ],
)
def test_a_message_that_cannot_be_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(WireError):
        make()


@pytest.mark.parametrize("sent", [*REQUESTS, *REPLIES])
def test_a_message_that_is_cut_or_has_more_behind_it_is_refused(sent: messages.Request | messages.Reply) -> None:
    codec: Codec[Any] = messages.REQUESTS if isinstance(sent, messages.Request) else messages.REPLIES
    content = codec.encode(sent)
    for wrong in (*(content[:length] for length in range(min(len(content), 3000))), content + b"\0"):
        with pytest.raises(HelperError):
            codec.decode(wrong)
