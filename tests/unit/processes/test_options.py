"""doorwardd's command line: every option of fwknopd is there, and does what it says or says why not."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from doorward.config import convert
from doorward.daemon import cli, describe
from doorward.errors import ConfigError
from doorward.processes import configuration, options
from system.doorwardd import command, environment

if TYPE_CHECKING:
    from pathlib import Path

ACCESS = "SOURCE ANY\nKEY abc\nHMAC_KEY def\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "access.conf").write_text(ACCESS)
    (tmp_path / "access.conf").chmod(0o600)
    (tmp_path / "doorwardd.conf").write_text("UDPSERV_PORT 1234;\n")
    return tmp_path


def read(folder: Path, *words: str) -> configuration.Configuration:
    files = ["-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf")]
    return configuration.load(options.parser().parse_args([*files, *words]))[0]


def test_every_option_of_fwknopd_is_known() -> None:
    told = subprocess.run(["fwknopd", "--help"], check=False, capture_output=True, text=True, timeout=30).stdout
    theirs = set(re.findall(r"--[a-z][a-z-]+", told)) - {"--afl-fuzzing", "--afl-pkt-file", "--fault-injection-tag"}
    ours = {name for action in options.parser()._actions for name in action.option_strings}  # noqa: SLF001
    assert len(theirs) > 25
    assert not theirs - ours - {"--help"}


def test_options_fill_their_settings(folder: Path) -> None:
    words = ("-U", "--pcap-file", "/x.pcap", "--gpg-home-dir", "/k", "--gpg-exe", "/g", "--sudo-exe", "/s", "-i", "lo")
    settings = read(folder, *words).settings
    assert (settings.udp_server, settings.capture, settings.interfaces) == (1234, False, ("lo",))
    assert [str(path) for path in (settings.pcap_file, settings.gpg_home, settings.gpg_exe, settings.sudo_exe)] == [
        "/x.pcap",
        "/k",
        "/g",
        "/s",
    ]


@pytest.mark.parametrize(
    ("text", "captured"),
    [
        ("ENABLE_UDP_SERVER Y;", "udp dst port 62201"),
        ("ENABLE_UDP_SERVER Y;\nUDPSERV_PORT 9;", "udp dst port 9"),
        ("ENABLE_UDP_SERVER Y;\nUDPSERV_PORT 9;\nPCAP_FILTER udp portrange 8-9;", "udp dst portrange 8-9"),
        ("ENABLE_UDP_SERVER Y;\nUDPSERV_PORT 9;\nPCAP_FILTER icmp;", "udp dst port 9 or icmp"),
    ],
)
def test_a_server_that_cannot_be_had_is_captured_with_what_else_is(folder: Path, text: str, captured: str) -> None:
    (folder / "doorwardd.conf").write_text(f"{text}\n")
    wanted = read(folder)
    assert wanted.heard(server=True) == wanted
    found = wanted.heard(server=False).settings
    assert (found.udp_server, found.capture) == (None, True)
    assert found.carriers == convert.carriers(captured)


@pytest.mark.parametrize("text", ["ENABLE_UDP_SERVER N;", "PCAP_FILTER udp port 9;"])
def test_what_is_captured_by_choice_stays_as_it_is(folder: Path, text: str) -> None:
    (folder / "doorwardd.conf").write_text(f"{text}\n")
    assert read(folder).heard(server=False) == read(folder)


def test_an_option_about_how_knocks_are_heard_leaves_nothing_open(folder: Path) -> None:
    (folder / "doorwardd.conf").write_text("VERBOSE 1;\n")
    assert read(folder, "--gpg-exe", "/g").settings.automatic
    for words in (("-U",), ("-i", "any"), ("-P", "udp port 62201"), ("--pcap-file", "/x.pcap")):
        assert not read(folder, *words).settings.automatic, words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-D", "--exit-parse-config"), "Current doorwardd config settings"),
        (("--exit-parse-config", "--exit-parse-digest-cache"), "Configs parsed, exiting."),
        (("--exit-parse-digest-cache", "-S"), "No running doorwardd detected."),
        (("check", "-D"), "Configs parsed, exiting."),
        (("-K", "check"), "Configs parsed, exiting."),
    ],
)
def test_of_several_commands_fwknopds_first_one_is_carried_out_and_check_before_all(
    folder: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf"), "-r", str(folder)]
    assert cli.main([*words, *files] if words[-1] != "check" else [words[0], *files, "check"]) in {0, 1}
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize("words", [("-D", "-K"), ("-K", "-R"), ("-R", "-S"), ("-S", "-D")])
def test_what_fwknopd_calls_mutually_exclusive_is_a_usage_error(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("option", options.INERT)
def test_an_option_without_effect_is_named_in_a_warning(folder: Path, option: str) -> None:
    words = (option, "C") if option == "--locale" else (option,)
    assert f"{option} has no effect: {options.INERT[option]}" in read(folder, *words).warnings
    assert not [text for text in read(folder).warnings if "has no effect" in text]


def test_a_queue_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="not from a queue"):
        read(folder, "-n")


def test_a_file_that_a_folder_takes_the_place_of_is_named(folder: Path) -> None:
    (folder / "d").mkdir()
    (folder / "access.conf").rename(folder / "d" / "one.conf")
    found = read(folder, "--access-folder", str(folder / "d"))
    assert found.access.stanzas[0].path == str(folder / "d" / "one.conf")
    assert f"{folder}/access.conf is not read: the stanzas are in {folder}/d (ACCESS_FOLDER)" in found.warnings


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ENABLE_SPA_OVER_HTTP Y;", "ENABLE_SPA_OVER_HTTP"),
        ("ENABLE_X_FORWARDED_FOR Y;\nTRUSTED_PROXIES 10.0.0.1;", "ENABLE_X_FORWARDED_FOR"),
        ("FIREWALL_EXE /usr/sbin/iptables;", "FIREWALL_EXE"),
    ],
)
def test_what_is_without_effect_is_named_with_its_line(folder: Path, text: str, name: str) -> None:
    (folder / "doorwardd.conf").write_text(f"VERBOSE 0;\n{text}\n")
    where = f"{folder}/doorwardd.conf:2: {name} has no effect"
    assert next(one for one in read(folder).warnings if "has no effect" in one).startswith(where)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "udp dst port 62201"),
        (
            "PCAP_FILTER udp portrange 10-20 or tcp port 80 or icmp;",
            "udp dst portrange 10-20 or tcp dst port 80 or icmp",
        ),
        ("ENABLE_UDP_SERVER Y;", describe.NOT_SET),
        ("ENABLE_UDP_SERVER Y;\nUDPSERV_PORT 9;\nPCAP_FILTER udp portrange 8-9;", "udp dst port 8"),
    ],
)
def test_the_filter_that_is_shown_is_the_one_in_force(folder: Path, text: str, expected: str) -> None:
    (folder / "doorwardd.conf").write_text(text + "\n")
    (shown,) = [line for line in describe.dump(read(folder)) if " PCAP_FILTER " in line]
    assert shown.endswith(f"=  '{expected}'")
    if expected != describe.NOT_SET:
        assert describe._captured(read(folder).settings) == convert.carriers(expected)  # noqa: SLF001  what is read back


def test_ports_that_have_defaults_are_shown(folder: Path) -> None:
    shown = "\n".join(describe.dump(read(folder)))
    for words in ("UDPSERV_PORT                 =  '1234'", "TCPSERV_PORT                 =  '62201'"):
        assert words in shown


def test_keys_are_made_as_fwknopd_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-k", "--key-len", "16", "--hmac-digest-type", "md5"]) == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(r"KEY_BASE64: \S{24}\nHMAC_KEY_BASE64: \S{24}\n", printed)
    file = tmp_path / "keys"
    assert cli.main(["--key-gen-file", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert cli.main(["--key-gen-file", str(file)]) == 1, "a file that is there is kept"
    assert cli.main(["-k", "--key-len", "33"]) == 1
    assert cli.main(["-k", "--key-len", "0"]) == 1
    assert cli.main(["-k", "--hmac-key-len", "0"]) == 1
    capsys.readouterr()
    assert cli.main(["-k", "--key-len", "8"]) == 0
    assert capsys.readouterr().err == "warning: a key of 8 bytes can be guessed: take 16 bytes or more\n"


def test_the_error_codes_are_fwknopds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--dump-serv-err-codes"]) == 0
    theirs = subprocess.run(
        ["fwknopd", "--dump-serv-err-codes"], check=False, capture_output=True, text=True, timeout=30
    )
    printed = capsys.readouterr().out
    assert theirs.stdout.splitlines()
    assert not set(theirs.stdout.splitlines()) - set(printed.splitlines())


def test_no_secret_is_ever_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "s3cretw0rd"  # noqa: S105  it is what must not show
    (folder / "access.conf").write_text(f"SOURCE ANY\nKEY {secret}\nHMAC_KEY {secret}h\nOPEN_PORTS tcp/22\n")
    files = ["-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf")]
    for words in (["-D"], ["check", "--explain-config"]):
        assert cli.main([*words, *files]) == 0
        shown = capsys.readouterr()
        assert secret not in shown.out + shown.err
        assert "tcp/22" in shown.out


def test_what_is_the_default_is_marked_in_words(folder: Path) -> None:
    told = "\n".join(describe.tell(read(folder)))
    assert "services   every service (default)" in told
    assert "window     30 s (default), where the client asks for another at most 300 s (default)" in told
    (folder / "access.conf").write_text(f"{ACCESS}FW_ACCESS_TIMEOUT 31\nOPEN_PORTS tcp/22\n")
    told = "\n".join(describe.tell(read(folder)))
    assert "services   tcp/22\n" in told
    assert "window     31 s, where" in told


def test_the_replay_store_can_be_looked_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["-c", str(folder / "doorwardd.conf"), "-d", str(folder / "replay.db"), "--exit-parse-digest-cache"]
    assert cli.main(argv) == 0
    assert "is not there yet" in capsys.readouterr().out
    (folder / "replay.db").write_text("0123 17 192.0.2.1 1 192.0.2.2 62201 1\n" * 100)
    assert cli.main(argv) == 1, "a file of fwknopd's is none of ours"


@pytest.mark.parametrize("word", ["-D", "check", "--dump-serv-err-codes"])
def test_a_reader_that_has_had_enough_is_no_reason_for_a_traceback(folder: Path, word: str) -> None:
    argv = command(word, "-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf"))
    told = []
    for reader_is_there in (True, False):
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as output, os.fdopen(writer, "wb") as stdout:
            if not reader_is_there:
                output.close()
            ended = subprocess.run(
                argv, check=False, env=environment(), stdout=stdout, stderr=subprocess.PIPE, timeout=30
            )
        assert ended.returncode == (0 if reader_is_there else 1)
        told.append(ended.stderr)
    assert told[0] == told[1]


def test_sequences_and_magic_packets_are_shown_without_what_is_secret(folder: Path) -> None:
    (folder / "once").write_text("tcp/1111 tcp/2222 tcp/4444\ntcp/1111 tcp/3333 tcp/4444\n")
    (folder / "once").chmod(0o600)
    (folder / "access.conf").write_text(
        "SOURCE ANY\nSEQUENCE tcp/7000 udp/8000:5 tcp/9000\nSEQUENCE_TIMEOUT 9\nOPEN_PORTS tcp/22\n"
        f"SOURCE ANY\nSEQUENCE_FILE {folder}/once\nOPEN_PORTS tcp/22\n"
        "SOURCE ANY\nMAGIC udp/62204\nHMAC_KEY correct-horse-battery\nOPEN_PORTS tcp/22\n"
        "SOURCE ANY\nMAGIC icmp\nHMAC_KEY another-horse-battery\nOPEN_PORTS tcp/22\n"
    )
    found = read(folder)
    shown, told = "\n".join(describe.dump(found)), "\n".join(describe.tell(found))
    for text in ("tcp/7000 udp/8000:5 tcp/9000:10", "!fin,syn,!rst,!ack", f"{folder}/once", "udp/62204", "icmp"):
        assert text in shown
    assert "tcp/7000 udp/8000:5 tcp/9000:10 within 9 s; whoever sees it can send it again" in told
    assert f"each of 2 in {folder}/once opens once" in told
    assert "packets over udp/62204, made by a password" in told
    assert not [text for text in ("horse", "1111", "3333") if text in shown + told]
