"""Every recorded packet of the real client, and every verdict of the real daemon."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from doorward.config.stanza import Commands, Stanza
from doorward.crypto import symmetric
from doorward.gate import Gate, Verdict
from doorward.replay import ReplayStore
from doorward.values import ANYWHERE, Datagram, Grant, Permissions, Reason, Service, address
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
    permissions = Permissions(forwarding=serves, local_nat=serves)
    memory = ReplayStore(store)
    try:
        gate = Gate((stanza,), memory, opened.append, max_age=None, execute=lambda _: None, permissions=permissions)
        return gate.judge(Datagram(case.payload, ORIGIN, bytes(4), 40000, 62201), now=1795218740.0)
    finally:
        memory.close()


class Meaning(NamedTuple):
    """What a verdict lets happen: the kind of grant or command, and for whom; services without order and repetition."""

    kind: str
    source: str
    services: frozenset[Service]


def of_grant(grant: Grant) -> Meaning:
    kind = "access" if grant.nat is None else "local NAT" if grant.nat.target is None else "FORWARD"
    return Meaning(kind, str(grant.source), frozenset(grant.services))


def of_recorded(verdict: str) -> Meaning:
    """The meaning of a recorded verdict; fwknopd logs all services of a forwarding, and forwards the first."""
    first = verdict.removeprefix("accept: ").partition("; DNAT for ")[0]
    kind, _, rest = first.partition(" for ")
    source, _, named = rest.partition(" ")
    services = [Service.parse(word) for word in named.split(",")]
    return Meaning(kind, source, frozenset(services[:1] if "NAT" in verdict else services))


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
    if not case.accepted or number in STRICTER:
        assert not opened
        assert not verdict.granted
        assert verdict.reason is (STRICTER[number][0] if case.accepted else verdict.reason)
        return
    assert verdict.reason is Reason.GRANTED
    if verdict.execution is not None:
        assert f"accept: command {verdict.execution.command}" == case.verdict
        assert not opened
    else:
        assert opened == [verdict.grant]
        assert of_grant(opened[0]) == of_recorded(case.verdict)


def test_commands_and_grants_of_every_kind_are_among_the_accepted() -> None:
    accepted = [case.verdict for case in VERDICTS if case.accepted]
    kinds = {
        kind for kind in ("access", "local NAT", "FORWARD", "command") if any(f": {kind} " in one for one in accepted)
    }
    assert kinds == {"access", "local NAT", "FORWARD", "command"}
    assert of_recorded("accept: access for 127.0.0.2 tcp/022") == of_recorded(
        "accept: access for 127.0.0.2 tcp/22,tcp/22"
    )
    assert of_recorded("accept: access for 127.0.0.2 tcp/22") != of_recorded("accept: access for 127.0.0.2 udp/22")


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
