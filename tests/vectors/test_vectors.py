"""Every recorded packet of the real client, and every verdict of the real daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.config.stanza import Stanza
from doorward.crypto import symmetric
from doorward.gate import Gate, Verdict
from doorward.replay import ReplayStore
from doorward.values import ANYWHERE, Datagram, Grant, Reason, address
from doorward.wire import fwknop
from vectors.packets import CLIENT, KEYS, VERDICTS, ClientPacket, DaemonVerdict

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = bytes([9, 9, 9, 55])
# fwknopd serves these with NAT and commands enabled; doorwardd denies them as a kind it does not serve.
NOT_SERVED = "nat+cmd"


def judge(payload: bytes, store: Path, opened: list[Grant]) -> Verdict:
    stanza = Stanza(1, "access.conf", 1, ANYWHERE, KEYS, fw_access_timeout=5)
    memory = ReplayStore(store)
    try:
        gate = Gate((stanza,), memory, opened.append, max_age=None)
        return gate.judge(Datagram(payload, ORIGIN, bytes(4), 40000, 62201), now=1795218740.0)
    finally:
        memory.close()


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
    verdict = judge(case.payload, tmp_path / "replay.db", opened)
    if case.accepted and case.configuration != NOT_SERVED:
        assert verdict.reason is Reason.GRANTED
        assert opened == [verdict.grant]
        assert str(opened[0].source) in case.verdict
        assert ",".join(map(str, opened[0].services)) in case.verdict
    else:
        assert not verdict.granted
        assert not opened
        assert not case.accepted or verdict.reason is Reason.UNSUPPORTED


def test_the_unspecified_address_in_the_message_stands_for_the_origin(tmp_path: Path) -> None:
    case = next(case for case in VERDICTS if case.name.startswith("D55"))
    opened: list[Grant] = []
    judge(case.payload, tmp_path / "replay.db", opened)
    assert [grant.source for grant in opened] == [address(ORIGIN)]
