from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest

from doorward.client import cli, getopt, last_command
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path

PLANTED = base64.b64encode(b"hunter2 hunter2 hunter2").decode()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli, "TERMINAL", "/missing")  # nobody is asked where a person runs the tests
    return tmp_path


def files(home: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in home.iterdir()}


@pytest.mark.parametrize("option", ["--key-rijndael", "--key-base64-rijndael", "--key-hmac", "--key-base64-hmac"])
@pytest.mark.parametrize("joined", [True, False])
def test_no_key_of_the_command_line_reaches_the_disk(
    home: Path, option: str, capsys: pytest.CaptureFixture[str], *, joined: bool
) -> None:
    key = [f"{option}={PLANTED}"] if joined else [option, PLANTED]
    other = ["--key-hmac", "other"] if "rijndael" in option else ["--key-rijndael", "other"]
    assert cli.main(["-T", "-A", "tcp/22", "-a", "192.0.2.1", *key, *other]) == 0
    capsys.readouterr()
    kept = files(home)
    assert list(kept) == [last_command.NAME]
    assert PLANTED.rstrip("=") not in kept[last_command.NAME]
    assert "other" not in kept[last_command.NAME]
    assert (home / last_command.NAME).stat().st_mode & 0o777 == 0o600
    (home / "planted").write_text(f"fwknop {option} {PLANTED}")  # the search would have found it
    assert any(PLANTED in text for text in files(home).values())


def test_the_last_command_is_shown_and_asks_for_its_keys(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-T", "-A", "tcp/22", "-a", "192.0.2.1", "-U", "bob smith", "--key-rijndael", PLANTED[:30], "--key-hmac=x"]
    assert cli.main(words) == 0
    assert cli.main(["--show-last"]) == 0
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown == (
        "Last fwknop client command line: fwknop --test --access tcp/22 --allow-ip 192.0.2.1"
        " --spoof-user 'bob smith' --ask-key --ask-hmac-key"
    )
    assert cli.main(["-l"]) == 1  # nobody is there to be asked
    assert "there is no terminal to ask at" in capsys.readouterr().err
    assert (home / last_command.NAME).exists()


def test_the_last_command_does_not_fall_back_to_another_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rc_file = home / ".fwknoprc"
    rc_file.write_text("[default]\nKEY another\nHMAC_KEY two\n")
    rc_file.chmod(0o600)
    assert cli.main(["-T", "-A", "tcp/22", "-a", "192.0.2.1", "--key-rijndael", "one"]) == 0
    assert cli.main(["-l"]) == 1
    assert "no terminal" in capsys.readouterr().err
    assert cli.main(["-T", "-A", "tcp/22", "-a", "192.0.2.1"]) == 0
    assert cli.main(["-l"]) == 0


def test_what_fwknop_kept_is_run_and_shown_without_its_keys(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = home / last_command.NAME
    kept.write_text(f"fwknop -T -A tcp/22 -a 192.0.2.1 -D h.invalid --key-base64-rijndael {PLANTED} \n")
    kept.chmod(0o600)
    assert cli.main(["--show-last"]) == 0
    assert PLANTED not in capsys.readouterr().out
    assert cli.main(["-l", "-v"]) == 0
    shown = capsys.readouterr().out
    assert PLANTED not in shown
    assert "Message String: 192.0.2.1,tcp/22" in shown


@pytest.mark.parametrize(
    "words", [["--no-save-args"], ["--no-home-dir"], ["--rc-file", "RC"]], ids=["option", "no home", "file"]
)
def test_whoever_wants_nothing_kept_has_nothing_kept(home: Path, words: list[str]) -> None:
    rc_file = home / "rc"
    rc_file.write_text("[default]\nNO_SAVE_ARGS Y\n")
    words = [str(rc_file) if word == "RC" else word for word in words]
    assert cli.main(["-T", "-A", "tcp/22", "-a", "192.0.2.1", "--key-rijndael", "x", *words]) == 0
    assert not (home / last_command.NAME).exists()
    assert cli.main(["-T", "-A", "tcp/22", "-a", "192.0.2.1", "--key-rijndael", "x"]) == 0
    assert (home / last_command.NAME).exists()


def test_another_file_can_be_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = home / "kept"
    assert cli.main(["-T", "-A", "tcp/22", "-a", "192.0.2.1", "--key-rijndael", "x", "-E", str(kept)]) == 0
    assert cli.main(["--show-last", "-E", str(kept), "--no-home-dir"]) == 0
    assert "--access tcp/22" in capsys.readouterr().out
    assert not (home / last_command.NAME).exists()


def test_a_command_line_that_cannot_be_kept_is_no_reason_not_to_knock(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-T", "-A", "tcp/22", "-a", "192.0.2.1", "--key-rijndael", "x", "-E", str(home / "missing" / "x")]
    assert cli.main(words) == 0
    assert "could not be kept" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_command_line_that_others_could_have_written_is_not_run(home: Path, mode: int) -> None:
    kept = home / last_command.NAME
    kept.write_text("fwknop -A tcp/22\n")
    kept.chmod(mode)
    with pytest.raises(ClientError, match="another user could have written"):
        last_command.load(kept)
    kept.chmod(0o600)
    assert last_command.load(kept) == getopt.read(["-A", "tcp/22"])


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_somebody_elses_command_line_is_not_run(home: Path) -> None:
    kept = home / last_command.NAME
    kept.write_text("fwknop -A tcp/22\n")
    kept.chmod(0o600)
    os.chown(kept, 65534, 65534)
    with pytest.raises(ClientError, match="another user"):
        last_command.load(kept)


@pytest.mark.parametrize("content", ["", "fwknop -A", "fwknop 'x", "fwknop --nonsense", "fwknop stray\n"])
def test_a_file_without_a_command_line_is_refused(home: Path, content: str) -> None:
    kept = home / last_command.NAME
    kept.write_text(content)
    kept.chmod(0o600)
    with pytest.raises(ClientError, match="holds no command line"):
        last_command.load(kept)
