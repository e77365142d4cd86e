"""Messages of a SEQPACKET socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.errors import HelperError, OverlongError
from doorward.linux import seqpacket
from doorward.linux.seqpacket import MESSAGE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(0)
        yield ours, theirs


def descriptors() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def test_a_message_is_heard_without_the_descriptors_that_come_with_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    before = descriptors()
    seqpacket.send(theirs, b"x", [0, 1])
    assert seqpacket.hear(ours) == b"x"
    assert descriptors() == before


def test_a_message_that_is_too_long_is_a_byte_longer_than_any_may_be(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(bytes(MESSAGE_MAX + 100))
    assert len(seqpacket.hear(ours)) == MESSAGE_MAX + 1
    theirs.send(bytes(MESSAGE_MAX + 100))
    with pytest.raises(OverlongError):
        seqpacket.receive(ours)


def test_nothing_to_hear_is_told_from_a_peer_that_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with pytest.raises(HelperError) as nothing:
        seqpacket.hear(ours)
    assert isinstance(nothing.value.__cause__, BlockingIOError)
    theirs.close()
    with pytest.raises(HelperError, match="is gone"):
        seqpacket.hear(ours)


def test_the_end_of_a_peer_is_noticed_and_its_words_are_not(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    assert not seqpacket.hung_up(ours)
    theirs.close()
    assert seqpacket.hung_up(ours, None)
    reader, writer = os.pipe()
    assert not seqpacket.hung_up(writer)
    os.close(reader)
    assert seqpacket.hung_up(writer)
    os.close(writer)


def test_what_is_read_as_frozen_can_be_changed_by_nobody() -> None:
    frozen = seqpacket.freeze("test", b"content")
    with pytest.raises(PermissionError):
        os.write(frozen, b"x")
    assert seqpacket.read_frozen(frozen, 100) == b"content"
    changeable = os.memfd_create("test")
    with pytest.raises(HelperError, match="not frozen"):
        seqpacket.read_frozen(changeable, 100)
    with pytest.raises(HelperError, match="no memory"):
        seqpacket.read_frozen(os.open(os.devnull, os.O_RDONLY), 100)
