"""What the helper remembers of what it opened."""

from __future__ import annotations

import ipaddress

from doorward.privsep.limits import FORGET_FROM, Ledger
from doorward.values import Grant, Service

SSH = (Service.parse("tcp/22"),)


def _grant(number: int, seconds: int) -> Grant:
    return Grant(ipaddress.IPv6Address((0x2001 << 112) + number), SSH, seconds)


def test_grants_that_are_over_cost_no_memory() -> None:
    ledger = Ledger()
    for number in range(10 * FORGET_FROM):
        ledger.record(_grant(number, 30), now=float(number))
    assert len(ledger._ends) <= FORGET_FROM + 31  # noqa: SLF001  memory has no other measure
    assert len(ledger.live(10.0 * FORGET_FROM - 1)) == 30


def test_no_grant_that_is_live_is_forgotten_however_many_there_are() -> None:
    ledger = Ledger()
    for number in range(5 * FORGET_FROM):
        ledger.record(_grant(number, 30), now=number / 1000)
    assert len(ledger.live(5 * FORGET_FROM / 1000)) == 5 * FORGET_FROM
