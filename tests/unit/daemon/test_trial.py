"""What `doorwardd check` tries of a start: keyrings, and the files that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.daemon import cli
from gnupg_keys import PASSPHRASE, keyrings
from unit.daemon.test_check import ACCESS, files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gnupg_keys import Keyrings

__all__ = ["files"]


@pytest.fixture(scope="module")
def rings() -> Iterator[Keyrings]:
    with keyrings() as made:
        yield made


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("GPG_DECRYPT_ID {host}\nGPG_ALLOW_NO_PW Y", ""),
        ("GPG_DECRYPT_ID {locked}\nGPG_DECRYPT_PW " + PASSPHRASE, ""),
        (
            "GPG_DECRYPT_ID {host}, {locked}\nGPG_ALLOW_NO_PW Y",
            ":1: GPG_DECRYPT_ID {host}, {locked}: gpg has no secret key",
        ),
        ("GPG_DECRYPT_ID {alice}\nGPG_ALLOW_NO_PW Y", ":1: GPG_DECRYPT_ID {alice}: gpg has no secret key"),
        ("GPG_DECRYPT_ID {locked}\nGPG_DECRYPT_PW wrong", ":1: GPG_DECRYPT_ID {locked}: the passphrase does not open"),
        (
            "GPG_DECRYPT_ID {host}\nGPG_ALLOW_NO_PW Y\nGPG_EXE /bin/false",
            ":1: GPG_DECRYPT_ID {host}: /bin/false cannot be",
        ),
    ],
)
def test_a_keyring_that_the_start_cannot_use_is_a_problem(
    files: list[str], rings: Keyrings, lines: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {
        "host": rings.fingerprints["host"],
        "locked": rings.fingerprints["host-locked"],
        "alice": rings.fingerprints["alice"],
    }
    signer = f"GPG_HOME_DIR {rings.host}\nGPG_FINGERPRINT_ID {names['alice']}\nHMAC_KEY def\n"
    with open(files[3], "w") as file:  # noqa: PTH123  a name on a command line
        file.write(f"SOURCE ANY\nOPEN_PORTS tcp/22\n{signer}{lines.format(**names)}\n")
    for words in (files, files[2:]):
        assert cli.main(["check", *words]) == bool(problem)
        said = capsys.readouterr().err
        assert f"{files[3]}{problem.format(**names)}" in said if problem else "GPG" not in said


def test_signers_that_would_be_refused_are_warnings(
    files: list[str], rings: Keyrings, capsys: pytest.CaptureFixture[str]
) -> None:
    signer = rings.fingerprints["stranger"]
    keyring = f"GPG_HOME_DIR {rings.host}\nGPG_DECRYPT_ID {rings.fingerprints['host']}\nGPG_ALLOW_NO_PW Y\n"
    with open(files[3], "w") as file:  # noqa: PTH123  as above
        file.write(f"{ACCESS}{keyring}GPG_FINGERPRINT_ID {signer}\n")
    assert cli.main(["check", *files]) == 0
    assert f"{files[3]}:1: GPG_FINGERPRINT_ID {signer}: its key is not in the keyring" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("DIGEST_DB_FILE {folder}/digest.cache", "{folder}/digest.cache: no replay store of doorward (DIGEST_DB_FILE)"),
        ("AUDIT_FILE {folder}/none/audit.log", "{folder}/none/audit.log: AUDIT_FILE cannot be opened: No such file"),
        ("AUDIT_FILE {folder}/link", "{folder}/link: AUDIT_FILE cannot be opened: Too many levels"),
        ("DIGEST_DB_FILE {folder}/new.db\nAUDIT_FILE {folder}/digest.cache", ""),
    ],
)
def test_a_file_that_the_start_cannot_use_is_a_problem(
    files: list[str], tmp_path: Path, settings: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "digest.cache").write_text("# <digest> <proto> <src_ip> <src_port> <dst_ip> <dst_port> <time>\n")
    (tmp_path / "link").symlink_to(tmp_path / "digest.cache")
    (tmp_path / "d.conf").write_text(settings.format(folder=tmp_path) + "\n")
    before = sorted(tmp_path.iterdir())
    assert cli.main(["check", *files]) == bool(problem)
    assert problem.format(folder=tmp_path) in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_capture_file_that_is_not_there_is_a_problem(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", *files, "--pcap-file", "/none"]) == 1
    assert "/none: no regular file" in capsys.readouterr().err
