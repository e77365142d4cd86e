"""Whether grants keep a host closed, and the sentences that log, `doorwardd check` and `doorward status` share."""

from __future__ import annotations

import ipaddress
import math

import pytest

from doorward.firewall.elements import ANYONE
from doorward.firewall.standing import Standing, Word, doubtful, lasting, opening, with_grants
from doorward.values import LiveGrant, Nat, Service

SSH, KNOCK = Service.parse("tcp/22"), Service.parse("udp/62201")
SOURCE, TARGET = ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("10.0.0.5")


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        (LiveGrant(SOURCE, SSH, 30.4), "tcp/22 for 30 s"),
        (LiveGrant(SOURCE, None, math.inf), "everything without an end"),
        (LiveGrant(SOURCE, SSH, 1, os="Linux", destination=TARGET), "tcp/22 at 10.0.0.5 from Linux for 1 s"),
        (LiveGrant(SOURCE, SSH, 1, Nat(None, 80)), "tcp/22 to this host, port 80 for 1 s"),
        (LiveGrant(SOURCE, SSH, 1, Nat(TARGET, 80, rewrite=False)), "tcp/22 through to 10.0.0.5 port 80 for 1 s"),
        (LiveGrant(SOURCE, SSH, 1, Nat(TARGET, 80, masquerade=True)), "tcp/22 to 10.0.0.5 port 80 masqueraded for 1 s"),
        (
            LiveGrant(SOURCE, None, 1, Nat(TARGET, None, everything=True, snat=SOURCE)),
            "everything to 10.0.0.5 under the source 192.0.2.7 for 1 s",
        ),
        (LiveGrant(SOURCE, None, 1, Nat.to_everywhere(4)), "everything through to everywhere for 1 s"),
    ],
)
def test_a_grant_has_one_text(grant: LiveGrant, words: str) -> None:
    assert f"{opening(grant)} {lasting(grant)}" == words


def test_a_host_is_closed_under_grants_of_an_address_and_open_under_one_of_everybody() -> None:
    mine, everybodys = LiveGrant(SOURCE, SSH, 30), LiveGrant(ANYONE, SSH, 30)
    assert with_grants(Standing(), [mine], ()) == Standing()
    found = with_grants(Standing(), [mine, everybodys], ())
    assert found == Standing(closed=False, doubts=((Word.OPEN, "tcp/22 is open to everybody, for 30 s"),))
    assert with_grants(Standing(), [LiveGrant(ANYONE, KNOCK, 5)], [KNOCK]) == Standing(), "a server of our own"
    assert with_grants(Standing(), [LiveGrant(ANYONE, None, 5)], [KNOCK]).sentences == (
        "everything is open to everybody, for 5 s",
    )


def test_a_grant_without_an_end_is_named_and_opens_nothing_to_others() -> None:
    found = with_grants(Standing(), [LiveGrant(SOURCE, SSH, math.inf)], ())
    assert found == Standing(doubts=((Word.ENDLESS, "a grant without an end, which no knock made: 192.0.2.7 tcp/22"),))


def test_doubts_of_the_table_come_before_those_of_its_grants() -> None:
    before = doubtful(Word.UNKNOWN, "nobody knows")
    found = with_grants(before, [LiveGrant(ANYONE, SSH, math.inf)], ())
    assert [word for word, _ in found.doubts] == [Word.UNKNOWN, Word.OPEN, Word.ENDLESS]
    assert (before.closed, found.closed) == (None, False)
