"""`doorwardd check` wherever it stands on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.daemon import cli

if TYPE_CHECKING:
    from pathlib import Path

ACCESS = "SOURCE ANY\nKEY abc\nHMAC_KEY def\nOPEN_PORTS tcp/22\n"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "d.conf").write_text("")
    (tmp_path / "access.conf").write_text(ACCESS)
    (tmp_path / "access.conf").chmod(0o600)
    return ["-c", str(tmp_path / "d.conf"), "-a", str(tmp_path / "access.conf")]


def test_options_may_stand_before_check_as_behind_it(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["check", *files], [*files, "check"]):
        assert cli.main(words) == 0
        assert "Configs parsed, exiting. 1 stanzas." in capsys.readouterr().out


def test_explain_behind_options_is_told_to_stand_first(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*files, "explain"])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("doorwardd: error: write explain first")


@pytest.mark.parametrize("words", [["chekc"], ["check", "check"], ["--nonsense", "check"], ["-f", "check", "x"]])
def test_what_is_no_command_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_the_help_of_check_describes_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["check", "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: doorwardd check [-c FILE]")
    assert "path:line: problem" in said
