"""Debian's own fwknop client beside ours: same options, same files, same packets."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from doorward.client import cli, last_command

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ["--key-rijndael", "one", "--key-hmac", "two"]
SAME = (
    *("Username", "FKO Version", "Message Type", "Message String", "Nat Access", "Server Auth", "Client Timeout"),
    *("Digest Type", "HMAC Type", "Encryption Type", "Encryption Mode"),
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "alice")
    return tmp_path


def fwknop(*words: str, **options: str) -> str:
    """Run the real client and return what it prints."""
    done = subprocess.run(
        ["fwknop", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **options},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Clients:
    """Both clients, run on the same command line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def ours(self, *words: str) -> str:
        """Run ours and return what it prints."""
        self._capsys.readouterr()
        code = cli.main(list(words))
        shown = self._capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    def both(self, *words: str) -> tuple[str, str]:
        """Return what the real one and ours print."""
        return fwknop(*words), self.ours(*words)


@pytest.fixture
def clients(capsys: pytest.CaptureFixture[str]) -> Clients:
    return Clients(capsys)


def fields(shown: str) -> list[tuple[str, str]]:
    """Return the lines of the first dump, label and text."""
    block = shown.partition("=====\n")[2].partition("\n\n")[0]
    return [(label.strip(), text) for label, _, text in (line.partition(": ") for line in block.splitlines())]


@pytest.mark.parametrize(
    "line",
    [
        "-A tcp/22",
        "-A tcp/22,udp/53 -f 30",
        "-A tcp/22 -f 0",
        "-A tcp/22 -N 10.0.0.1",
        "-A tcp/22 -N 10.0.0.1:80 -f 30",
        "-A tcp/22 -N 10.0.0.1,80",
        "-A tcp/22,tcp/80 -N inner.example:80",
        "-A tcp/22 -N 10.0.0.1:80 --nat-port 55000",
        "-A tcp/22 --nat-port 55000",
        "-A tcp/22 --nat-local",
        "-A tcp/22 --nat-local --nat-port 55000 -f 9",
        "-A tcp/22 --nat-local -N 127.0.0.1:80 -f 9",
        "-C id",
        "-U bob -A tcp/22",
        "-A tcp/22 -m sha512 --hmac-digest-type sha3_512",
        "-A tcp/22 -m md5 --hmac-digest-type md5 -M ctr",
        "-A tcp/22 -M CFB",
        "-A tcp/22 -P tcp -p 7 -S 9",
        "-A tcp/22 -P http -u me",
        "-A tcp/22 -P http -H http://proxy:3128",
        "--acc tcp/22 --nat-l --verbose",
    ],
)
def test_the_same_options_make_the_same_packet(clients: Clients, line: str) -> None:
    words = [*line.split(), "-T", "-a", "192.0.2.1", "-D", "h.invalid", "--no-rc-file", "--no-save-args", *KEYS]
    theirs, ours = clients.both(*words)
    assert [label for label, _ in fields(ours)] == [label for label, _ in fields(theirs)]
    told = {label: text for label, text in fields(theirs) if label in SAME}
    assert {label: text for label, text in fields(ours) if label in SAME} == told
    assert len(told) == len(SAME)
    assert "est mode enabled, SPA packet not actually sent." in ours


@pytest.mark.parametrize("line", ["-C 'ls -l, x'", "-A tcp/22 -k"])
def test_words_with_blanks_are_words(clients: Clients, line: str) -> None:
    words = ["-T", "-a", "192.0.2.1", "-D", "h.invalid", "--no-rc-file", "--no-save-args", *KEYS]
    if line.endswith("-k"):
        pattern = r"KEY_BASE64: \S{44}\nHMAC_KEY_BASE64: \S{88}\n"
        assert all(re.fullmatch(pattern, shown) for shown in clients.both(*line.split(), *words))
    else:
        assert all("192.0.2.1,ls -l, x\n" in shown for shown in clients.both("-C", "ls -l, x", *words))


def test_a_random_nat_port_is_told_in_the_same_words(clients: Clients) -> None:
    line = "-T -A tcp/22 -N 10.0.0.1 --nat-rand-port -a 192.0.2.1 -D h.invalid --no-rc-file --no-save-args"
    for shown in clients.both(*line.split(), *KEYS):
        match = re.search(r"\[\+\] Randomly assigned port '(\d+)' on: '\S+' will grant access to: '10.0.0.1,22'", shown)
        assert match
        assert 10_000 <= int(match[1]) < 65_535
        assert f"Message String: 192.0.2.1,tcp/{match[1]}\n" in shown


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "sha384", "sha512"])
def test_new_keys_are_as_long_as_fwknops(clients: Clients, kind: str) -> None:
    theirs, ours = clients.both("-k", "--hmac-digest-type", kind, "--no-rc-file", "--no-save-args")
    assert [len(line) for line in ours.splitlines()] == [len(line) for line in theirs.splitlines()]


LINES = (
    "-A tcp/22 -a 192.0.2.1 -f 30 -U bob -p 7 -P tcp",
    "-A tcp/22 -a 192.0.2.1 -N 10.0.0.1 --nat-port 55000",
    "-A tcp/22 -a 192.0.2.1 --nat-local -m sha512 -M ctr --hmac-digest-type sha1",
    "-A tcp/22 -a 192.0.2.1 --time-offset-minus 3600 -S 9 -r",
    "-A tcp/22 -a 192.0.2.1 -u me -P http -v",
    "-A tcp/22 -a 192.0.2.1 --resolve-url https://x.invalid/ip -w /usr/bin/wget --use-wget-user-agent",
)


def save(line: str) -> list[str]:
    return [*line.split(), "-T", "-D", "h.invalid", "-n", "mine", "--save-rc-stanza", "--no-save-args", *KEYS]


def stanza(path: Path) -> set[tuple[str, ...]]:
    """Return names and values; in these values upper and lower case are the same to both."""
    return {tuple(row.upper().split()) for row in path.read_text().splitlines() if row and row[0] not in "#["}


@pytest.mark.parametrize("line", LINES)
def test_the_stanza_that_ours_saves_is_the_one_that_fwknop_saves(clients: Clients, home: Path, line: str) -> None:
    theirs, ours = home / "theirs", home / "ours"
    theirs.touch(0o600)
    fwknop(*save(line), "--rc-file", str(theirs))
    clients.ours(*save(line), "--rc-file", str(ours))
    assert stanza(ours) == stanza(theirs)
    assert len(stanza(ours)) > 5
    assert ours.read_text().splitlines()[1] in theirs.read_text().splitlines()  # padding included


@pytest.mark.parametrize("writer", ["fwknop", "ours"])
@pytest.mark.parametrize("line", LINES)
def test_each_reads_the_stanza_that_the_other_saved(clients: Clients, home: Path, line: str, writer: str) -> None:
    path = home / "rc"
    path.touch(0o600)
    if writer == "ours":
        clients.ours(*save(line), "--rc-file", str(path))
    else:
        fwknop(*save(line), "--rc-file", str(path))
    shown = clients.both("-T", "-n", "mine", "--rc-file", str(path), "--no-save-args")
    theirs, ours = ({label: text for label, text in fields(each) if label in SAME} for each in shown)
    assert theirs == ours
    assert theirs["HMAC Type"] != "0 (None)"


def test_the_file_that_fwknop_creates_is_read(clients: Clients, home: Path) -> None:
    fwknop("-T", "-A", "tcp/22", "-a", "192.0.2.1", "-D", "h.invalid", "--no-save-args", *KEYS)
    created = (home / ".fwknoprc").read_bytes()
    assert b"[default]" in created
    line = "-T -A tcp/22 -a 192.0.2.1 -D h.invalid --save-rc-stanza --no-save-args"
    clients.ours(*line.split(), *KEYS)
    kept = (home / ".fwknoprc").read_bytes()
    assert kept.startswith(created)
    assert kept[len(created) :].decode().lstrip("\n").startswith("[h.invalid]\nACCESS                      tcp/22\n")
    assert "h.invalid" in fwknop("--stanza-list")


@pytest.mark.parametrize("writer", ["fwknop", "ours"])
def test_each_does_again_what_the_other_did_last(clients: Clients, home: Path, writer: str) -> None:
    rc_file = home / ".fwknoprc"
    rc_file.write_text("[default]\nKEY one\nHMAC_KEY two\n")
    rc_file.chmod(0o600)
    words = ["-T", "-A", "tcp/22", "-a", "192.0.2.1", "-D", "h.invalid", "-U", "bob", "-f", "30"]
    if writer == "ours":
        clients.ours(*words)
    else:
        fwknop(*words)
    assert (home / last_command.NAME).exists()
    theirs, ours = (dict(fields(shown)) for shown in clients.both("-l"))
    assert theirs["Message Type"] == ours["Message Type"] == "3 (Client timeout access msg)"
    assert theirs["Username"] == ours["Username"] == "bob"
    assert "--access tcp/22" in clients.ours("--show-last") or writer == "fwknop"


def test_keys_come_over_a_descriptor_as_with_fwknop(clients: Clients) -> None:
    words = ["-T", "-A", "tcp/22", "-a", "192.0.2.1", "-D", "h.invalid", "--no-rc-file", "--no-save-args"]
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\n")
    os.close(writing)
    shown = clients.ours(*words, "--use-hmac", "--fd", str(reading))
    os.close(reading)
    assert dict(fields(shown))["HMAC Type"] == "3 (SHA256)"
    theirs = subprocess.run(
        ["fwknop", *words, "--stdin"], input="one\n", capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert [label for label, _ in fields(shown)] == [label for label, _ in fields(theirs)]
