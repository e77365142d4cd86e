"""One stanza in a file of its own: compared, shown without secrets and written, as the program does on a host."""

from __future__ import annotations

import base64
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from doorward.config import access
from unit.collection_plugins import plugin

if TYPE_CHECKING:
    from pathlib import Path

host_stanza = plugin("plugin_utils._host_stanza")

OWN, ALICE = ("doorward1 " + base64.b64encode(letter * 32).decode() for letter in (b"o", b"a"))
PSK, OTHER = (base64.b64encode(letter * 32).decode() for letter in (b"p", b"q"))
BARE = base64.b32encode(b"s" * 15).decode()
FILE = f"# by hand\r\nSOURCE ANY\nCLIENT {OWN} controller\nOPEN_PORTS tcp/22"
ENDING = "\n# The stanzas of doorward.spa.access.\n%include_folder access.d\n"
STANZA = f"""{host_stanza.HEAD}SOURCE ANY
CLIENT {ALICE} alice
NAME alice
OPEN_PORTS tcp/22
PSK_BASE64 {PSK}
COMMANDS restart=/usr/bin/systemctl restart secret-unit
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "access.conf").touch(mode=0o600)
    (tmp_path / "access.conf").write_bytes(FILE.encode())
    return tmp_path


def run(folder: Path, name: str = "alice", text: str = STANZA, *flags: str) -> Any:
    wanted = folder / "wanted"
    wanted.write_text(text)
    command = [sys.executable, *host_stanza.words(str(folder), name, str(wanted) if text else "", *flags)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not [secret for secret in (PSK, OTHER, BARE, "secret-unit") if secret in done.stdout]
    return host_stanza.read(f"words of a tty\n{done.stdout}")


def test_a_stanza_is_written_and_the_other_file_gets_a_line_at_its_end(folder: Path) -> None:
    assert run(folder).changed
    assert not (folder / "access.d").exists(), "nothing is written without being asked"
    assert run(folder, "alice", STANZA, host_stanza.WRITE).changed
    assert (folder / "access.d/alice.conf").read_text() == STANZA
    assert (folder / "access.d/alice.conf").stat().st_mode & 0o777 == 0o600
    assert (folder / "access.d").stat().st_mode & 0o777 == 0o700
    assert (folder / "access.conf").read_bytes() == f"{FILE}\n{ENDING}".encode()
    names = [each.clients[0].name for each in access.load(folder / "access.conf").stanzas]
    assert names == ["controller", "alice"]
    assert not run(folder).changed


def test_the_last_stanza_takes_the_line_with_it(folder: Path) -> None:
    for name in ("alice", "bob"):
        run(folder, name, STANZA.replace("alice", name), host_stanza.WRITE)
    found = run(folder, "bob", "", host_stanza.WRITE)
    assert (found.changed, found.after) == (True, "")
    assert (folder / "access.conf").read_bytes() == f"{FILE}\n{ENDING}".encode()
    run(folder, "alice", "", host_stanza.WRITE)
    assert (folder / "access.conf").read_bytes() == f"{FILE}\n".encode()
    assert not list((folder / "access.d").iterdir())
    assert not run(folder, "alice", "", host_stanza.WRITE).changed


def test_a_stanza_that_nothing_includes_is_a_change(folder: Path) -> None:
    run(folder, "alice", STANZA, host_stanza.WRITE)
    (folder / "access.conf").write_text(FILE)
    assert run(folder).changed
    (folder / "access.conf").write_text(f"{FILE}\n%include_folder /etc/doorward/access.d\n")
    assert not run(folder).changed


def test_values_of_secrets_and_of_what_is_not_known_are_hidden_and_new_ones_are_marked(folder: Path) -> None:
    strange = STANZA + f"# {OTHER}\n{OTHER}\n{BARE}\n"
    run(folder, "alice", strange, host_stanza.WRITE)
    found = run(folder, "alice", STANZA.replace(PSK, OTHER).replace("tcp/22", "tcp/23"))
    shown = f"""{host_stanza.HEAD}SOURCE ANY
CLIENT {ALICE} alice
NAME alice
OPEN_PORTS tcp/22
PSK_BASE64              (hidden)
COMMANDS restart        (hidden)
#                       (hidden)
#                       (hidden)
#                       (hidden)
"""
    assert found.before == shown
    assert "\nOPEN_PORTS tcp/23\nPSK_BASE64              (hidden, new)\n" in found.after
    assert "COMMANDS restart        (hidden)\n" in found.after


def test_another_stanza_of_the_name_is_found_with_its_place(folder: Path) -> None:
    assert run(folder, "controller").others == ("/etc/doorward/access.conf:2",)
    run(folder, "alice", STANZA.replace("NAME alice", "NAME phone"), host_stanza.WRITE)
    assert run(folder, "phone").others == ("/etc/doorward/access.d/alice.conf:2",)
    assert run(folder, "alice").others == ()


def test_a_host_that_reads_other_files_says_so(folder: Path) -> None:
    assert (run(folder).elsewhere, run(folder).lacks) == ((), False)
    (folder / "doorwardd.conf").write_text("ACCESS_FOLDER /etc/doorward/people;\n")
    assert run(folder).elsewhere == ("/etc/doorward/people",)
    (folder / "access.conf").unlink()
    assert run(folder).lacks


@pytest.mark.parametrize("printed", ["", "Traceback", "{}", '{"changed": true, "elsewhere": 1, "others": []}'])
def test_what_the_host_does_not_say_is_an_error(printed: str) -> None:
    with pytest.raises(ValueError, match="cannot say which stanzas"):
        host_stanza.read(printed)
