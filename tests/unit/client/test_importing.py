"""`doorward import`: a section of ~/.fwknoprc, or one sentence and nothing written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.client import cli, fwknoprc
from doorward.client.profile import SourceRule
from unit.config.test_half import HALF, MANY, SECRETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.client.profile import Profile


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli, "TERMINAL", "/missing")
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command with a text on standard input; its exit code and all that it says, which has no key."""

    def call(*words: str, stdin: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = cli.main(["import", *words])
        said = "".join(capsys.readouterr())
        assert not [key for key in SECRETS if key[:8] in said]
        return code, said

    return call


def section(home: Path, name: str = "web1") -> Profile:
    return fwknoprc.load(home / ".fwknoprc").profile(name)


def test_a_line_on_standard_input_becomes_a_section_that_only_its_owner_reads(
    home: Path, run: Callable[..., tuple[int, str]]
) -> None:
    assert run("-", stdin=HALF.line + "\n") == (
        0,
        f"[web1] is in {home}/.fwknoprc: it knocks at 192.0.2.10 for tcp/22\n",
    )
    found = section(home)
    assert (found.server, found.access, found.key, found.hmac_key) == (
        HALF.server,
        HALF.access,
        HALF.key,
        HALF.hmac_key,
    )
    assert found.source is SourceRule.AUTO
    assert (home / ".fwknoprc").stat().st_mode & 0o777 == 0o600


def test_a_file_does_too_under_another_name_and_beside_what_is_there(
    home: Path, run: Callable[..., tuple[int, str]]
) -> None:
    (home / ".fwknoprc").write_text("# mine\n[db]\nKEY secret\n")
    (home / ".fwknoprc").chmod(0o600)
    given = home / "given"
    given.write_text(MANY.file)
    given.chmod(0o600)
    code, said = run(str(given), "-n", "gate")
    assert (code, "warning" in said) == (0, False)
    assert (home / ".fwknoprc").read_text().startswith("# mine\n[db]\nKEY secret\n\n[gate]\n")
    assert section(home, "gate").port == 4242
    given.chmod(0o644)
    assert "other users may read it (mode 0644)" in run(str(given), "-n", "other")[1]


def test_the_same_line_again_changes_nothing(home: Path, run: Callable[..., tuple[int, str]]) -> None:
    run("-", stdin=HALF.line)
    before = (home / ".fwknoprc").read_bytes(), (home / ".fwknoprc").stat().st_ino
    assert run("-", stdin=HALF.line) == (
        0,
        f"[web1] of {home}/.fwknoprc has these keys already: nothing was written\n",
    )
    assert ((home / ".fwknoprc").read_bytes(), (home / ".fwknoprc").stat().st_ino) == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("KEY secret", "has another key"),
        ("KEY_COMMAND pass", "has another key"),
        ("GPG_RECIPIENT x", "has another key"),
        ("ACCESS tcp/80", "has other settings"),
        ("what is this", "has other settings"),
    ],
)
def test_anothers_section_is_replaced_with_force_alone(
    home: Path, run: Callable[..., tuple[int, str]], line: str, words: str
) -> None:
    before = f"[web1]\n# about web1\n{line}\nENCRYPTION_MODE ctr\n[db]\nKEY other\n"
    (home / ".fwknoprc").write_text(before)
    code, said = run("-", stdin=HALF.line)
    assert code == 1
    assert f"[web1] of {home}/.fwknoprc {words}: --force replaces" in said
    assert (home / ".fwknoprc").read_text() == before
    assert run("-", "--force", stdin=HALF.line)[0] == 0
    text = (home / ".fwknoprc").read_text()
    assert "# about web1\n" in text
    assert line not in text
    assert "ENCRYPTION_MODE" not in text
    assert "[db]\nKEY other\n" in text
    assert section(home).key == HALF.key


def test_a_line_in_the_command_line_is_refused_since_others_can_see_it(
    home: Path, run: Callable[..., tuple[int, str]]
) -> None:
    for text in (HALF.line, HALF.line[5:], HALF.line.partition(" ")[0]):
        code, said = run(text)
        assert code == 1
        assert "all users of this machine can see a command line: nothing was written" in said
    assert not (home / ".fwknoprc").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "standard input: has no CHECK at its end"),
        (HALF.line[:150], "standard input: has no CHECK at its end: it was cut; copy all of it; nothing was written"),
        (HALF.line.replace("tcp/22", "tcp/23"), "is damaged"),
        (f"{HALF.line}\n{HALF.line}\n", "twice: give one line, once; nothing was written"),
        ("MECARD:N:Smith;;", "is no line of `doorward init`"),
        ("\udcff\x00", "is no line of `doorward init`"),
    ],
)
def test_what_is_no_line_is_a_sentence_and_nothing_is_written(
    home: Path, run: Callable[..., tuple[int, str]], text: str, words: str
) -> None:
    code, said = run("-", stdin=text.encode("utf-8", "surrogateescape").decode("latin-1"))
    assert code == 1
    assert words in said
    assert not (home / ".fwknoprc").exists()


def test_a_place_that_cannot_be_read_is_a_sentence(home: Path, run: Callable[..., tuple[int, str]]) -> None:
    assert run(str(home / "missing")) == (
        1,
        f"doorward: {home}/missing: cannot be read: No such file or directory\n",
    )
    assert "is no file" in run(str(home))[1]
    assert "cannot be read" in run("x\0")[1]
    os.mkfifo(home / "pipe")
    assert "is no file" in run(str(home / "pipe"))[1]


def test_a_section_that_no_file_can_have_is_refused(home: Path, run: Callable[..., tuple[int, str]]) -> None:
    for name in ("x]", "default", "a\nb", " x"):
        assert "is no name for a host's section" in run("-", "-n", name, stdin=HALF.line)[1]
    assert not (home / ".fwknoprc").exists()


def test_a_file_of_sections_with_mistakes_is_left_alone(home: Path, run: Callable[..., tuple[int, str]]) -> None:
    (home / ".fwknoprc").write_text("[web2\n")
    assert run("-", stdin=HALF.line)[0] == 3
    assert (home / ".fwknoprc").read_text() == "[web2\n"
    (home / ".fwknoprc").unlink()
    (home / ".fwknoprc").mkdir()
    assert run("-", stdin=HALF.line)[0] == 1


def test_a_closed_standard_input_is_a_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["import", "-"]) == 1
    assert "there is no standard input" in capsys.readouterr().err
    assert not (home / ".fwknoprc").exists()


def test_at_a_terminal_the_line_is_asked_for_and_not_shown(home: Path) -> None:
    ours, theirs = os.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "doorward", "import", "-"]
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        shown = b""
        while b"not shown): " not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, HALF.line.encode() + b"\n")
        assert process.wait() == 0
    shown += os.read(ours, 4096)
    os.close(ours)
    assert section(home).key == HALF.key
    assert not [key for key in SECRETS if key[:8].encode() in shown]
