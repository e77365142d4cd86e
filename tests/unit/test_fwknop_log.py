"""fwknopd's lines: wording as its own, one test a kind; and nothing that a stranger sends can make up a line."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.config.stanza import Cycle, Stanza
from doorward.daemon import fwknop_log
from doorward.gate import Verdict
from doorward.values import ANYWHERE, Datagram, Execution, Grant, Nat, Reason, Service

ORIGIN = ipaddress.ip_address("192.0.2.9")
OTHER = ipaddress.ip_address("10.0.0.5")
DATAGRAM = Datagram(b"A" * 200, ORIGIN.packed, bytes(4), 40000, 62201)
HEAD = "[192.0.2.9] (stanza #2)"
NOW = 1_000_000.5
SSH = (Service.parse("tcp/22"), Service.parse("udp/53"))


def verdict(reason: Reason, detail: str = "") -> Verdict:
    return Verdict(reason, DATAGRAM, 2, detail=detail)


LINES = {
    Reason.EXPIRED: ("", f"{HEAD} Access stanza has expired"),
    Reason.HMAC: (
        "",
        f"{HEAD} Error creating fko context: Args contain invalid data: FKO_ERROR_INVALID_DATA_HMAC_COMPAREFAIL",
    ),
    Reason.DECRYPTION: ("", f"{HEAD} Error creating fko context: Decryption failed or decrypted data is invalid"),
    Reason.DECODE: (
        "the digest does not fit the plaintext",
        f"{HEAD} Error creating fko context: The computed digest did not match the digest in the spa data",
    ),
    Reason.STALE: (
        "made 200 s ago, more than 120",
        f"{HEAD} SPA data time difference is too great (200 seconds).",
    ),
    Reason.FUTURE: (
        "made 300 s in the future, more than 120",
        f"{HEAD} SPA data time difference is too great (300 seconds).",
    ),
    Reason.CLOCK: (
        "-40 days old by this host's clock: is it right?",
        f"{HEAD} SPA data time difference is too great (3456000 seconds).",
    ),
    Reason.USERNAME: (
        "user 'eve' is not 'alice'",
        f"{HEAD} Username in SPA data (eve) does not match required username: alice",
    ),
    Reason.SOURCE_REQUIRED: ("", f"{HEAD} Got 0.0.0.0 when valid source IP was required."),
    Reason.SERVICES: ("", f"{HEAD} One or more requested protocol/ports was denied per access.conf."),
    Reason.REPLAY: ("", "Replay detected from source IP: 192.0.2.9, Destination proto/port: 17/62201"),
}


@pytest.mark.parametrize("reason", LINES)
def test_a_refusal_has_fwknopds_line_behind_the_match_of_its_stanza(reason: Reason) -> None:
    detail, line = LINES[reason]
    first, second = fwknop_log.entries(verdict(reason, detail), NOW)
    assert first.text == "(stanza #2) SPA Packet from IP: 192.0.2.9 received with access source match"
    assert second.text == line


def test_a_source_without_a_stanza_has_one_line() -> None:
    (entry,) = fwknop_log.entries(Verdict(Reason.NO_STANZA, DATAGRAM), NOW)
    assert entry == ("warning", "No access data found for source IP: 192.0.2.9")


def test_what_is_no_packet_is_told_to_who_debugs() -> None:
    (entry,) = fwknop_log.entries(Verdict(Reason.MALFORMED, DATAGRAM._replace(payload=b"x")), NOW)
    assert entry.severity == "debug"
    assert "returned error 4097: 'Not enough data to be a valid SPA message'" in entry.text


def test_what_is_not_served_is_told_by_its_kind() -> None:
    told = fwknop_log.entries(verdict(Reason.UNSUPPORTED, "commands are not enabled (ENABLE_CMD_EXEC)"), NOW)[1].text
    assert told == f"{HEAD} SPA Command messages are not allowed in the current configuration."
    told = fwknop_log.entries(verdict(Reason.UNSUPPORTED, "NAT is not enabled"), NOW)[1].text
    assert told == "(stanza #2) SPA packet from 192.0.2.9 requested NAT access, but is not enabled/supported"


def rules(grant: Grant) -> list[str]:
    told = fwknop_log.entries(replace(verdict(Reason.GRANTED), grant=grant), NOW)[1:]
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


def test_a_command_cycle_is_named() -> None:
    stanza = Stanza(2, "a", 1, ANYWHERE, None, cycle=Cycle("/bin/open $IP", "/bin/close $IP", 10))
    execution = Execution(2, ORIGIN, ORIGIN, OTHER, 10, 1, SSH[0])
    told = fwknop_log.entries(replace(verdict(Reason.GRANTED), execution=execution), NOW, stanza)
    assert [entry.text for entry in told[1:]] == [
        f"{HEAD} Running CMD_CYCLE_OPEN command: /bin/open $IP",
        f"{HEAD} Running CMD_CYCLE_CLOSE command in 10 seconds: /bin/close $IP",
    ]


def test_test_mode_says_so() -> None:
    told = fwknop_log.entries(replace(verdict(Reason.GRANTED), grant=Grant(ORIGIN, SSH, 30)), NOW, test=True)
    assert told[1].text == f"{HEAD} --test mode enabled, skipping firewall manipulation."


@given(
    st.sampled_from(Reason),
    st.text(max_size=40),
    st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text),
)
def test_no_verdict_makes_more_than_one_line_of_an_entry(reason: Reason, detail: str, command: str) -> None:
    made = replace(verdict(reason, repr(detail)), execution=Execution(2, ORIGIN, ORIGIN, OTHER, 1, 1, command=command))
    for entry in fwknop_log.entries(made, NOW):
        assert entry.text.isprintable()
