"""Copies of one packet: the same in every header, within a moment, and few of them."""

from __future__ import annotations

from typing import Any

import pytest

from doorward.listener.copies import COPIES_MAX, MOMENT, PACKETS_MAX, Copies
from doorward.values import Datagram

PACKET = Datagram(b"x" * 164, bytes([192, 0, 2, 7]), bytes([192, 0, 2, 1]), 40000, 62201)


def test_a_packet_that_is_shown_again_at_once_is_a_copy_and_not_without_an_end() -> None:
    copies = Copies()
    assert not copies.is_one(PACKET, 10.0), "nothing came before"
    copies.note(PACKET, 10.0)
    assert [copies.is_one(PACKET, 10.0 + MOMENT) for _ in range(COPIES_MAX + 2)] == [True] * COPIES_MAX + [False] * 2


def test_a_packet_that_is_sent_again_later_is_none() -> None:
    copies = Copies()
    copies.note(PACKET, 10.0)
    assert not copies.is_one(PACKET, 10.0 + MOMENT + 0.001)


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": bytes([192, 0, 2, 8])},
        {"origin_port": 40001},
        {"destination": bytes([192, 0, 2, 2])},
        {"destination_port": 62202},
        {"payload": b"y" * 164},
        {"protocol": 6},
    ],
)
def test_a_packet_that_differs_anywhere_is_none(changed: dict[str, Any]) -> None:
    copies = Copies()
    copies.note(PACKET, 10.0)
    assert not copies.is_one(PACKET._replace(**changed), 10.0)


def test_only_the_last_packets_of_the_last_moment_are_kept() -> None:
    copies = Copies()
    for port in range(PACKETS_MAX + 1):
        copies.note(PACKET._replace(origin_port=port), 10.0)
    assert len(copies._seen) == PACKETS_MAX  # noqa: SLF001  what is bounded
    assert [copies.is_one(PACKET._replace(origin_port=port), 10.0) for port in (0, 1)] == [False, True]
    copies.note(PACKET, 20.0)
    assert list(copies._seen) == [PACKET]  # noqa: SLF001  what is bounded
