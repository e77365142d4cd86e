"""Magic packets at the gate: once, in time, of the right password, and only where a stanza wants them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from doorward.config.stanza import Magic
from doorward.crypto import magic
from doorward.errors import ReplayError
from doorward.gate import Gate
from doorward.values import Datagram, Networks, Reason, Secret, Service, address
from unit.making import HOST, NOW, ORIGIN, ORIGIN6, Memory, stanza

if TYPE_CHECKING:
    from doorward.config.stanza import Stanza
    from doorward.gate import Verdict
    from doorward.values import Grant

PASSWORD, OTHER = Secret(b"correct horse battery"), Secret(b"another horse battery")
PORT = 62204
PORTS = frozenset({Service.parse("tcp/22")})


def packet(made: float = NOW, password: Secret = PASSWORD, nonce: bytes = bytes(16)) -> bytes:
    return magic.seal(password, int(made), nonce)


def udp(payload: bytes, port: int = PORT, origin: bytes = ORIGIN) -> Datagram:
    return Datagram(payload, origin, HOST, 40000, port)


def icmp(payload: bytes, protocol: int = 1) -> Datagram:
    return Datagram(payload, ORIGIN, HOST, 0, 0x0800, protocol)


def of(port: int | None = PORT, password: Secret = PASSWORD, **changes: Any) -> Stanza:
    return replace(stanza(keys=None, magic=Magic(port, password), open_ports=PORTS), **changes)


class Doors:
    """A gate and what it had opened."""

    def __init__(self, *stanzas: Stanza, memory: Memory | None = None, max_age: int | None = 120) -> None:
        self.opened: list[Grant] = []
        self.gate = Gate(stanzas, memory or Memory(), self.opened.append, max_age)

    def judge(self, datagram: Datagram, now: float = NOW) -> Verdict:
        return self.gate.judge(datagram, now)


@pytest.mark.parametrize("origin", [ORIGIN, ORIGIN6])
def test_a_packet_opens_once_for_where_it_comes_from(origin: bytes) -> None:
    doors = Doors(stanza(), of(number=2, name="camera", fw_access_timeout=45))
    verdict = doors.judge(udp(packet(), origin=origin))
    assert (verdict.reason, verdict.stanza, verdict.name) == (Reason.GRANTED, 2, "camera")
    (grant,) = doors.opened
    assert (grant.source, grant.services, grant.seconds) == (address(origin), tuple(PORTS), 45)
    for again in (origin, ORIGIN, bytes([10, 0, 0, 1])):
        assert doors.judge(udp(packet(), origin=again)).reason is Reason.REPLAY
    assert doors.judge(udp(packet(nonce=b"n" * 16), origin=origin)).granted


def test_a_packet_is_remembered_beyond_its_time_and_a_restart() -> None:
    memory = Memory()
    assert Doors(of(), memory=memory).judge(udp(packet())).granted
    (until,) = memory.kept.values()
    assert until >= NOW + 240
    assert Doors(of(), memory=memory).judge(udp(packet())).reason is Reason.REPLAY


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [
        (0, Reason.GRANTED),
        (-120, Reason.GRANTED),
        (120, Reason.GRANTED),
        (-121, Reason.STALE),
        (121, Reason.FUTURE),
        (-(31 * 86400), Reason.CLOCK),
        (31 * 86400, Reason.CLOCK),
    ],
)
def test_a_packet_out_of_time_opens_nothing_now_or_later(seconds: int, reason: Reason) -> None:
    doors = Doors(of())
    sent = udp(packet(NOW + seconds))
    assert doors.judge(sent).reason is reason
    assert doors.judge(sent, NOW + max(0, seconds)).reason is Reason.REPLAY


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (udp(packet(password=OTHER)), Reason.HMAC),
        (udp(packet()[:-1]), Reason.MALFORMED),
        (udp(packet() + b"0"), Reason.MALFORMED),
        (udp(packet().upper()), Reason.MALFORMED),
        (udp(PASSWORD.reveal()), Reason.MALFORMED),
        (udp(PASSWORD.reveal().ljust(106)), Reason.MALFORMED),
        (udp(packet(), port=62201), Reason.NO_STANZA),
        (udp(packet())._replace(protocol=6), Reason.NO_STANZA),
        (icmp(packet()), Reason.NO_STANZA),
    ],
)
def test_what_is_not_the_stanzas_packet_opens_nothing_and_is_not_remembered(sent: Datagram, reason: Reason) -> None:
    memory = Memory()
    doors = Doors(of(), memory=memory)
    assert doors.judge(sent).reason is reason
    assert not memory.kept
    assert doors.judge(udp(packet())).granted, "the right one would be"


def test_over_icmp_it_opens_where_a_stanza_waits_for_it_there() -> None:
    for protocol in (1, 58):
        assert Doors(of(None)).judge(icmp(packet(), protocol)).granted
    assert Doors(of(None)).judge(udp(packet())).reason is Reason.NO_STANZA


def test_of_several_stanzas_the_one_with_the_password_decides() -> None:
    doors = Doors(of(password=OTHER), of(number=2), of(62205, number=3))
    assert doors.judge(udp(packet())).stanza == 2
    assert doors.judge(udp(packet(nonce=b"1" * 16), 62205)).stanza == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": Networks.of([])}, Reason.NO_STANZA),
        ({"destination": Networks.of([])}, Reason.NO_STANZA),
        ({"expires": int(NOW)}, Reason.EXPIRED),
    ],
)
def test_a_stanzas_other_lines_hold_for_it(changes: dict[str, Any], reason: Reason) -> None:
    doors = Doors(of(**changes))
    assert doors.judge(udp(packet())).reason is reason
    assert not doors.opened


def test_without_a_memory_nothing_opens() -> None:
    doors = Doors(of(), memory=Memory(ReplayError("no room")))
    assert doors.judge(udp(packet())).reason is Reason.STORE
    assert not doors.opened


def test_where_no_stanza_wants_them_their_length_is_no_packets() -> None:
    assert Doors(stanza()).judge(udp(packet())).reason is Reason.MALFORMED
