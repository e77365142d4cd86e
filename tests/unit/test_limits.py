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
    assert len(ledger._spans) <= FORGET_FROM + 31  # noqa: SLF001  memory has no other measure
    assert len(ledger.live(10.0 * FORGET_FROM - 1)) == 30


def test_no_grant_that_is_live_is_forgotten_however_many_there_are() -> None:
    ledger = Ledger()
    for number in range(5 * FORGET_FROM):
        ledger.record(_grant(number, 30), now=number / 1000)
    assert len(ledger.live(5 * FORGET_FROM / 1000)) == 5 * FORGET_FROM


def test_what_was_closed_by_hand_is_not_what_was_granted_since() -> None:
    ledger = Ledger()
    one, two = (ipaddress.ip_address(f"192.0.2.{number}") for number in (1, 2))
    for source in (one, two):
        ledger.adopt(source, SSH, 10, 100)
    ledger.withdraw(one, 20)
    assert [source for source, *_ in ledger.live(30)] == [two]
    ledger.adopt(one, SSH, 30, 100)
    ledger.withdraw(None, 25)
    assert [source for source, *_ in ledger.live(40)] == [one]
    ledger.withdraw(ipaddress.ip_address("192.0.2.9"), 99)
    assert len(ledger.live(40)) == 1
