"""knockd.conf as stanzas: what becomes of each setting, and what is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorward.config import access
from doorward.daemon.import_knockd import Import, main
from doorward.values import Service

PATH = Path("/etc/knockd.conf")
# Debian's own file, and knockd(1)'s examples.
DEBIAN = """\
[options]
	UseSyslog

[openSSH]
	sequence    = 7000,8000,9000
	seq_timeout = 5
	command     = /sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
	tcpflags    = syn

[closeSSH]
	sequence    = 9000,8000,7000
	seq_timeout = 5
	command     = /sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
	tcpflags    = syn

[openHTTPS]
	sequence    = 12345,54321,24680,13579
	seq_timeout = 5
	command     = /usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f %IP%
	tcpflags    = syn
"""
MORE = """\
[opencloseSMTP]
    Sequence      = 2222:udp, 3333:TCP ,4444:udp
    Seq_Timeout   = 15
    TCPFlags      = fin,!ack
    Target        = 192.0.2.9
    Start_Command = /usr/sbin/iptables -A INPUT -s %IP% -p tcp --syn --dport 25 -j ACCEPT
    Cmd_Timeout   = 7
    Stop_Command  = /usr/sbin/iptables -D INPUT -s %IP% -p tcp --syn --dport 25 -j ACCEPT
"""


def read(text: str) -> Import:
    return Import(PATH, text.encode())


def door(*lines: str, name: str = "door") -> str:
    said = {line.partition("=")[0].strip() for line in lines}
    usual = {"sequence": "sequence = 7000,8000,9000", "command": "command = /bin/true"}
    rest = [text for key, text in usual.items() if key not in said and not said & {f"start_{key}", f"one_time_{key}s"}]
    return "\n".join([f"[{name}]", *lines, *rest, ""])


def test_debians_file_becomes_stanzas_that_doorwardd_reads() -> None:
    found = read(DEBIAN)
    assert not found.problems
    (note,) = map(str, found.notes)
    assert note.startswith("/etc/knockd.conf:2: UseSyslog is not used: doorwardd logs to its service's journal")
    stanzas = access.parse(Path("access.conf"), "\n".join(found.stanzas).encode()).stanzas
    assert [stanza.name for stanza in stanzas] == ["openSSH", "closeSSH", "openHTTPS"]
    (one,) = stanzas[0].sequences
    assert (str(one), one.seconds, str(one.flags)) == ("tcp/7000 tcp/8000:5 tcp/9000:5", 5, "syn")
    cycle = stanzas[0].cycle
    assert cycle is not None
    assert (cycle.open, cycle.close) == ("/sbin/iptables -A INPUT -s $SRC -p tcp --dport 22 -j ACCEPT", None)
    assert len(stanzas[2].sequences[0].steps) == 4


def test_a_door_with_all_settings_keeps_them() -> None:
    found = read(MORE)
    assert not found.problems
    (note,) = found.notes
    assert (note.line, "where it is an address of this host" in note.text) == (5, True)
    (stanza,) = access.parse(Path("access.conf"), found.stanzas[0].encode()).stanzas
    (one,) = stanza.sequences
    assert one.services == tuple(map(Service.parse, ("udp/2222", "tcp/3333", "udp/4444")))
    assert (one.seconds, str(one.flags)) == (15, "fin,!ack")
    assert str(stanza.destination) == "192.0.2.9/32"
    assert stanza.cycle is not None
    assert stanza.cycle.seconds == 7
    assert (stanza.cycle.close or "").startswith("/usr/sbin/iptables -D INPUT -s $SRC")


def test_what_knockd_takes_where_the_file_says_nothing_is_taken() -> None:
    found = read(door("stop_command = /bin/false"))
    (text,) = found.stanzas
    assert "SEQUENCE tcp/7000 tcp/8000:25 tcp/9000:25\nSEQUENCE_TIMEOUT 25\n" in text
    assert "CMD_CYCLE_TIMER 10\n" in text
    (note,) = found.notes
    assert (note.line, "no TCPFlags" in note.text) == (1, True)


def test_sequences_that_open_once_keep_their_file() -> None:
    found = read(door("tcpflags = syn", "one_time_sequences = /etc/knockd/smtp_sequences"))
    assert "SEQUENCE_FILE /etc/knockd/smtp_sequences\n" in found.stanzas[0]
    (note,) = found.notes
    assert (note.line, "remembers which sequences were used" in note.text) == (3, True)


@pytest.mark.parametrize(
    ("command", "becomes"),
    [
        ("/bin/echo '%IP%'", "/bin/echo '$SRC'"),
        ("/bin/echo %IP% > /tmp/x", "/bin/sh -c '/bin/echo $SRC > /tmp/x'"),
        ("/bin/a && /bin/b", "/bin/sh -c '/bin/a && /bin/b'"),
        ("/bin/a $HOME", "/bin/sh -c '/bin/a $HOME'"),
        ("/bin/a 'b' | /bin/c", """/bin/sh -c '/bin/a '"'"'b'"'"' | /bin/c'"""),
    ],
)
def test_a_command_that_needs_a_shell_gets_one_and_is_named(command: str, becomes: str) -> None:
    found = read(door("tcpflags = syn", f"start_command = {command}"))
    assert f"CMD_CYCLE_OPEN {becomes}\n" in found.stanzas[0]
    assert [note.line for note in found.notes] == ([3] if "sh -c" in becomes else [])


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        (door("sequence = 7000,8000"), 2, "[door] has no stanza: SEQUENCE: 2 steps: a sequence has 3 to 16"),
        (door("sequence = 7000,7000,8000"), 2, "tcp/7000 twice in a row"),
        (door("sequence = 7000,7001,7002"), 2, "a scan of all ports would open it"),
        (door("sequence = 7000,x,7002"), 2, "'x' is not PORT, PORT:tcp or PORT:udp"),
        (door("sequence = 7000,70000,7002"), 2, "outside 1 to 65535"),
        (door("tcpflags = syn,ece"), 2, "TCPFLAGS: 'ece' is none of fin"),
        (door("target = here"), 2, "TARGET: "),
        (door("seq_timeout = soon"), 2, "SEQ_TIMEOUT: 'soon' is not a number"),
        (door("command = /bin/a; /bin/b"), 2, "a value ends at `;`: write the commands into a script"),
        (door("command = /bin/a 'b"), 2, "START_COMMAND: No closing quotation"),
        (door("pcap = 1"), 2, "pcap is no setting of knockd's here"),
        (door("sequence = 1,5,9", "sequence = 1,5,9"), 3, "sequence: already set in line 2"),
        ("[door]\nsequence = 7000,8000,9000\n", 1, "START_COMMAND: it is missing"),
        ("[door]\ncommand = /bin/a\n", 1, "a door has SEQUENCE or ONE_TIME_SEQUENCES"),
        ("sequence = 7000,8000,9000\n", 1, "sequence stands before the first section"),
        (door() + "\x01\n", 4, "the line has a control character"),
        (door() + door(name="other"), 5, "one who sends it or that of /etc/knockd.conf:2 sends the other one too"),
    ],
)
def test_what_cannot_become_a_stanza_is_named_with_its_line(text: str, line: int, complaint: str) -> None:
    found = read(text)
    assert [(one.path, one.line) for one in found.problems] == [(str(PATH), line)]
    assert complaint in found.problems[0].text
    assert len(found.stanzas) == text.count("[") - ("has no stanza" in found.problems[0].text)


def test_what_a_stanza_does_otherwise_is_named_with_its_line() -> None:
    text = "[options]\nlogfile = /x\nPidFile = /y\ninterface = eth1\n" + door(
        "tcpflags = syn", "seq_timeout = 900", "start_command_6 = /bin/six", "stop_command_6 = /bin/6", name="a door"
    )
    found = read(text)
    assert not found.problems
    assert sorted(note.line for note in found.notes) == [2, 3, 4, 5, 7, 8, 9]
    (stanza,) = found.stanzas
    assert "NAME" not in stanza
    assert "SEQUENCE_TIMEOUT 300\n" in stanza
    assert "SOURCE 0.0.0.0/1, 128.0.0.0/1\n" in stanza, "its commands for IPv6 are others"


def test_the_same_commands_for_both_families_are_one() -> None:
    found = read(door("tcpflags = syn", "timeout = 7", "command = /bin/a %IP%", "start_command_6 = /bin/a %IP%"))
    assert (found.problems, found.notes) == ([], [])
    assert "SOURCE ANY\n" in found.stanzas[0]
    assert "SEQUENCE_TIMEOUT 7\n" in found.stanzas[0]
    nothing = read(door("tcpflags = syn", "start_command_6 ="))
    assert [note.line for note in nothing.notes] == [3]
    assert "SOURCE 0.0.0.0/1, 128.0.0.0/1\n" in nothing.stanzas[0], "knockd runs nothing then"


def test_the_command_prints_stanzas_and_exits_1_where_a_door_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "knockd.conf"
    file.write_text(DEBIAN)
    assert main([str(file)]) == 0
    out, err = capsys.readouterr()
    assert (out.count("SEQUENCE tcp/"), err.count("\n")) == (3, 1)
    file.write_text(DEBIAN.replace("12345,54321,24680,13579", "12345,54321"))
    assert main([str(file)]) == 1
    out, err = capsys.readouterr()
    assert (out.count("SEQUENCE tcp/"), "[openHTTPS] has no stanza" in err) == (2, True)
    assert main([str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
