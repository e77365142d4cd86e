"""Every recorded packet of the real client, and every verdict of the real daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doorward.config.stanza import Commands, Stanza
from doorward.crypto import symmetric
from doorward.gate import Gate, Verdict
from doorward.policy import Abilities
from doorward.replay import ReplayStore
from doorward.values import ANYWHERE, Datagram, Grant, Reason, address
from doorward.wire import fwknop
from vectors.packets import CLIENT, KEYS, VERDICTS, ClientPacket, DaemonVerdict

ORIGIN = bytes([9, 9, 9, 55])
DIFFERENCES = Path(__file__).resolve().parents[2] / "docs/fwknop-differences.md"
# What fwknopd lets in and doorwardd does not, on purpose: the reason of its verdict, and the words of the document.
STRICTER = {
    "D61": (Reason.TARGET, "only names in NAT_TARGETS"),
}


def judge(case: DaemonVerdict, store: Path, opened: list[Grant]) -> Verdict:
    serves = case.configuration == "nat+cmd"
    commands = Commands() if serves else None
    stanza = Stanza(1, "access.conf", 1, ANYWHERE, KEYS, fw_access_timeout=5, commands=commands)
    abilities = Abilities(forwarding=serves, local_nat=serves)
    memory = ReplayStore(store)
    try:
        gate = Gate((stanza,), memory, opened.append, max_age=None, abilities=abilities)
        return gate.judge(Datagram(case.payload, ORIGIN, bytes(4), 40000, 62201), now=1795218740.0)
    finally:
        memory.close()


def as_fwknopd_says(grant: Grant) -> str:
    """Return a grant in the words of the recorded verdicts."""
    services = ",".join(map(str, grant.services))
    if grant.nat is None:
        return f"accept: access for {grant.source} {services}"
    first = "local NAT" if grant.nat.target is None else "FORWARD"
    return f"accept: {first} for {grant.source} {services}; DNAT for {grant.source} {services}"


def served(verdict: str) -> str:
    """Return a recorded verdict with the service alone that takes effect: fwknopd logs all, and leads the first."""
    return re.sub(r"(tcp/\d+),[^;]*", r"\1", verdict) if "NAT" in verdict else verdict


@pytest.mark.parametrize("packet", CLIENT, ids=lambda packet: packet.name)
def test_a_packet_of_the_real_client_is_understood_and_made_again_byte_for_byte(packet: ClientPacket) -> None:
    plaintext = symmetric.unseal(packet.payload, packet.keys)
    assert plaintext == packet.plaintext
    assert fwknop.serialize(fwknop.parse(plaintext)) == plaintext
    sealed = symmetric.verify(packet.payload, packet.keys)
    assert sealed is not None
    salt = symmetric.decode(sealed)[8:16]
    assert symmetric.seal(plaintext, packet.keys, salt) == packet.payload


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: case.name)
def test_what_the_real_daemon_refuses_is_refused_and_what_it_opens_is_opened(
    case: DaemonVerdict, tmp_path: Path
) -> None:
    opened: list[Grant] = []
    verdict = judge(case, tmp_path / "replay.db", opened)
    number, _, _ = case.name.partition("-")
    if case.accepted and number not in STRICTER:
        assert verdict.reason is Reason.GRANTED
        assert opened == [verdict.grant]
        assert as_fwknopd_says(opened[0]) == served(case.verdict)
    else:
        assert not opened
        assert verdict.reason is (STRICTER[number][0] if case.accepted else verdict.reason)
        assert not verdict.granted


def test_where_doorwardd_is_stricter_the_document_says_so() -> None:
    rows = [line for line in DIFFERENCES.read_text().splitlines() if line.startswith("|")]
    documented = {number: row for row in rows for number in re.findall(r"\bD\d\d\b", row)}
    assert sorted(documented) == sorted(STRICTER)
    assert [number for number, (_, words) in STRICTER.items() if words not in documented[number]] == []
    assert {case.name.partition("-")[0] for case in VERDICTS if case.accepted} >= set(STRICTER)


def test_the_unspecified_address_in_the_message_stands_for_the_origin(tmp_path: Path) -> None:
    case = next(case for case in VERDICTS if case.name.startswith("D55"))
    opened: list[Grant] = []
    judge(case, tmp_path / "replay.db", opened)
    assert [grant.source for grant in opened] == [address(ORIGIN)]
