"""What the client says when it cannot: what was looked for, where, and what helps."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from doorward.client import cli

if TYPE_CHECKING:
    from pathlib import Path

KNOCK = ["-A", "tcp/22", "-T", "-a", "192.0.2.1"]
NOBODY = "and there is no terminal to ask at; "
IN_DEFAULT = "[default] of RC has none, "
IN_BOTH = "[web1] and [default] of RC have none, "
GENERATE = " (`doorward keys generate` makes new ones)"
FILE = "name a file of lines HOST: KEY with "


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli, "TERMINAL", "/missing")  # nobody is asked where a person runs the tests
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what a command that fails says."""
    assert cli.main(list(words)) == 1
    return capsys.readouterr().err.removeprefix("doorward: ").removesuffix("\n")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ("[web2]\n", "-D web1", f"{IN_DEFAULT}{NOBODY}write KEY_BASE64 into [default]{GENERATE}, or {FILE}-G"),
        ("[web1]\nKEY x\n", "-D web1", f"{IN_DEFAULT}{NOBODY}that file has a section [web1]: read it with -n web1"),
        ("[web1]\n", "-n web1", f"{IN_BOTH}{NOBODY}write KEY_BASE64 into [web1]{GENERATE}, or {FILE}-G"),
        ("[default]\nKEY x\n", "--no-rc-file", f"no file was read, {NOBODY}{FILE}-G"),
        ("[default]\nKEY x\n", "--no-home-dir", f"no file was read, {NOBODY}{FILE}-G"),
        (
            "[default]\nKEY x\n",
            "--ask-key",
            f"--ask-key asks for it, {NOBODY}pass it with --fd or --stdin",
        ),
    ],
)
def test_a_key_that_is_missing_is_told_with_where_it_was_looked_for_and_what_helps(
    text: str, words: str, told: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(home / ".fwknoprc", text)
    assert said(capsys, *KNOCK, *words.split()) == f"no encryption key: {told.replace('RC', str(path))}"


def test_the_file_that_is_named_is_the_one_that_was_looked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = f"no encryption key: there is no {home}/.fwknoprc, {NOBODY}write KEY_BASE64 into it{GENERATE}, or {FILE}-G"
    assert said(capsys, *KNOCK) == told
    path = write(home / "other", "[default]\n")
    assert f"[default] of {path} has none" in said(capsys, *KNOCK, "--rc-file", str(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[web1]\nKEY x\nUSE_HMAC Y\n",
            f"HMAC key: {IN_BOTH}{NOBODY}write HMAC_KEY_BASE64 into [web1]{GENERATE}, or {FILE}--get-hmac-key",
        ),
        (
            "[web1]\nUSE_GPG Y\nGPG_RECIPIENT a\nGPG_SIGNER b\n",
            (
                f"passphrase for signing: {IN_BOTH}{NOBODY}write GPG_SIGNING_PW_BASE64 or USE_GPG_AGENT Y into [web1], "
                "or leave it to gpg-agent with --gpg-agent"
            ),
        ),
    ],
    ids=["HMAC", "GnuPG"],
)
def test_the_key_that_is_named_is_the_one_that_is_missing(
    text: str, told: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(home / ".fwknoprc", text)
    assert said(capsys, *KNOCK, "-n", "web1") == f"no {told.replace('RC', str(path))}"


def test_a_person_who_types_nothing_is_told_which_key_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(prompt: str) -> str:
        raise EOFError(prompt)

    monkeypatch.setattr(cli, "TERMINAL", os.devnull)
    monkeypatch.setattr("getpass.getpass", end)
    write(home / ".fwknoprc", "[default]\nKEY x\n")
    assert said(capsys, *KNOCK, "--ask-hmac-key") == (
        "no HMAC key: --ask-hmac-key asks for it, and nothing was typed; pass it with --fd or --stdin"
    )


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        (
            "[web1]\nKEY x\nUSE_HMAC Y\n",
            "-n web1",
            (
                f"127.0.0.1 port 1: no HMAC key: {IN_BOTH}and `doorward connect` asks no questions; "
                f"write HMAC_KEY_BASE64 into [web1]{GENERATE}"
            ),
        ),
        (
            "[web1]\nKEY x\n",
            "-v",
            "127.0.0.1: dialling without a knock: no encryption key to knock with: [default] of RC has none",
        ),
        (
            "[web1]\nUSE_GPG Y\n",
            "-v -n web1",
            "127.0.0.1: dialling without a knock: no GPG_RECIPIENT to knock with: [web1] and [default] of RC have none",
        ),
    ],
    ids=["HMAC", "no section", "GnuPG"],
)
def test_connect_says_which_key_it_lacks_and_where_it_looked(
    text: str, words: str, told: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(home / ".fwknoprc", text)
    assert said(capsys, "connect", *words.split(), "127.0.0.1", "1").splitlines()[0] == told.replace("RC", str(path))


def test_a_packet_that_cannot_be_saved_is_told_with_the_reason(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home / ".fwknoprc", "[default]\nKEY x\nHMAC_KEY y\n")
    told = "the packet cannot be saved: No such file or directory"
    assert said(capsys, *KNOCK, "-B", "/missing/x") == f"/missing/x: {told}"
    (home / "link").symlink_to("target")
    told = "the packet cannot be saved: it is a link, and links are not followed"
    assert said(capsys, *KNOCK, "-B", f"{home}/link") == f"{home}/link: {told}"


def test_a_knock_that_does_not_fit_the_format_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home / ".fwknoprc", "[default]\nKEY x\nHMAC_KEY y\n")
    told = said(capsys, "-T", "-a", "192.0.2.1", "-C", "x" * 300)
    assert told == f"the knock for '192.0.2.1,{'x' * 50}' cannot be made: the message is longer than 255 bytes"


@pytest.fixture
def closed(home: Path) -> int:
    """Return a port of the loopback at which nobody listens, and have keys to knock with."""
    write(home / ".fwknoprc", "[default]\nKEY x\nHMAC_KEY y\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("carrier", ["tcp", "http"])
def test_a_refusal_is_told_with_host_and_port(carrier: str, closed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "-A", "tcp/22", "-4", "-D", "localhost", "-p", str(closed), "-P", carrier) == (
        f"localhost (127.0.0.1) port {closed} over {carrier}: Connection refused; "
        f"-P {carrier} needs a server there (ENABLE_TCP_SERVER Y on the host)"
    )


def test_a_proxys_refusal_names_the_proxy(closed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "-A", "tcp/22", "-s", "-4", "-D", "192.0.2.1", "-H", f"localhost:{closed}") == (
        f"the proxy localhost (127.0.0.1) port {closed} over http: Connection refused"
    )


def test_a_source_port_that_is_taken_is_told(closed: int, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", closed))
        assert said(capsys, "-A", "tcp/22", "-D", "127.0.0.1", "-S", str(closed)) == (
            f"127.0.0.1 port 62201 over udp: this machine's port {closed} (-S): Address already in use"
        )
