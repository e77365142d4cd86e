"""fwknopd's lines: wording as its own, one test a kind; and nothing that a stranger sends can make up a line."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.config.stanza import Cycle, Stanza
from doorward.denials import (
    EXPIRED,
    NO_STANZA,
    REPLAYED,
    WRONG_HMAC,
    BadSignature,
    Denial,
    Malformed,
    NotDecrypted,
    NotServed,
    ServiceClosed,
    SourceRequired,
    TooNew,
    TooOld,
    Undecodable,
    Unserved,
    WrongClock,
    WrongUser,
)
from doorward.gate import Verdict
from doorward.record import fwknop
from doorward.values import ANYWHERE, Datagram, Execution, Grant, Nat, Service
from doorward.wire.fwknop import Field

ORIGIN = ipaddress.ip_address("192.0.2.9")
OTHER = ipaddress.ip_address("10.0.0.5")
DATAGRAM = Datagram(b"A" * 200, ORIGIN.packed, bytes(4), 40000, 62201)
HEAD = "[192.0.2.9] (stanza #2)"
INVALID = f"{HEAD} Error creating fko context: Args contain invalid data: FKO_ERROR_INVALID_DATA_DECODE_"
NOW = 1_000_000.5
SSH = (Service.parse("tcp/22"), Service.parse("udp/53"))


def verdict(denial: Denial | None) -> Verdict:
    return Verdict(denial, DATAGRAM, 2)


LINES: list[tuple[Denial, str]] = [
    (EXPIRED, f"{HEAD} Access stanza has expired"),
    (
        WRONG_HMAC,
        f"{HEAD} Error creating fko context: Args contain invalid data: FKO_ERROR_INVALID_DATA_HMAC_COMPAREFAIL",
    ),
    (NotDecrypted("bad"), f"{HEAD} Error creating fko context: Decryption failed or decrypted data is invalid"),
    (
        Undecodable(Field.DIGEST, "the digest does not fit the plaintext"),
        f"{HEAD} Error creating fko context: The computed digest did not match the digest in the spa data",
    ),
    (
        Undecodable(Field.USER, "the user name is longer than 48 bytes"),
        f"{INVALID}USERNAME_VALIDFAIL",
    ),
    (
        Undecodable(Field.MESSAGE, "'timeout' is not tcp/PORT or udp/PORT"),
        f"{INVALID}MESSAGE_VALIDFAIL",
    ),
    (BadSignature("expired", "A" * 40), f"{HEAD} Error creating fko context: Bad GPG signature"),
    (TooOld(200.4, 120), f"{HEAD} SPA data time difference is too great (200 seconds)."),
    (TooNew(300.0, 120), f"{HEAD} SPA data time difference is too great (300 seconds)."),
    (WrongClock(-3456007.0), f"{HEAD} SPA data time difference is too great (3456007 seconds)."),
    (WrongUser("eve", "alice"), f"{HEAD} Username in SPA data (eve) does not match required username: alice"),
    (WrongUser("o'hara", "bob"), f"{HEAD} Username in SPA data (o'hara) does not match required username: bob"),
    (
        WrongUser("x' is not 'y", "d'arcy"),
        f"{HEAD} Username in SPA data (x' is not 'y) does not match required username: d'arcy",
    ),
    (SourceRequired(), f"{HEAD} Got 0.0.0.0 when valid source IP was required."),
    (ServiceClosed(SSH[0]), f"{HEAD} One or more requested protocol/ports was denied per access.conf."),
    (
        NotServed(Unserved.COMMAND),
        f"{HEAD} SPA Command messages are not allowed in the current configuration.",
    ),
    (
        NotServed(Unserved.NAT_WITH_OS),
        "(stanza #2) SPA packet from 192.0.2.9 requested NAT access, but is not enabled/supported",
    ),
    (REPLAYED, "Replay detected from source IP: 192.0.2.9, Destination proto/port: 17/62201"),
]


@pytest.mark.parametrize(
    ("denial", "line"), LINES, ids=[f"{type(one).__name__}-{n}" for n, (one, _) in enumerate(LINES)]
)
def test_a_refusal_has_fwknopds_line_behind_the_match_of_its_stanza(denial: Denial, line: str) -> None:
    first, second = fwknop.entries(verdict(denial), NOW)
    assert first.text == "(stanza #2) SPA Packet from IP: 192.0.2.9 received with access source match"
    assert second.text == line


def test_a_source_without_a_stanza_has_one_line() -> None:
    (entry,) = fwknop.entries(Verdict(NO_STANZA, DATAGRAM), NOW)
    assert entry == ("warning", "No access data found for source IP: 192.0.2.9")


def test_what_is_no_packet_is_told_to_who_debugs() -> None:
    (entry,) = fwknop.entries(Verdict(Malformed("payload of 1 bytes"), DATAGRAM._replace(payload=b"x")), NOW)
    assert entry.severity == "debug"
    assert "returned error 4097: 'Not enough data to be a valid SPA message'" in entry.text


def rules(grant: Grant) -> list[str]:
    told = fwknop.entries(verdict(None)._replace(grant=grant), NOW)[1:]
    return [entry.text for entry in told]


def test_a_grant_has_a_line_for_each_service_with_the_whole_list() -> None:
    line = "Added access rule to FWKNOP_INPUT for 192.0.2.9 -> 0.0.0.0/0 tcp/22,udp/53, expires at 1000030"
    assert rules(Grant(ORIGIN, SSH, 30)) == [line, line]


def test_nat_has_the_lines_of_its_rules() -> None:
    rest = "for 192.0.2.9 -> 0.0.0.0/0 tcp/22, expires at 1000030"
    assert rules(Grant(ORIGIN, SSH[:1], 30, Nat(OTHER, 22, masquerade=True))) == [
        f"Added FORWARD rule to FWKNOP_FORWARD {rest}",
        f"Added DNAT rule to FWKNOP_PREROUTING {rest}",
        f"Added SNAT rule to FWKNOP_POSTROUTING {rest}",
    ]
    assert rules(Grant(ORIGIN, SSH[:1], 30, Nat(None, 22)))[0] == f"Added local NAT rule to FWKNOP_INPUT {rest}"
    everything = rules(Grant(ORIGIN, SSH[:1], 30, Nat(OTHER, None, everything=True, rewrite=False)))
    assert everything == ["Added FORWARD ALL rule to FWKNOP_FORWARD for 192.0.2.9 -> 0.0.0.0/0 */*, expires at 1000030"]
    everywhere = rules(Grant(ORIGIN, SSH[:1], 30, Nat.to_everywhere(4, masquerade=True)))
    snat = "Added SNAT ALL rule to FWKNOP_POSTROUTING for 192.0.2.9 -> 0.0.0.0/0 */*, expires at 1000030"
    assert everywhere == [*everything, snat]


def test_a_command_cycle_is_named() -> None:
    stanza = Stanza(2, "a", 1, ANYWHERE, None, cycle=Cycle("/bin/open $IP", "/bin/close $IP", 10))
    execution = Execution(2, ORIGIN, ORIGIN, OTHER, 10, 1, SSH[0])
    told = fwknop.entries(verdict(None)._replace(execution=execution), NOW, stanza)
    assert [entry.text for entry in told[1:]] == [
        f"{HEAD} Running CMD_CYCLE_OPEN command: /bin/open $IP",
        f"{HEAD} Running CMD_CYCLE_CLOSE command in 10 seconds: /bin/close $IP",
    ]


def test_test_mode_says_so() -> None:
    told = fwknop.entries(verdict(None)._replace(grant=Grant(ORIGIN, SSH, 30)), NOW, test=True)
    assert told[1].text == f"{HEAD} --test mode enabled, skipping firewall manipulation."


@given(st.text(max_size=40))
def test_a_command_cannot_begin_another_line(text: str) -> None:
    command = f"x{text.encode('utf-8', 'replace').decode()[:40]}"
    ran = verdict(None)._replace(execution=Execution(2, ORIGIN, ORIGIN, OTHER, 1, 1, command=command))
    for entry in fwknop.entries(ran, NOW):
        assert entry.text.isprintable()
