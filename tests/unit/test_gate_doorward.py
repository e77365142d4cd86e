"""Packets of the format `doorward 1` on their way through the gate."""

from __future__ import annotations

import functools
import ipaddress
import itertools
import random
import sqlite3
from collections import Counter
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import pytest

from doorward.config.stanza import Client, Cycle, NamedCommands, Stanza
from doorward.crypto.doorward import Directory, Pair, public_key
from doorward.denials import (
    FORGED,
    REPLAYED,
    UNKNOWN_TAG,
    CodeDenied,
    CodeFault,
    FirewallFailed,
    NotServed,
    SentElsewhere,
    SourceRequired,
    StoreFailed,
    Undecodable,
    UnknownCommand,
    Unserved,
    WindowTooLong,
    WrongSource,
)
from doorward.errors import FirewallError, HelperError, ReplayError
from doorward.gate import RECENT_MAX, Gate, Verdict
from doorward.helper.limits import Limits, mark, refused_execution
from doorward.record import fwknop as fwknop_log
from doorward.record import line as record_line
from doorward.replay import ReplayStore
from doorward.values import ANYWHERE, Networks, Permissions, PublicKey, Reason, Secret, Service
from doorward.wire.doorward import EPOCH_MS, Forward, Kind, Message, Ports, epoch_of, serialize
from unit.making import NOW, ORIGIN, ORIGIN6, Door, Memory, datagram, payload, stanza

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.denials import Denial
    from doorward.values import Datagram, Execution

HOST, OTHER_HOST, LAPTOP, PHONE = (Secret(bytes([number]) * 32) for number in (1, 2, 3, 4))
SSH, WEB = Service.parse("tcp/22"), Service.parse("tcp/443")
SSH_ONLY = (Ports(SSH.protocol, 22, 22),)
SOURCE = ipaddress.ip_address("192.0.2.7")
SOURCE6 = ipaddress.ip_address("2001:db8::7")
SOURCE6_NETWORK = ipaddress.ip_network("2001:db8::/64")
_NONCES = itertools.count()


def clients(number: int = 1, *keys: tuple[Secret, str | None], **changes: Any) -> Stanza:
    """A stanza of these clients, or of the laptop."""
    named = tuple(Client(public_key(key), name) for key, name in keys or [(LAPTOP, "laptop")])
    made = Stanza(number, "access.conf", number, ANYWHERE, None, clients=named, open_ports=frozenset({SSH, WEB}))
    return replace(made, **{"require_source_address": True, "origin_window": 10, **changes})


def gate(*stanzas: Stanza, door: Door | None = None, memory: Any = None, **more: Any) -> Gate:
    return Gate(stanzas or (clients(),), memory or Memory(), (door or Door()).open, 120, **{"host_key": HOST, **more})


def message(now: float = NOW, **changes: Any) -> Message:
    return Message(**{"kind": Kind.ACCESS, "time": int(now * 1000), "source": SOURCE, "services": SSH_ONLY, **changes})


def packet(
    made: Message | None = None,
    key: Secret = LAPTOP,
    host: Secret = HOST,
    psk: Secret | None = None,
    epoch: int | None = None,
) -> bytes:
    chosen = made or message()
    nonce = next(_NONCES).to_bytes(12, "big")
    when = epoch_of(chosen.time) if epoch is None else epoch
    return pair_of(key.reveal(), host.reveal(), b"" if psk is None else psk.reveal()).seal(
        serialize(chosen), when, nonce
    )


@functools.cache
def pair_of(client: bytes, host: bytes, psk: bytes) -> Pair:
    return Pair.of_client(Secret(client), public_key(Secret(host)), Secret(psk) if psk else None)


def judge(sent: bytes | Datagram, *stanzas: Stanza, now: float = NOW, **more: Any) -> Verdict:
    return gate(*stanzas, **more).judge(datagram(sent) if isinstance(sent, bytes) else sent, now)


def test_a_good_packet_opens_what_it_asks_for_under_its_clients_name() -> None:
    door = Door()
    verdict = judge(packet(), door=door)
    assert (verdict.reason, verdict.stanza, verdict.name, verdict.user) == (Reason.GRANTED, 1, "laptop", None)
    (grant,) = door.grants
    assert (grant.source, grant.services, grant.seconds, grant.name) == (SOURCE, (SSH,), 30, "laptop")
    said = record_line.line(verdict)
    assert said.startswith("verdict=granted reason=granted origin=192.0.2.7 origin_port=40000 stanza=1 name=laptop ")
    assert Limits((clients(),)).refuses(grant, NOW) is None
    assert "unknown key" in str(Limits((clients(1, (PHONE, "phone")),)).refuses(grant, NOW))


def test_a_client_without_a_name_has_its_stanzas() -> None:
    assert judge(packet(), clients(1, (LAPTOP, None), name="family")).name == "family"


def test_without_services_all_of_open_ports_opens() -> None:
    door = Door()
    judge(packet(message(services=())), clients(restrict_ports=frozenset({WEB})), clients(2), door=door)
    judge(packet(message(services=())), door=door)
    assert [grant.services for grant in door.grants] == [(SSH,), (SSH, WEB)]
    for opens in (None, frozenset({WEB})):
        verdict = judge(packet(message(services=())), clients(open_ports=opens, restrict_ports=frozenset({WEB})))
        assert verdict.denial == NotServed(Unserved.EVERYTHING)


def test_a_range_is_every_port_of_it() -> None:
    door = Door()
    mosh = frozenset(Service.parse(f"udp/{port}") for port in range(60000, 60011))
    asked = message(services=(Ports(Service.parse("udp/1").protocol, 60000, 60010),))
    assert judge(packet(asked), clients(open_ports=mosh), door=door).granted
    assert frozenset(door.grants[0].services) == mosh
    assert judge(packet(asked)).reason is Reason.SERVICES


def test_of_two_sources_each_is_let_in_as_if_it_came_alone() -> None:
    door = Door()
    both = message(second=SOURCE6, services=SSH_ONLY)
    verdict = judge(packet(both), door=door)
    assert [grant.source for grant in door.grants] == [SOURCE, SOURCE6]
    assert " source=192.0.2.7 second_source=2001:db8::7 " in record_line.line(verdict)
    assert len(fwknop_log.entries(verdict, NOW)) == 3, "fwknopd would have one line for each, after the heading"
    everywhere4 = Networks.of([ipaddress.ip_network("0.0.0.0/0")])
    elsewhere = Networks.of([ipaddress.ip_network("192.0.2.8/29")])
    for inside, came, let_in in (
        (everywhere4, ORIGIN, [SOURCE]),
        (Networks.of([SOURCE6_NETWORK]), ORIGIN6, [SOURCE6]),
        (elsewhere, bytes([192, 0, 2, 9]), []),
    ):
        door = Door()
        verdict = judge(datagram(packet(both), came), clients(source=inside), door=door)
        assert [grant.source for grant in door.grants] == let_in
        assert verdict.granted == bool(let_in)
        refused = SOURCE6 if let_in == [SOURCE] else SOURCE
        assert f"{refused} is not in SOURCE" in record_line.line(verdict)
        assert (verdict.denial or verdict.other) == WrongSource(refused)


def test_a_command_cycle_runs_for_each_of_two_sources() -> None:
    run: list[Execution] = []
    verdict = judge(packet(message(second=SOURCE6)), clients(cycle=Cycle("/bin/true", None, None)), execute=run.append)
    assert [one.source for one in run] == [SOURCE, SOURCE6]
    assert " source=192.0.2.7 second_source=2001:db8::7 command=cycle" in record_line.line(verdict)


def test_a_failure_at_the_second_source_says_what_is_open() -> None:
    class Half(Door):
        def open(self, grant: Any) -> None:
            if self.grants:
                raise FirewallError("full")  # noqa: EM101  a test's error
            super().open(grant)

    verdict = judge(packet(message(second=SOURCE6)), door=Half())
    assert verdict.denial == FirewallFailed("192.0.2.7 is let in, and not the other: full")
    verdict = judge(packet(), door=Door(FirewallError("gone")))
    assert verdict.denial == FirewallFailed("gone")


def test_a_packet_that_names_no_source_needs_leave_and_gets_little_time() -> None:
    door = Door()
    asks = message(source=None, seconds=60)
    assert judge(packet(asks), door=door).reason is Reason.SOURCE_REQUIRED
    open_to_all = clients(require_source_address=False)
    assert judge(packet(asks), open_to_all, door=door).granted
    assert judge(packet(asks), replace(open_to_all, origin_window=45), door=door).granted
    assert judge(packet(message(seconds=60)), open_to_all, door=door).granted
    assert [(grant.source.packed, grant.seconds) for grant in door.grants] == [(ORIGIN, 10), (ORIGIN, 45), (ORIGIN, 60)]


def test_a_window_is_denied_not_shortened() -> None:
    door = Door()
    assert judge(packet(message(seconds=301)), door=door).denial == WindowTooLong(301, 300)
    assert judge(packet(message(seconds=300)), door=door).granted
    assert judge(packet(message(seconds=400)), clients(fw_access_timeout=400), door=door).granted
    assert [grant.seconds for grant in door.grants] == [300, 400]


COMMANDS = NamedCommands((("reboot", "/sbin/reboot"), ("restart-web", "/usr/bin/systemctl restart nginx")))


def order(name: str, **changes: Any) -> bytes:
    return packet(
        Message(**{"kind": Kind.COMMAND, "time": int(NOW * 1000), "source": SOURCE, "command": name, **changes})
    )


@pytest.mark.parametrize(
    ("sent", "stanza_", "denial"),
    [
        (order("reboot"), clients(), UnknownCommand("reboot")),
        (order("reboot-now"), clients(named=COMMANDS), UnknownCommand("reboot-now")),
        (order("reboot", second=SOURCE6), clients(named=COMMANDS), NotServed(Unserved.TWO_SOURCES)),
        (order("reboot", source=None), clients(named=COMMANDS), SourceRequired()),
        (
            order("reboot"),
            clients(named=COMMANDS, source=Networks.of([ipaddress.ip_network("192.0.2.0/29"), SOURCE6_NETWORK])),
            None,
        ),
        (order("reboot"), clients(named=COMMANDS, one_time_code=Secret(b"s" * 20)), CodeDenied(CodeFault.MISSING)),
    ],
)
def test_a_command_needs_the_stanzas_leave(sent: bytes, stanza_: Stanza, denial: Denial | None) -> None:
    run: list[Execution] = []
    verdict = judge(sent, stanza_, execute=run.append)
    assert verdict.denial == denial
    assert [one.command for one in run] == ([] if denial else ["reboot"])
    assert denial is None or "detail=" in record_line.line(verdict)


def test_a_command_is_run_by_the_name_that_the_stanza_defines() -> None:
    run: list[Execution] = []
    stanza_ = clients(named=COMMANDS)
    verdict = judge(order("restart-web"), stanza_, execute=run.append)
    (execution,) = run
    assert (execution.command, execution.named, execution.service, execution.source) == (
        "restart-web",
        True,
        None,
        SOURCE,
    )
    assert " command=restart-web" in record_line.line(verdict)
    assert refused_execution(stanza_, execution, NOW + 90, 10) is None, "the format's own age counts, not the settings'"
    assert refused_execution(stanza_, execution, NOW + 200, None) == "made too long ago, or not yet"
    for other in (clients(), clients(named=NamedCommands((("reboot", "/sbin/reboot"),)))):
        assert refused_execution(other, execution, NOW, 120) == "no command of this name"
        assert mark(other) != mark(stanza_), "the processes compare their reading of the commands"
    assert (
        refused_execution(clients(named=COMMANDS), replace(execution, named=False), NOW, 120)
        == "commands are not enabled"
    )


def test_nat_is_led_as_the_stanza_allows_it() -> None:
    door = Door()
    both = Permissions(forwarding=True, local_nat=True)
    inner, ghost = Forward(ipaddress.ip_address("10.0.0.5"), 22), Forward(None, 443)
    for nat in (inner, ghost):
        assert judge(packet(message(nat=nat)), door=door, permissions=both).granted
        assert judge(packet(message(nat=nat)), door=door).denial == NotServed(Unserved.NAT)
    assert [grant.nat and (grant.nat.target, grant.nat.port) for grant in door.grants] == [
        (inner.target, 22),
        (None, 443),
    ]
    elsewhere = message(nat=Forward(ipaddress.ip_address("10.0.0.5"), 25))
    assert judge(packet(elsewhere), permissions=both).reason is Reason.TARGET


def test_a_command_cycle_runs_for_a_client() -> None:
    asked: list[Any] = []
    opens = clients(cycle=Cycle("/bin/true", None, None))
    assert judge(packet(), opens, execute=asked.append).granted
    assert (asked[0].source, asked[0].service, asked[0].made) == (SOURCE, SSH, int(NOW))

    def refuse(_execution: object) -> None:
        raise HelperError("gone")  # noqa: EM101  a test's error

    assert judge(packet(), opens, execute=refuse).reason is Reason.COMMAND


def state(store: Path) -> list[tuple[Any, ...]]:
    """All that a replay store has."""
    tables = ("SELECT * FROM seen", "SELECT * FROM client_floor", "SELECT * FROM floor")
    with sqlite3.connect(store) as database:
        rows = [row for table in tables for row in database.execute(table)]
    database.close()
    return rows


def test_no_flipped_bit_and_no_other_length_changes_anything(tmp_path: Path) -> None:
    store, door = ReplayStore(tmp_path / "replay.db"), Door()
    try:
        stands = gate(clients(), stanza(2), door=door, memory=store)
        stands.judge(datagram(packet()), NOW)
        before, opened = state(tmp_path / "replay.db"), list(door.grants)
        good = packet()
        number = int.from_bytes(good, "big")
        reasons = Counter(
            stands.judge(datagram((number ^ 1 << bit).to_bytes(164, "big")), NOW).reason for bit in range(164 * 8)
        )
        assert reasons == {Reason.TAG: 64, Reason.HMAC: 1248}, "a flip in the tag's 64 bits, and elsewhere"
        for length in (*range(164), *range(165, 330)):
            assert not stands.judge(datagram((good + good)[:length]), NOW).granted, length
        assert (state(tmp_path / "replay.db"), door.grants) == (before, opened)
        assert stands.judge(datagram(good), NOW).granted, "and the packet itself is good"
        assert len(state(tmp_path / "replay.db")) == len(before) + 1
    finally:
        store.close()


@pytest.mark.parametrize(
    ("moved", "reason"),
    [
        (-129.0, Reason.TAG),
        (-64.001, Reason.STALE),
        (-64.0, Reason.GRANTED),
        (0.0, Reason.GRANTED),
        (64.0, Reason.GRANTED),
        (64.001, Reason.FUTURE),
        (129.0, Reason.TAG),
    ],
)
def test_a_packets_time_is_at_most_64_seconds_from_the_hosts(moved: float, reason: Reason) -> None:
    for now in (NOW - NOW % 64 + 0.5, NOW - NOW % 64 + 32, NOW - NOW % 64 + 63.5):
        verdict = judge(packet(message(now + moved)), now=now)
        far = abs(epoch_of(int((now + moved) * 1000)) - epoch_of(int(now * 1000))) > 1
        assert verdict.reason is (Reason.TAG if far else reason), (now, moved)


def test_packets_at_both_edges_of_an_epoch_are_good_on_both_sides_of_them() -> None:
    begins = int(NOW * 1000) // EPOCH_MS * EPOCH_MS
    for made in (begins, begins + EPOCH_MS - 1):
        for now in (begins - 1, begins, begins + EPOCH_MS - 1, begins + EPOCH_MS):
            assert judge(packet(message(made / 1000, time=made)), now=now / 1000).granted


@pytest.mark.parametrize("epochs", [-2, 2])
def test_packets_of_the_last_but_one_and_next_but_one_epoch_are_a_strangers(epochs: int) -> None:
    assert judge(packet(message(NOW + 64 * epochs))).denial == UNKNOWN_TAG


def test_the_time_inside_belongs_to_the_tags_epoch() -> None:
    for step in (-1, 1):
        verdict = judge(packet(message(), epoch=epoch_of(int(NOW * 1000)) + step))
        assert isinstance(verdict.denial, Undecodable)
        assert "different epochs" in record_line.line(verdict)


def test_an_authentic_plaintext_with_a_mistake_is_refused() -> None:
    made = bytearray(serialize(message()))
    made[127] = 1
    sent = Pair.of_client(LAPTOP, public_key(HOST)).seal(bytes(made), epoch_of(int(NOW * 1000)), bytes(12))
    assert judge(sent).reason is Reason.DECODE


def test_a_packet_for_another_host_or_of_another_client_is_a_strangers() -> None:
    assert judge(packet(host=OTHER_HOST)).denial == UNKNOWN_TAG
    assert judge(packet(key=PHONE)).denial == UNKNOWN_TAG
    assert judge(packet(psk=Secret(b"p" * 32))).denial == UNKNOWN_TAG
    assert judge(packet(), clients(psk=Secret(b"p" * 32))).denial == UNKNOWN_TAG, "no fallback without the key"
    assert judge(packet(psk=Secret(b"p" * 32)), clients(psk=Secret(b"p" * 32))).granted


def test_a_client_that_was_removed_a_moment_ago_is_a_stranger() -> None:
    before = gate(clients(1, (LAPTOP, "laptop"), (PHONE, "phone")))
    seen = packet()
    assert before.judge(datagram(seen), NOW).granted
    after = gate(clients(1, (PHONE, "phone")), pairs=before.pairs)
    after.go_on_from(before)
    assert [after.judge(datagram(sent), NOW).denial for sent in (seen, packet())] == [UNKNOWN_TAG, UNKNOWN_TAG]
    assert after.judge(datagram(packet(key=PHONE)), NOW).name == "phone"
    key = (public_key(PHONE).raw, public_key(HOST).raw, b"")
    assert list(after.pairs) == [key]
    assert after.pairs[key] is before.pairs[key], "what was computed is not computed again"


def test_a_live_tag_with_anything_behind_it_is_forged() -> None:
    door, good = Door(), packet()
    verdict = judge(good[:8] + bytes(156), door=door)
    assert (verdict.denial, verdict.name, verdict.stanza) == (FORGED, "laptop", 1)
    assert record_line.is_cheap(verdict.reason, clients())
    assert "whose key did not make the packet" in record_line.line(verdict)
    assert fwknop_log.entries(verdict, NOW) == ()
    assert not door.grants


def test_two_clients_of_one_tag_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pair, "tag", lambda _self, epoch: epoch.to_bytes(8, "big"))
    both = clients(1, (LAPTOP, "laptop"), (PHONE, "phone"))
    assert [judge(packet(key=key), both).name for key in (LAPTOP, PHONE)] == ["laptop", "phone"]


@pytest.mark.parametrize("remembers", [True, False])
def test_a_packet_opens_once(remembers: bool) -> None:  # noqa: FBT001  whether the gate itself still knows it
    door, memory, sent = Door(), Memory(), packet()
    first = gate(door=door, memory=memory)
    assert first.judge(datagram(sent), NOW).granted
    again = first if remembers else gate(door=door, memory=memory)
    assert again.judge(datagram(sent), NOW + 1).denial == REPLAYED
    elsewhere = again.judge(datagram(sent, ORIGIN6), NOW + 1)
    assert elsewhere.denial == (SentElsewhere(SOURCE))
    assert 'detail="came from 192.0.2.7 before"' in record_line.line(elsewhere)
    assert "Replay detected from source IP: 2001:db8::7" in str(fwknop_log.entries(elsewhere, NOW))
    assert len(door.grants) == 1


def test_a_nonce_that_a_client_repeats_is_a_replay() -> None:
    """A cloned machine, or a generator that failed: the other message is not opened."""
    door, pair = Door(), Pair.of_client(LAPTOP, public_key(HOST))
    stands = gate(door=door)
    made = (message(), message(time=int(NOW * 1000) + 1, services=()))
    reasons = [
        stands.judge(datagram(pair.seal(serialize(one), epoch_of(one.time), bytes(12))), NOW).reason for one in made
    ]
    assert reasons == [Reason.GRANTED, Reason.REPLAY]
    assert len(door.grants) == 1


def test_a_refused_packet_cannot_be_tried_again() -> None:
    """Too early, outside SOURCE, for a service that is closed: each is remembered, whatever becomes of it."""
    inside = Networks.of([ipaddress.ip_network("192.0.2.0/24")])
    stands = gate(clients(source=inside))
    early, away, closed = packet(message(NOW + 64.5)), packet(), packet(message(services=(Ports(SSH.protocol, 1, 1),)))
    elsewhere = bytes([198, 51, 100, 9])
    first = [
        stands.judge(datagram(sent, origin), NOW)
        for sent, origin in ((early, ORIGIN), (away, elsewhere), (closed, ORIGIN))
    ]
    assert [verdict.reason for verdict in first] == [Reason.FUTURE, Reason.NO_STANZA, Reason.SERVICES]
    again = [stands.judge(datagram(sent), NOW + 1).reason for sent in (early, away, closed)]
    assert again == [Reason.REPLAY] * 3


def test_the_first_stanza_that_grants_decides_and_the_furthest_refusal_is_told() -> None:
    asks = message(services=(Ports(WEB.protocol, 443, 443),))
    only_ssh, expired = clients(open_ports=frozenset({SSH})), clients(2, (LAPTOP, "old"), expires=1)
    web = clients(3, (LAPTOP, "web"))
    assert judge(packet(asks), only_ssh, expired, web).name == "web"
    verdict = judge(packet(asks), expired, only_ssh)
    assert (verdict.reason, verdict.stanza) == (Reason.SERVICES, 1)
    verdict = judge(packet(asks), expired)
    assert (verdict.reason, verdict.name) == (Reason.EXPIRED, "old")
    nowhere = clients(source=Networks.of([ipaddress.ip_network("203.0.113.0/24")]))
    verdict = judge(packet(asks), nowhere)
    assert (verdict.reason, verdict.name, verdict.stanza) == (Reason.NO_STANZA, "laptop", None)


def test_both_formats_share_the_port() -> None:
    door = Door()
    stands = gate(clients(), stanza(2), door=door)
    assert [stands.judge(datagram(sent), NOW).stanza for sent in (packet(), payload())] == [1, 2]
    assert len(door.grants) == 2
    text = (b"A" * 164, b"\0" * 164)
    assert [stands.judge(datagram(sent), NOW).reason for sent in text] == [Reason.TAG] * 2
    for without in (gate(stanza(), host_key=None), gate(stanza())):  # no key, and a key that no stanza asks for
        assert [without.judge(datagram(sent), NOW).reason for sent in text] == [Reason.HMAC, Reason.MALFORMED]
        without.follow(NOW)
    assert gate(clients(), host_key=None).judge(datagram(packet()), NOW).reason is Reason.MALFORMED


def test_a_stranger_costs_one_look_up_whatever_the_number_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten thousand clients: no key is used for a stranger, and one for a client."""
    many = tuple(Client(PublicKey(number.to_bytes(2, "big") + b"\5" * 30), f"c{number}") for number in range(9_999))
    everybody = clients(1, (LAPTOP, "laptop"))
    everybody = replace(everybody, clients=(*many, *everybody.clients))
    monkeypatch.setattr("doorward.crypto.curve.exchange", lambda _private, other: other.raw)  # it takes 0.1 ms
    stands = gate(everybody)
    stands.follow(NOW)
    used: list[int] = []
    unseal = Pair.unseal

    def noted(self: Pair, sent: bytes, epoch: int) -> bytes:
        used.append(epoch)
        return unseal(self, sent, epoch)

    monkeypatch.setattr(Pair, "tag", lambda *_: pytest.fail("a tag is computed"))
    monkeypatch.setattr(Pair, "unseal", noted)
    assert stands.judge(datagram(b"x" * 164), NOW).denial == UNKNOWN_TAG
    assert used == []
    monkeypatch.undo()
    monkeypatch.setattr("doorward.crypto.libcrypto.x25519", lambda *_: public_key(LAPTOP).raw)
    sent = Pair.of_client(LAPTOP, public_key(HOST)).seal(serialize(message()), epoch_of(int(NOW * 1000)), bytes(12))
    monkeypatch.setattr(Pair, "unseal", noted)
    assert stands.judge(datagram(sent), NOW).name == "laptop"
    assert len(used) == 1


def test_tags_follow_the_clock_an_hour_ahead_and_back() -> None:
    door, memory = Door(), Memory()
    stands = gate(door=door, memory=memory)
    before = packet()
    assert stands.judge(datagram(before), NOW).granted
    for moved in (3600.0, 0.0, -3600.0, 0.0):
        now = NOW + moved + 2
        assert stands.judge(datagram(packet(message(now))), now).granted, moved
        assert not stands.judge(datagram(before), now).granted, moved
    assert len(door.grants) == 5


def test_a_failing_store_opens_nothing() -> None:
    door = Door()
    verdict = judge(packet(), door=door, memory=Memory(ReplayError("full")))
    assert (verdict.denial, door.grants) == (StoreFailed("full"), [])


def test_the_memory_of_a_flood_is_bounded() -> None:
    stands = gate(memory=Memory())
    sent = [packet() for _ in range(RECENT_MAX + 2)]
    for one in sent:
        stands.judge(datagram(one), NOW)
    assert len(stands._recent_tagged) == RECENT_MAX  # noqa: SLF001  what is bounded
    assert stands.judge(datagram(sent[0]), NOW).denial == REPLAYED, "the store still knows it"


def test_an_unforeseen_error_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Directory, "find", lambda *_: 1 / 0)
    assert judge(packet()).reason is Reason.INTERNAL


# Packets look random: 100 000 of them, at each of their 164 places.
PACKETS = 100_000
FALSE_ALARM = 0.001  # for all places together


def packets(count: int) -> list[bytes]:
    """Packets of many pairs and epochs with the same request, from a fixed seed."""
    chance = random.Random(12)  # noqa: S311  to be repeated, no secret
    host = public_key(HOST)
    pairs = [Pair(chance.randbytes(32), PublicKey(b"\5" * 32), host) for _ in range(400)]
    plaintext = serialize(message())
    return [pairs[number % 400].seal(plaintext, number // 400, chance.randbytes(12)) for number in range(count)]


def biased(sent: list[bytes]) -> list[int]:
    """The places whose bytes are not uniform, by chi-squared, corrected for the number of places."""
    free = 255
    deviate = NormalDist().inv_cdf(1 - FALSE_ALARM / 164)
    limit = free * (1 - 2 / (9 * free) + deviate * (2 / (9 * free)) ** 0.5) ** 3  # Wilson and Hilferty
    joined, expected = b"".join(sent), len(sent) / 256
    counts = (Counter(joined[place::164]) for place in range(164))
    sums = (sum((count[value] - expected) ** 2 for value in range(256)) / expected for count in counts)
    return [place for place, total in enumerate(sums) if total > limit]


def test_no_place_of_a_packet_differs_from_random_bytes_and_a_planted_one_is_found() -> None:
    sent = packets(PACKETS)
    assert len(set(sent)) == PACKETS
    assert biased(sent) == []
    planted = [one[:77] + b"\0" + one[78:] if number % 200 == 0 else one for number, one in enumerate(sent)]
    assert biased(planted) == [77], "one zero in two hundred packets"
