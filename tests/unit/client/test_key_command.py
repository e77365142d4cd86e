"""KEY_COMMAND: what the program prints becomes a key, or one sentence; its output is never repeated."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.client import cli, fwknoprc, key_command
from doorward.client.profile import Profile
from doorward.errors import ClientError, ConfigError
from doorward.values import Secret
from unit.client.test_section_file import saved

if TYPE_CHECKING:
    from collections.abc import Callable

    Program = Callable[[str], Path]

KEY, HMAC_KEY = "QUFBQUFBQUFBQUFBQUFBQQ==", "QkJCQkJCQkJCQkJCQkJCQg=="  # 16 times A, 16 times B
PAIR = f"echo KEY_BASE64: {KEY}; echo HMAC_KEY_BASE64: {HMAC_KEY}"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def made(script: str) -> Path:
        path = tmp_path / "printer"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        return path

    return made


def printed(path: Path, *words: str, seconds: float = 20) -> Profile:
    command = (str(path), *words)
    return key_command.with_printed_keys(Profile(key_command=command, hmac_key_command=command), seconds)


def complaint(profile: Profile, seconds: float = 20) -> str:
    with pytest.raises(ClientError) as caught:
        key_command.with_printed_keys(profile, seconds)
    assert KEY[:8] not in str(caught.value)
    return str(caught.value)


def test_each_name_takes_its_key_from_what_keys_generate_prints(program: Program) -> None:
    found = printed(program(PAIR))
    assert (found.key, found.hmac_key) == (Secret(b"A" * 16), Secret(b"B" * 16))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (KEY, b"A" * 16),
        (f"KEY_BASE64 {KEY}", b"A" * 16),
        (f"KEY_BASE64:{KEY}", b"A" * 16),
        ("KEY my own words", b"my own words"),
        ("KEY: my own words", b"my own words"),
    ],
)
def test_a_line_is_a_key_in_base64_or_has_its_name_before_it(program: Program, line: str, key: bytes) -> None:
    path = program(f"echo; echo '{line}'; echo")
    assert key_command.with_printed_keys(Profile(key_command=(str(path),))).key == Secret(key)


def test_a_program_that_both_names_name_runs_once(program: Program, tmp_path: Path) -> None:
    printed(program(f"echo run >> {tmp_path}/runs; {PAIR}"))
    assert (tmp_path / "runs").read_text() == "run\n"


def test_no_shell_reads_the_words_and_standard_input_is_empty(program: Program, tmp_path: Path) -> None:
    path = program(f'cat > {tmp_path}/input; printf "%s\\n" "$@" > {tmp_path}/words; {PAIR}')
    printed(path, "$(id)", "a b", "; true", "*")
    assert (tmp_path / "words").read_text().splitlines() == ["$(id)", "a b", "; true", "*"]
    assert (tmp_path / "input").read_text() == ""


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "prints nothing"),
        ("echo; echo", "prints nothing"),
        ("exit 3", "failed: exit code 3"),
        (f"{PAIR}; exit 1", "failed: exit code 1"),
        ("kill -9 $$", "failed: ended by signal 9"),
        (f"echo HMAC_KEY_BASE64 {KEY}", "prints no line of KEY_BASE64 or KEY, where there must be one"),
        (f"{PAIR}; echo KEY_BASE64 {KEY}", "prints 2 lines of KEY_BASE64 or KEY, where there must be one"),
        (f"echo {KEY}; echo {KEY}", "prints a line 1 that begins with none of HMAC_KEY, HMAC_KEY_BASE64, KEY"),
        ("echo not base64", "prints no good KEY_BASE64"),
        ("echo 'KEY_BASE64 !!!'", "prints no good KEY_BASE64"),
        (f"echo KEY {'x' * 40}", "prints no good KEY: the key has 40 bytes, more than 32"),
        ("printf '\\377\\376'", "prints what is no text"),
        ("printf '\\033[2J\\n'", "prints what is no text"),
        ("yes", "prints more than 4096 bytes"),
    ],
)
def test_what_is_no_key_is_one_sentence(program: Program, script: str, words: str) -> None:
    path = program(script)
    found = complaint(Profile(key_command=(str(path), "of web1")))
    assert found.startswith(f"KEY_COMMAND: {str(path)[:80]} ")  # a name is cut there
    assert words in found
    assert "of web1" not in found


def test_a_program_that_hangs_is_ended(program: Program, tmp_path: Path) -> None:
    path = program(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    assert complaint(Profile(hmac_key_command=(str(path),)), 1) == f"HMAC_KEY_COMMAND: {path} has not ended within 1 s"
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_program_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is no program, or is not in PATH" in complaint(Profile(key_command=("doorward-no-such-program",)))
    assert "is no program" in complaint(Profile(key_command=(str(tmp_path),)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ".")
    (tmp_path / "here").write_text("#!/bin/sh\n")
    (tmp_path / "here").chmod(0o755)
    assert "is found by a relative path" in complaint(Profile(key_command=("here",)))


def test_a_file_that_is_no_program_of_this_system_is_one_sentence(program: Program) -> None:
    path = program("")
    path.write_bytes(b"\x7fELF nonsense")
    assert "cannot be run" in complaint(Profile(key_command=(str(path),)))


def test_a_program_that_others_can_write_is_not_run(program: Program, tmp_path: Path) -> None:
    path = program(f"touch {tmp_path}/ran; {PAIR}")
    path.chmod(0o702)
    assert "which other users can write, so it is not run" in complaint(Profile(key_command=(str(path),)))
    path.chmod(0o700)
    tmp_path.chmod(0o777)
    assert "which other users can write" in complaint(Profile(key_command=(str(path),)))
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "which other users can write" in complaint(Profile(key_command=(str(link),)))
    assert not (tmp_path / "ran").exists()
    tmp_path.chmod(0o700)
    assert printed(link).key == Secret(b"A" * 16)
    assert (tmp_path / "ran").exists()


def rc(text: str) -> Profile:
    return fwknoprc.parse(text.encode(), "rc").profile("web1")


def test_the_file_takes_a_program_with_its_words() -> None:
    found = rc("[web1]\nKEY_COMMAND pass show 'my hosts/web1' # not a comment\nHMAC_KEY_COMMAND:\top read x;y\n")
    assert found.key_command == ("pass", "show", "my hosts/web1", "#", "not", "a", "comment")
    assert found.hmac_key_command == ("op", "read", "x;y")
    assert found.can_seal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("KEY_COMMAND 'pass", "is not quoted well"),
        ("KEY_COMMAND ''", "names no program"),
        ("KEY_COMMAND", "KEY_COMMAND has no value"),
        (f"KEY_COMMAND pass\nKEY_BASE64 {KEY}", "the section has this key already"),
        ("HMAC_KEY x\nHMAC_KEY_COMMAND pass", "the section has this key already"),
    ],
)
def test_a_line_that_is_wrong_is_a_mistake_of_the_file(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rc(f"[web1]\n{text}\n")


def test_a_sections_program_hides_the_defaults_key_and_the_other_way_round() -> None:
    found = rc(f"[default]\nKEY_BASE64 {KEY}\nHMAC_KEY_COMMAND pass\n[web1]\nKEY_COMMAND op\nHMAC_KEY x\n")
    assert (found.key, found.key_command) == (None, ("op",))
    assert (found.hmac_key, found.hmac_key_command) == (Secret(b"x"), None)


def test_a_file_that_others_can_write_must_name_no_program(tmp_path: Path) -> None:
    path = tmp_path / "rc"
    path.write_text("[web1]\nKEY_COMMAND pass\n")
    path.chmod(0o622)
    with pytest.raises(ConfigError, match="KEY_COMMAND: other users can write this file"):
        fwknoprc.load(path)
    path.chmod(0o600)
    assert fwknoprc.load(path).has("web1")


def test_save_rc_stanza_asks_before_it_replaces_a_program(tmp_path: Path) -> None:
    path = tmp_path / "rc"
    path.write_text("[web1]\nKEY_COMMAND pass show web1\n")
    path.chmod(0o600)
    asked: list[str] = []

    def refuse(question: str) -> bool:
        asked.append(question)
        return False

    text = saved(path, f"--key-base64-rijndael {KEY}", agree=refuse)
    assert "KEY_COMMAND pass show web1" in text
    assert "KEY_COMMAND" in asked[0]


def test_no_key_is_in_a_process_list_or_in_what_the_client_says(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = tmp_path / "seen"
    path = program(f"cat /proc/*/cmdline /proc/self/environ 2>/dev/null | tr '\\0' '\\n' > {seen}; {PAIR}")
    rc_file = tmp_path / ".fwknoprc"
    rc_file.write_text(f"[web1]\nSPA_SERVER 127.0.0.1\nACCESS tcp/22\nKEY_COMMAND {path}\nHMAC_KEY_COMMAND {path}\n")
    rc_file.chmod(0o600)
    assert cli.main(["-n", "web1", "-T", "-v", "-v", "-a", "192.0.2.1"]) == 0
    said = "".join(capsys.readouterr())
    assert "Final SPA Data" in said
    assert str(path) in seen.read_text()  # the list was read while the program ran
    assert not [key for key in (KEY, HMAC_KEY) if key[:12] in seen.read_text() + said]
    assert not [file for file in tmp_path.iterdir() if file != path and KEY in file.read_text()]


def test_standard_output_of_connect_is_not_the_programs(program: Program, tmp_path: Path) -> None:
    """Under ssh it is the connection."""
    path = program(f"{PAIR}; echo told >&2")
    rc_file = tmp_path / "rc"
    rc_file.write_text(f"[127.0.0.1]\nKEY_COMMAND {path}\nHMAC_KEY_COMMAND {path}\nSPA_SERVER_PORT 9\n")
    rc_file.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(b"hello")

        greeting = threading.Thread(target=greet)
        greeting.start()
        words = ["connect", "--rc-file", str(rc_file), "127.0.0.1", str(server.getsockname()[1])]
        done = subprocess.run(
            [sys.executable, "-m", "doorward", *words],
            env={**os.environ, "PYTHONPATH": str(Path(key_command.__file__).parents[2])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=60,
        )
        greeting.join()
    assert done.stdout == b"hello"
    assert b"told" in done.stderr
