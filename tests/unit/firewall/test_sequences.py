"""The text of the table that counts sequences of ports; tests/system/test_sequences.py has it loaded and counting."""

from __future__ import annotations

from doorward.config import sequence
from doorward.config.sequence import SYN, Sequence
from doorward.firewall import sequences

STEPS = sequence.steps("tcp/7000 udp/8000:5 tcp/9000")
ONE = Sequence(STEPS, 15, SYN)


def rules(text: str, chain: str) -> list[str]:
    """The rules of a chain."""
    body = text.partition(f"chain {chain} {{\n")[2].partition("\n    }")[0]
    return [line.strip() for line in body.splitlines()]


def test_the_last_step_is_logged_and_opens_nothing() -> None:
    text = sequences.text((ONE,))
    last = rules(text, "sequence_0")[1]
    assert last.startswith("meta l4proto 6 th dport 9000 ip saddr @sequence_0_step_2_4 ip saddr @sequence_0_begun_4")
    assert f'log prefix "doorward {ONE.mark.decode()}" group 62201 snaplen 80 return' in last
    assert "accept" not in text.replace("policy accept", "")
    assert "drop" not in text


def test_the_whole_sequence_has_a_time_of_its_own() -> None:
    for seconds in (14, 15):
        text = sequences.text((Sequence(STEPS, seconds, SYN),))
        assert text.count(f"update @sequence_0_begun_4 {{ ip saddr timeout {seconds}s }}") == 1
        assert text.count("ip saddr @sequence_0_begun_4 delete") == 1


def test_a_source_that_has_begun_no_sequence_is_looked_up_twice() -> None:
    other = Sequence(sequence.steps("udp/8000 tcp/1 tcp/3"), 20, SYN)
    text = sequences.text((ONE, other, ONE))
    assert "set first { type inet_proto . inet_service; elements = { 6 . 7000, 17 . 8000 }; }" in text
    often = "limit rate over 2/second burst 10 packets"
    assert rules(text, "sequences") == [
        f"meta l4proto . th dport @first update @began4 {{ ip saddr timeout 10s {often} }} return",
        f"meta l4proto . th dport @first update @began6 {{ ip6 saddr timeout 10s {often} }} return",
        "jump enter_0",
        "jump enter_1",
        "jump enter_2",
    ]
    assert rules(text, "enter_1") == [
        "ip saddr @sequence_1_begun_4 goto sequence_1",
        "ip6 saddr @sequence_1_begun_6 goto sequence_1",
        "meta l4proto 17 th dport 8000 goto sequence_1",
    ]
    assert text.count("update @underway4 { ip saddr timeout 20s }") == 3, "as long as the longest of them"


def test_without_flags_every_packet_over_tcp_is_a_step() -> None:
    assert rules(sequences.text((ONE,)), "sequence_0")[0] == "tcp flags & 0x17 != 0x2 return"
    fin = Sequence(STEPS, 15, sequence.flags("fin,!ack"))
    assert rules(sequences.text((fin,)), "sequence_0")[0] == "tcp flags & 0x11 != 0x1 return"


def test_every_set_has_a_bound() -> None:
    lines = [line for line in sequences.text((ONE,)).splitlines() if line.lstrip().startswith("set ")]
    assert len(lines) == 11
    assert all("size " in line for line in lines if " first " not in line)
