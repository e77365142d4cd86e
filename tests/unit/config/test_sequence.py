"""SEQUENCE, SEQUENCE_FILE and what stands beside them: what is read, and every mistake with its line."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from doorward.config import access, sequence
from doorward.config.reader import PROBLEMS_MAX
from doorward.config.sequence import SEQUENCES_MAX, SYN, Flags, Sequence, Step
from doorward.config.settings import DaemonSettings
from doorward.errors import ConfigError, WireError
from doorward.values import Service

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.config.access import Access

GOOD = "tcp/7000 udp/8000:5 tcp/9000"
STANZA = f"SOURCE ANY\nSEQUENCE {GOOD}\nOPEN_PORTS tcp/22\n"
KEY = f"KEY_BASE64 {base64.b64encode(b'k' * 32).decode()}\n"
CLIENT = f"CLIENT doorward1 {base64.b64encode(b'c' * 32).decode()} laptop\n"


def load(folder: Path, text: str, settings: DaemonSettings | None = None) -> Access:
    path = folder / "access.conf"
    path.write_text(text)
    path.chmod(0o600)
    return access.load(path, settings)


def problems(folder: Path, text: str, settings: DaemonSettings | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(folder, text, settings)
    return [str(problem).removeprefix(f"{folder}/") for problem in raised.value.problems]


def made(text: str, where: str = "access.conf:1") -> Sequence:
    steps = sequence.steps(text)
    return Sequence(steps, sequence.whole(steps, None), SYN, where)


def test_a_sequence_is_read_with_the_time_of_each_step() -> None:
    steps = sequence.steps(GOOD)
    names = [Service.parse(text) for text in ("tcp/7000", "udp/8000", "tcp/9000")]
    assert steps == (Step(names[0], 0), Step(names[1], 5), Step(names[2], sequence.SECONDS_DEFAULT))
    assert str(made(GOOD)) == "tcp/7000 udp/8000:5 tcp/9000:10"
    assert sequence.steps(str(made(GOOD))) == steps
    assert made(GOOD).seconds == 15
    assert sequence.whole(steps, 7) == 7
    assert sequence.whole(steps, 70) == 15


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tcp/7000 udp/8000", "2 steps: a sequence has 3 to 16"),
        (" ".join(f"tcp/{7 * number}" for number in range(1, 18)), "17 steps"),
        ("tcp/7000:3 udp/8000 tcp/9000", "the first step comes after none"),
        ("tcp/7000 udp/8000:0 tcp/9000", "1 to 300 seconds"),
        ("tcp/7000 udp/8000:301 tcp/9000", "1 to 300 seconds"),
        ("tcp/7000 udp/8000:-1 tcp/9000", "'udp/8000:-1' is not tcp/PORT"),
        ("tcp/7000 tcp/7000 tcp/9000", "tcp/7000 twice in a row"),
        ("tcp/7000 tcp/7001 tcp/7002", "a scan of all ports would open it"),
        ("tcp/7002 tcp/7001 tcp/7000", "a scan of all ports would open it"),
        ("tcp/7000 udp/7000 tcp/7001", "a scan of all ports would open it"),
        ("tcp/7000,udp/8000,tcp/9000", "is not tcp/PORT"),
        ("7000 8000 9000", "is not tcp/PORT"),
        ("tcp/7000 sctp/8000 tcp/9000", "is not tcp/PORT"),
        ("tcp/0 tcp/8000 tcp/9000", "outside 1 to 65535"),
        ("tcp/7000 tcp/65536 tcp/9000", "outside 1 to 65535"),
        ("", "0 steps"),
    ],
)
def test_what_is_no_sequence_is_refused(text: str, complaint: str) -> None:
    with pytest.raises((ValueError, WireError), match=complaint):
        sequence.steps(text)


def test_ports_beside_one_another_with_one_that_is_not_are_a_sequence() -> None:
    assert len(sequence.steps("tcp/7000 tcp/7001 tcp/9000")) == 3


def test_flags_are_read_as_knockd_writes_them() -> None:
    assert sequence.flags("syn,!ack,!fin,!rst") == SYN
    assert sequence.flags("FIN, !ACK") == Flags(0b010001, 0b000001)
    assert str(SYN) == "!fin,syn,!rst,!ack"
    assert sequence.flags(str(SYN)) == SYN
    for wrong in ("", "syn,syn", "syn,!syn", "ecn", "!", "syn;ack"):
        with pytest.raises(ValueError, match="is none of fin, syn"):
            sequence.flags(wrong)


def test_the_mark_is_that_of_steps_and_flags() -> None:
    marks = {made(GOOD).mark, made("tcp/7000 udp/8000:6 tcp/9000").mark, made("udp/7000 udp/8000:5 tcp/9000").mark}
    assert len(marks) == 3
    assert Sequence(sequence.steps(GOOD), 15, SYN, "elsewhere:9").mark == made(GOOD).mark
    assert Sequence(sequence.steps(GOOD), 15, sequence.flags("fin")).mark != made(GOOD).mark


def test_a_stanza_has_a_sequence_and_one_plain_line_about_it(tmp_path: Path) -> None:
    found = load(tmp_path, f"{STANZA}SEQUENCE_TIMEOUT 9\nSEQUENCE_FLAGS fin,!ack\nFW_ACCESS_TIMEOUT 40\n")
    (stanza,) = found.stanzas
    (one,) = stanza.sequences
    assert (one.seconds, str(one.flags), one.where) == (9, "fin,!ack", f"{tmp_path}/access.conf:2")
    assert (stanza.one_time, stanza.keys, stanza.has_hmac_key, stanza.fw_access_timeout) == (False, None, False, 40)
    line = f"{tmp_path}/access.conf:2: a sequence can be replayed by whoever sees it: use a knock"
    assert found.warnings == (line,)


def test_a_command_cycle_needs_no_ports(tmp_path: Path) -> None:
    cycle = "CMD_CYCLE_OPEN /bin/true $SRC\nCMD_CYCLE_CLOSE NONE\n"
    (stanza,) = load(tmp_path, f"SOURCE ANY\nSEQUENCE {GOOD}\n{cycle}").stanzas
    assert stanza.open_ports == frozenset()


def test_one_time_sequences_come_from_a_file_in_our_spelling_or_knockds(tmp_path: Path) -> None:
    file = tmp_path / "once"
    file.write_text(f"# used\n#7,8,9\n  {GOOD}\n 1111,2222:udp,3333:TCP\n\n")
    file.chmod(0o600)
    text = f"SOURCE ANY\nSEQUENCE_FILE {file}\nSEQUENCE_TIMEOUT 8\nOPEN_PORTS tcp/22\n"
    found = load(tmp_path, text)
    (stanza,) = found.stanzas
    assert stanza.one_time
    assert [(str(one), one.where, one.seconds) for one in stanza.sequences] == [
        ("tcp/7000 udp/8000:5 tcp/9000:10", f"{file}:3", 8),
        ("tcp/1111 udp/2222:8 tcp/3333:8", f"{file}:4", 8),
    ]
    (warning,) = found.warnings
    assert warning.endswith("use a knock")
    file.write_text(f"{GOOD}\n7000,8000\nx\n{GOOD}\n")
    assert problems(tmp_path, text) == [
        "once:2: 2 steps: a sequence has 3 to 16",
        "once:3: 'x' is not PORT, PORT:tcp or PORT:udp",
    ]
    file.write_text("x\n" * 200)
    assert len(problems(tmp_path, text)) == PROBLEMS_MAX
    file.write_text("".join(f"tcp/7000 udp/{8001 + number} tcp/9000\n" for number in range(200)))
    assert problems(tmp_path, text) == [f"once:{SEQUENCES_MAX + 1}: SEQUENCE: more than 64 sequences"]
    file.write_text("# nothing left\n")
    assert problems(tmp_path, text)[0].endswith("once has no sequence: nobody could get in")
    file.chmod(0o644)
    assert "chmod 600" in problems(tmp_path, text)[0]
    assert "cannot be read" in problems(tmp_path, text.replace("once", "nowhere"))[0]


@pytest.mark.parametrize(
    "second",
    [
        GOOD,
        "tcp/7000 udp/8000 tcp/9000",
        "tcp/6000 tcp/7000 udp/8000 tcp/9000",
        "tcp/7000 udp/8000 tcp/9000 udp/10000",
    ],
)
def test_of_two_sequences_none_is_a_part_of_the_other(tmp_path: Path, second: str) -> None:
    text = STANZA + STANZA.replace(GOOD, second)
    (problem,) = problems(tmp_path, text)
    said = "SEQUENCE: one who sends it or the sequence of"
    assert problem == f"access.conf:5: {said} {tmp_path}/access.conf:2 sends the other one too"


def test_one_port_may_be_in_two_sequences(tmp_path: Path) -> None:
    text = STANZA + STANZA.replace(GOOD, "tcp/7000 tcp/9000 udp/8000")
    assert len(load(tmp_path, text).stanzas) == 2


def test_there_are_at_most_so_many_sequences(tmp_path: Path) -> None:
    text = "".join(STANZA.replace("udp/8000", f"udp/{8001 + number}") for number in range(SEQUENCES_MAX + 1))
    assert len(load(tmp_path, text.rpartition("SOURCE")[0]).stanzas) == SEQUENCES_MAX
    assert problems(tmp_path, text) == [f"access.conf:{3 * SEQUENCES_MAX + 2}: SEQUENCE: more than 64 sequences"]


def test_a_step_is_no_port_of_our_own_server(tmp_path: Path) -> None:
    assert problems(tmp_path, STANZA, DaemonSettings(udp_server=8000)) == [
        "access.conf:2: SEQUENCE: udp/8000 is the port of our own server (ENABLE_UDP_SERVER)"
    ]
    assert load(tmp_path, STANZA, DaemonSettings(udp_server=7000)).stanzas


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"SOURCE ANY\nSEQUENCE {GOOD}\n", ["2: SEQUENCE without OPEN_PORTS: what does it open?"]),
        (f"{STANZA}RESTRICT_PORTS tcp/22\n", ["3: SEQUENCE: RESTRICT_PORTS leaves nothing of OPEN_PORTS to open"]),
        (STANZA + KEY, ["4: KEY_BASE64 beside SEQUENCE: a sequence has no keys: give them a stanza of their own"]),
        (f"{STANZA}REQUIRE_USERNAME joe\n", ["4: REQUIRE_USERNAME beside SEQUENCE: a sequence carries no user name"]),
        (f"{STANZA}REQUIRE_SOURCE_ADDRESS Y\n", ["4: REQUIRE_SOURCE_ADDRESS beside SEQUENCE: a sequence names"]),
        (f"{STANZA}PERMIT_CLIENT_PORTS Y\n", ["4: PERMIT_CLIENT_PORTS beside SEQUENCE: a sequence asks for no ports"]),
        (f"{STANZA}ENABLE_CMD_EXEC Y\n", ["4: ENABLE_CMD_EXEC beside SEQUENCE: a sequence carries no command"]),
        (f"{STANZA}SEQUENCE_FILE /nowhere\n", ["4: SEQUENCE_FILE beside SEQUENCE: a stanza has one of them"]),
        (f"{STANZA}SEQUENCE {GOOD}\n", ["4: SEQUENCE: already set in line 2"]),
        (f"{STANZA}SEQUENCE_TIMEOUT 0\n", ["4: SEQUENCE_TIMEOUT: '0' is not a number from 1 to 300"]),
        (f"{STANZA}SEQUENCE_FLAGS all\n", ["4: SEQUENCE_FLAGS: 'all' is none of fin, syn, rst, psh, ack, urg"]),
        (f"SOURCE ANY\n{KEY}SEQUENCE_TIMEOUT 9\n", ["3: SEQUENCE_TIMEOUT without SEQUENCE"]),
        (
            "SOURCE ANY\nSEQUENCE tcp/1 tcp/2 tcp/3\nOPEN_PORTS tcp/22\n",
            ["2: SEQUENCE: neighbouring ports in their order: a scan of all ports would open it"],
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, told: list[str]) -> None:
    found = problems(tmp_path, text)
    assert len(found) == len(told), found
    for problem, words in zip(found, told, strict=True):
        assert problem.startswith(f"access.conf:{words}"), problem


def test_clients_beside_a_sequence_are_refused(tmp_path: Path) -> None:
    assert any("CLIENT" in one or "SEQUENCE" in one for one in problems(tmp_path, STANZA + CLIENT))
