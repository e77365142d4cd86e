"""The form of the magic packet: one spelling."""

from __future__ import annotations

import pytest

from doorward.errors import WireError
from doorward.wire import magic

GOOD = b"0123456789abcdef" * 4 + b"1800000000" + b"fedcba9876543210" * 2


def test_a_packet_has_three_parts() -> None:
    found = magic.parse(GOOD)
    assert (found.mac, found.made, found.signed) == (GOOD[:64], 1_800_000_000, GOOD[64:])
    assert len(GOOD) == magic.PACKET


@pytest.mark.parametrize("length", range(106))
def test_a_packet_that_is_cut_is_none(length: int) -> None:
    with pytest.raises(WireError):
        magic.parse(GOOD[:length])


@pytest.mark.parametrize(
    "wrong",
    [
        GOOD.upper(),
        GOOD + b"\n",
        b" " + GOOD[1:],
        GOOD[:64] + b"+800000000" + GOOD[74:],
        GOOD[:64] + "1٨00000000".encode()[:10] + GOOD[74:],
        GOOD[:64] + b"180000000a" + GOOD[74:],
        GOOD[:-1] + b"g",
        b"correct horse battery" + GOOD[21:],
        bytes(106),
    ],
)
def test_another_spelling_is_refused(wrong: bytes) -> None:
    with pytest.raises(WireError):
        magic.parse(wrong)
