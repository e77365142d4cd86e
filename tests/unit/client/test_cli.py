"""The command line from its words to its exit code, with real files and real sockets on the loopback."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward import console, portable
from doorward.client import cli, packet
from doorward.crypto.symmetric import unseal
from doorward.values import Secret, SymmetricKeys
from doorward.wire import fwknop

if TYPE_CHECKING:
    from collections.abc import Iterator

DAEMON = Path(__file__).resolve().parents[3] / "daemon"
KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
RC_FILE = f"[default]\nKEY {'k' * 32}\nHMAC_KEY {'h' * 64}\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli, "TERMINAL", "/missing")  # nobody is asked where a person runs the tests
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.delenv("SPOOF_USER", raising=False)
    return tmp_path


@pytest.fixture
def rc_file(home: Path) -> Path:
    path = home / ".fwknoprc"
    path.write_text(RC_FILE)
    path.chmod(0o600)
    return path


@pytest.fixture(params=["127.0.0.1", "::1"])
def door(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as listener:
        listener.bind((request.param, 0))
        listener.settimeout(10)
        yield listener


def where(listener: socket.socket) -> tuple[str, str]:
    host, port, *_ = listener.getsockname()
    return host, str(port)


def received(listener: socket.socket) -> fwknop.Message:
    return fwknop.parse(unseal(listener.recv(2048), KEYS))


@pytest.mark.parametrize("command", [[], ["knock"]], ids=["as fwknop", "knock"])
def test_a_knock_arrives_and_says_nothing(
    command: list[str], door: socket.socket, rc_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = where(door)
    assert cli.main([*command, "-A", "tcp/22", "-D", host, "-p", port, "-f", "30"]) == 0
    message = received(door)
    own = {"127.0.0.1": "127.0.0.1", "::1": packet.ORIGIN}[host]  # ::1 is no source that a packet can name
    assert (message.text, message.user, message.timeout) == (f"{own},tcp/22", "alice", 30)
    assert capsys.readouterr() == ("", "")
    assert rc_file.read_text() == RC_FILE


def test_the_source_port_is_the_one_that_was_asked_for(door: socket.socket, rc_file: Path) -> None:
    host, port = where(door)
    with socket.socket(door.family, socket.SOCK_DGRAM) as free:
        free.bind((host, 0))
        wanted = free.getsockname()[1]
    assert cli.main(["-A", "tcp/22", "-D", host, "-p", port, "-S", str(wanted)]) == 0
    assert door.recvfrom(2048)[1][1] == wanted
    assert rc_file.exists()


def test_verbose_shows_the_packet_that_was_sent(
    door: socket.socket, rc_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = where(door)
    assert cli.main(["-A", "tcp/22", "-D", host, "-p", port, "-v", "-s"]) == 0
    payload = door.recv(2048)
    shown = capsys.readouterr().out
    assert f" Final SPA Data: {payload.decode()}\n" in shown
    assert f"bytes sent: {len(payload)}" in shown
    assert rc_file.read_text().split()[2] not in shown


def test_a_test_run_shows_a_packet_and_sends_none(
    door: socket.socket, rc_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = where(door)
    words = ["-A", "tcp/22", "-D", host, "-p", port]
    assert cli.main([*words, "--test", "-v"]) == 0
    match = re.search(r"Final SPA Data: (\S+)", capsys.readouterr().out)
    assert match
    tested = match[1].encode()
    assert fwknop.parse(unseal(tested, KEYS)).text.endswith(",tcp/22")
    assert cli.main(words) == 0
    assert door.recv(2048) != tested  # the first to arrive is the second that was made
    assert rc_file.exists()


def test_a_test_run_needs_no_destination(rc_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-A", "tcp/22", "-a", "192.0.2.1", "--test"]) == 0
    assert "Message String: 192.0.2.1,tcp/22" in capsys.readouterr().out
    assert rc_file.exists()


def test_a_key_on_the_command_line_works_and_is_warned_of(
    door: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = where(door)
    words = ["-A", "tcp/22", "-D", host, "-p", port, "--key-rijndael", "k" * 32, "--key-hmac", "h" * 64]
    assert cli.main([*words, "--no-rc-file"]) == 0
    assert received(door).user == "alice"
    assert "visible to every user" in capsys.readouterr().err


def test_a_packet_without_an_hmac_is_warned_of(door: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    host, port = where(door)
    assert cli.main(["-A", "tcp/22", "-D", host, "-p", port, "--key-rijndael", "k", "--no-rc-file"]) == 0
    keys = SymmetricKeys(Secret(b"k"), None)
    assert fwknop.parse(unseal(door.recv(2048), keys)).user == "alice"
    assert "not authenticated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["-A", "tcp/22"], 1, "name the host to knock at: -D HOST"),
        (["-D", "127.0.0.1"], 1, "name a service to open: -A tcp/22"),
        (["-A", "tcp/22", "-D", "no.invalid"], 1, "no.invalid: "),
        (["-A", "tcp/22", "-D", "127.0.0.1", "-6"], 1, " (IPv6 alone)"),
        (["-A", "tcp/22", "-D", "127.0.0.1", "-R", "-w", "/missing/wget"], 1, "/missing/wget (-w, WGET_CMD) cannot be"),
        (["-A", "tcp/22", "-D", "127.0.0.1", "-U", "a/b"], 1, "user name"),
        (["-A", "tcp/0", "-D", "x"], 2, "port 0 is outside"),
        (["-A", "tcp/22", "-D", "x", "-p", "99999"], 2, "'99999' is not a number"),
        (["-A", "tcp/22", "-D", "x", "-a", "x"], 2, "neither auto, named, source, resolve nor an address"),
        (["-A", "tcp/22", "-D", "x", "-P", "sctp"], 2, "none of udp, tcp, http"),
        (["-A", "tcp/22", "-D", "x", "-N", "10.0.0.1,x"], 2, "'x' is not a number"),
        (["-A", "tcp/22", "-D", "x", "-f", "131072"], 2, "from 0 to 65536"),
        (["-A", "tcp/22", "-D", "x", "-g"], 1, "GnuPG needs a recipient"),
        (["-A", "tcp/22", "-D", "x", "-M", "asymmetric"], 1, "mode Asymmetric is GnuPG"),
        (["-A", "tcp/22", "-D", "x", "-Q", "192.0.2.1"], 1, "a spoofed source needs -P"),
        (["-A", "tcp/22", "-D", "x", "-H", "px", "-P", "udp"], 1, "a proxy needs -P http"),
        (["-A", "tcp/22,tcp/80", "-D", "x", "-N", "y", "--nat-port", "1"], 1, "stands for one service"),
        (["-C", "a\x7f", "-D", "x"], 2, "not printable"),
        (["-k", "--key-len", "0"], 2, "'0' is not a number from 1 to 32"),
        (["-k", "--hmac-key-len", "0"], 2, "'0' is not a number from 1 to 128"),
        (["-A", "tcp/22", "-D", "x", "--no-rc-file", "--fd", "987654"], 1, "descriptor 987654 cannot be read"),
        (["-A", "tcp/22", "--save-rc-stanza"], 1, "name the section"),
        (["-A", "tcp/22", "-D", "x", "--no-rc-file", "--save-rc-stanza"], 1, "--no-rc-file leaves it out"),
        (["-A", "tcp/22", "-D", "x", "--no-home-dir", "--save-rc-stanza"], 1, "--no-home-dir without --rc-file FILE"),
        (["--stanza-list", "--no-rc-file"], 1, "--stanza-list need a file of sections, and --no-rc-file leaves it out"),
        (["-A", "tcp/22", "-T", "-G", "/missing"], 1, "/missing has one key per host: name the host with -D"),
        (
            ["-A", "tcp/22", "-D", "x", "--no-rc-file", "-n", "y"],
            1,
            "-n, --save-rc-stanza and --stanza-list need a file",
        ),
        (["-l", "-E", "/missing"], 1, "/missing: No such file or directory: no command line was kept there"),
        (["--show-last", "--no-home-dir"], 1, "-E FILE"),
        (["-A", "tcp/22", "-D", "x", "stray"], 2, "'stray' belongs to no option"),
        (["-A", "tcp/22", "--no-rc-fil=x"], 2, "--no-rc-file takes no value"),
        (["-A"], 2, "-A needs a value"),
        (["--time-offset", "3"], 2, "--time-offset may be --time-offset-minus, --time-offset-plus"),
        (["-A", "tcp/22", "-x"], 2, "unrecognized option -x"),
        (["-A", "tcp/22", "-D", "x", "--nonsense"], 2, "unrecognized"),
        (["-A", "tcp/22", "-D", "x", "--key-base64-rijndael", "hunter2*"], 2, "is not base64"),
        (["-A", "tcp/22", "-D", "x", "--key-rijndael", "hunter2" * 5], 1, "1 to 32 bytes, not 35"),
        (["-A", "tcp/22", "-D", "x", "-n", "missing"], 3, ".fwknoprc: no section [missing]"),
        (["-A", "tcp/22", "-D", "x", "--rc-file", "/missing"], 1, "there is no /missing"),
        (["-A", "tcp/22", "-D", "x", "--rc-file", "/missing", "-n", "x"], 3, "/missing: cannot be read"),
        (["-A", "tcp/22", "-D", "x", "-G", "/missing"], 3, "/missing: cannot be read"),
        (["keys", "generate", "--length", "8"], 2, "'8' is not a number from 16 to 32"),
        (["keys", "generate", "--length", "33"], 2, "from 16 to 32"),
        (["keys", "generate", "--output", "/missing/x"], 1, "/missing/x: cannot be written: No such file"),
        (["keys"], 2, "required"),
        (["connect", "host"], 2, "required"),
        (["connect", "host", "0"], 2, "from 1 to 65535"),
        (["connect", "host", "22", "--timeout", "nan"], 2, "is not a number of seconds"),
        (["connect", "host", "22", "--timeout", "0"], 2, "is not a number of seconds"),
        (["connect", "--", "-x", "22"], 2, "no host name"),
        (["ssh-config", "a b"], 1, "no host name or pattern"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_has_its_exit_code_and_its_words(
    words: list[str], code: int, complaint: str, rc_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == code
    shown = capsys.readouterr()
    assert complaint in shown.err
    assert "Traceback" not in shown.err
    assert "hunter2" not in shown.err
    assert shown.out == ""
    assert rc_file.exists()


def test_problems_of_the_file_come_with_their_lines(rc_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rc_file.write_text("[default]\nUSE_GPG 1\nSPA_SERVER_PORT 0\n")
    assert cli.main(["-A", "tcp/22", "-D", "127.0.0.1"]) == 3
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == [f"{rc_file}:2", f"{rc_file}:3"]


def test_a_readable_key_file_is_warned_of(rc_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rc_file.chmod(0o644)
    assert cli.main(["-A", "tcp/22", "--test"]) == 0
    assert f"{rc_file}: holds keys and has mode 0644: chmod 600 it" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["keys", "generate"], ["-k"], ["--key-gen"]], ids=" ".join)
def test_generated_keys_are_the_two_lines_that_fwknop_prints(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    first = capsys.readouterr().out
    assert re.fullmatch(r"KEY_BASE64: [A-Za-z0-9+/]{43}=\nHMAC_KEY_BASE64: [A-Za-z0-9+/]{86}==\n", first)
    assert cli.main(words) == 0
    assert capsys.readouterr().out != first


def test_generated_keys_are_a_file_to_knock_with(
    door: socket.socket, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = where(door)
    path = home / "new.key"
    assert cli.main(["keys", "generate", "--output", str(path)]) == 0
    assert cli.main(["keys", "generate", "--output", str(path)]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert cli.main(["-K", str(path)]) == 1
    complaint = capsys.readouterr().err
    assert f"{path}: exists, and keys are not overwritten by default: name another file" in complaint
    kept = path.read_text()
    instead = complaint.partition("(`doorward ")[2].partition("`")[0]
    assert cli.main(instead.split()) == 0
    assert path.read_text() != kept
    assert cli.main(["--rc-file", str(path), "-A", "tcp/22", "-D", host, "-p", port]) == 0
    assert len(door.recv(2048)) >= 140


def test_the_sections_can_be_listed(rc_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rc_file.write_text("[default]\n[web1]\nUSE_GPG Y\n[web2]\n")
    assert cli.main(["--stanza-list"]) == 0
    assert capsys.readouterr().out == "default\nweb1\nweb2\n"


def test_what_is_odd_about_the_file_is_warned_of_by_every_command_that_reads_it(
    rc_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rc_file.write_text("[default]\nKEY x\n[web1]\n[web1]\n")
    for words in (["--stanza-list"], ["-A", "tcp/22", "-T", "-a", "192.0.2.1"], ["connect", "127.0.0.1", "1"]):
        cli.main(words)
        assert f"{rc_file}:4: [web1] begins on line 3 already" in capsys.readouterr().err


def test_ssh_config_carries_the_options_of_the_knock(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "doorward"])
    monkeypatch.setattr(sys, "argv", ["doorward"])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    words = ["ssh-config", "--spa-server", "gw", "--service", "tcp/22,tcp/80", "--source", "packet", "-n", "x", "web1"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == (
        "Host web1\n"
        "    ProxyCommand /usr/bin/python3 -m doorward connect -n x --spa-server gw --service tcp/22,tcp/80 "
        "--source packet --follow-ssh -- '%h' '%p'\n"
        "    ProxyUseFdpass yes\n"
    )


@pytest.mark.parametrize(
    "words", [["-V"], ["--version"], ["knock", "-V"], ["knock", "-A", "tcp/0", "--version"]], ids=" ".join
)
def test_the_version_is_shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert re.fullmatch(r"doorward \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words", [["-h"], ["knock", "-h"], ["connect", "-h"], ["keys", "-h"], ["keys", "generate", "-h"]], ids=" ".join
)
def test_help_ends_well_and_shows_how(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert "doorward" in capsys.readouterr().out


def run(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "doorward", *words],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home)},
    )


def test_connect_loads_neither_the_daemon_nor_the_hosts_commands_nor_scapy(home: Path) -> None:
    program = (
        "import sys; from doorward import console; console.main(['connect', '127.0.0.1', '1']);"
        "print(sorted(name for name in sys.modules if name.startswith(('doorward', 'scapy', 'async', 'json', 'enc'))))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home)},
    ).stdout
    assert "doorward.client.connect" in shown
    assert "'encodings.utf_8'" in shown
    forbidden = ("doorward.host.commands", "doorward.daemon", "doorward.firewall", "scapy", "asyncio", "json")
    for absent in (*forbidden, "encodings.idna"):
        assert f"'{absent}" not in shown


def test_the_client_needs_nothing_that_only_linux_has(home: Path, rc_file: Path) -> None:
    program = (
        "import os, pkgutil, select, signal, socket, threading\n"
        "for module, names in ((socket, ('SOCK_CLOEXEC', 'SOCK_NONBLOCK', 'AF_PACKET', 'AF_NETLINK', 'AF_VSOCK')),\n"
        "    (os, ('memfd_create', 'pidfd_open', 'O_PATH', 'O_TMPFILE', 'getresuid', 'eventfd', 'splice')),\n"
        "    (select, ('epoll',)), (signal, ('signalfd', 'SIGRTMIN'))):\n"
        "    for name in names: vars(module).pop(name, None)\n"
        "import doorward.client; from doorward.client import cli\n"
        "for module in pkgutil.iter_modules(doorward.client.__path__): __import__(f'doorward.client.{module.name}')\n"
        "listener = socket.create_server(('127.0.0.1', 0)); port = str(listener.getsockname()[1])\n"
        "knocks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); knocks.bind(('127.0.0.1', 0))\n"
        "threading.Thread(target=lambda: listener.accept()[0].close()).start()\n"
        "cli.main(['connect', '--spa-port', str(knocks.getsockname()[1]), '127.0.0.1', port])\n"
        "assert len(knocks.recv(2048)) > 140\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home)},
    )
    assert rc_file.exists()


def test_a_reader_that_goes_away_causes_no_traceback(home: Path) -> None:
    command = f"{sys.executable} -m doorward knock --help | true"
    done = subprocess.run(
        ["sh", "-c", command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home)},
    )
    assert "Traceback" not in done.stderr
    assert run("-V", home=home).returncode == 0


def test_a_command_may_have_letters_beyond_ascii(
    door: socket.socket, rc_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = where(door)
    assert cli.main(["-C", "touch /tmp/ä✓", "-a", "192.0.2.1", "-D", host, "-p", port]) == 0
    assert received(door).text == "192.0.2.1,touch /tmp/ä✓"
    assert rc_file.exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["--key-len", "15"], ["--hmac-key-len", "15"]])
def test_a_short_key_is_made_with_a_warning(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-k", *words]) == 0
    assert capsys.readouterr().err == "doorward: warning: a key of 15 bytes can be guessed: take 16 bytes or more\n"
    assert cli.main(["-k", words[0], "16"]) == 0
    assert capsys.readouterr().err == ""


def test_connect_writes_a_configuration_problem_into_the_status_file(home: Path) -> None:
    status = home / "status"
    done = run("connect", "--rc-file", "/missing", "--status", str(status), "127.0.0.1", "22", home=home)
    assert done.returncode == 3
    assert status.read_text() == "/missing: cannot be read: No such file or directory\n"


def test_a_status_file_that_is_a_link_is_not_followed(home: Path) -> None:
    target = home / "target"
    target.write_text("kept")
    (home / "status").symlink_to(target)
    done = run("connect", "--status", str(home / "status"), "127.0.0.1", "1", home=home)
    assert done.returncode == 1
    assert target.read_text() == "kept"
    assert "refused" in done.stderr


def test_keys_that_could_not_be_printed_are_no_success(home: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123  a device
        done = subprocess.run(
            [sys.executable, "-m", "doorward", "keys", "generate"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home)},
        )
    assert done.returncode == 1
    assert done.stderr == "doorward: [Errno 28] No space left on device\n"


def test_a_home_that_is_no_folder_means_no_file_and_one_that_loops_is_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("HOME", str(home / "file"))
    assert cli.main(["connect", "127.0.0.1", "1"]) == 1
    (home / "loop").symlink_to(home / "loop")
    monkeypatch.setenv("HOME", str(home / "loop"))
    assert cli.main(["connect", "127.0.0.1", "1"]) == 3
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.skipif(not portable.HOSTS_RUN_HERE, reason="a host is Linux (tests/other_systems.py)")
def test_the_hosts_commands_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("knock", "connect", "keys", "ssh-config", "status", "open", "close", "firewall"):
        assert re.search(rf"^    {command} ", shown, re.MULTILINE), command


def test_a_person_is_asked_at_the_terminal_without_an_echo_whatever_standard_input_is(home: Path) -> None:
    master, terminal = os.openpty()
    words = [sys.executable, "-m", "doorward", "-A", "tcp/22", "-a", "192.0.2.1", "-T", "--use-hmac"]
    with subprocess.Popen(
        ["setsid", "-c", "-w", "sh", "-c", '"$@" < /dev/null', "sh", *words],
        stdin=terminal,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(DAEMON), "HOME": str(home)},
    ) as program:
        os.close(terminal)
        shown = b""
        for prompt, key in ((b"Enter encryption key: ", b"hunter2\n"), (b"Enter HMAC key: ", b"hunter3\n")):
            while prompt not in shown:
                shown += os.read(master, 1024)
            os.write(master, key)
        assert program.stdout is not None
        assert "HMAC Type: 3 (SHA256)" in program.stdout.read()
    assert program.returncode == 0
    with contextlib.suppress(OSError):
        shown += os.read(master, 1024)
    os.close(master)
    assert b"hunter" not in shown
