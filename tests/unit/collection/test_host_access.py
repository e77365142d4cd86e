"""The clients of an access.conf, as the host lists them and takes them out: the program is run as on a host."""

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

host_access = plugin("plugin_utils._host_access")
key_text = plugin("plugin_utils._key_text")

OWN, ALICE, PHONE, NEW = ("doorward1 " + base64.b64encode(letter * 32).decode() for letter in (b"o", b"a", b"p", b"n"))
KEY, HMAC = base64.b64encode(b"k" * 32).decode(), base64.b64encode(b"h" * 64).decode()
FINGERPRINT = key_text.fingerprint(f"KEY_BASE64: {KEY}\nHMAC_KEY_BASE64: {HMAC}\n")
HEAD = "# Written by a role. SOURCE of nothing\n"
CONTROLLER = f"""
SOURCE ANY
CLIENT {OWN} controller
OPEN_PORTS tcp/22
"""
ALICES = f"""
SOURCE: ANY
CLIENT  {ALICE} alice;
CLIENT  {PHONE} alice-phone
OPEN_PORTS tcp/22, tcp/5432
# a comment with CLIENT {OWN} controller
"""
BUILD = f"""
SOURCE 192.0.2.0/24
NAME build
OPEN_PORTS tcp/22
KEY_BASE64 {KEY}
HMAC_KEY_BASE64: {HMAC}
REQUIRE_SOURCE_ADDRESS Y
"""
FILE = HEAD + CONTROLLER + ALICES + BUILD
REDACTED = FILE.replace(f"KEY_BASE64 {KEY}\n", f"# key {FINGERPRINT}\n").replace(f"HMAC_KEY_BASE64: {HMAC}\n", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("access.conf", FILE), ("access.redacted", REDACTED), ("doorwardd.conf", "VERBOSE 1;\n")):
        file = tmp_path / name
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, *words: str) -> Any:
    command = [sys.executable, *host_access.words(str(folder), *words)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return host_access.read(f"words of a tty\n{done.stdout}")


def test_each_client_is_listed_with_its_name_its_key_and_its_services(folder: Path) -> None:
    found = run(folder)
    assert [tuple(each) for each in found.clients] == [
        ("controller", OWN, ("tcp/22",)),
        ("alice", ALICE, ("tcp/22", "tcp/5432")),
        ("alice-phone", PHONE, ("tcp/22", "tcp/5432")),
        ("build", FINGERPRINT, ("tcp/22",)),
    ]
    assert (found.removed, found.elsewhere) == ((), ())
    assert (folder / "access.conf").read_text() == FILE, "nothing was written"


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        ("alice", FILE.replace(f"CLIENT  {ALICE} alice;\n", "")),
        (ALICE, FILE.replace(f"CLIENT  {ALICE} alice;\n", "")),
        ("build", HEAD + CONTROLLER + ALICES + "\n"),
        (FINGERPRINT, HEAD + CONTROLLER + ALICES + "\n"),
        ("nobody", FILE),
    ],
)
def test_a_client_is_taken_out_and_the_rest_stays_as_it_is(folder: Path, gone: str, text: str) -> None:
    before = run(folder).clients
    found = run(folder, gone)
    assert (folder / "access.conf").read_text() == text
    assert (folder / "access.conf").stat().st_mode & 0o777 == 0o600
    assert set(found.clients) | set(found.removed) == set(before)
    assert run(folder).clients == found.clients
    redacted = (folder / "access.redacted").read_text()
    assert FINGERPRINT not in redacted or gone not in {"build", FINGERPRINT}
    if text != FILE:
        assert redacted != REDACTED
    access.load(folder / "access.conf")


def test_a_stanza_goes_with_its_last_client(folder: Path) -> None:
    assert [each.name for each in run(folder, "alice", PHONE).clients] == ["controller", "build"]
    assert (folder / "access.conf").read_text() == HEAD + CONTROLLER + BUILD


def test_a_second_key_stands_beside_the_first_once(folder: Path) -> None:
    for _time in range(2):
        run(folder, host_access.NEW_KEY, OWN, NEW)
        text = FILE.replace(f"CLIENT {OWN} controller\n", f"CLIENT {OWN} controller\nCLIENT {NEW} controller\n", 1)
        assert (folder / "access.conf").read_text() == text
    found = access.load(folder / "access.conf").stanzas[0]
    assert [client.name for client in found.clients] == ["controller", "controller"]


@pytest.mark.parametrize("line", ["%include more.conf", "%include_folder people"])
def test_other_files_with_clients_are_named(folder: Path, line: str) -> None:
    (folder / "access.conf").write_text(f"{line}\n{FILE}")
    assert run(folder).elsewhere == (line.split()[1],)
    (folder / "doorwardd.conf").write_text("ACCESS_FOLDER /etc/doorward/people;\n")
    assert run(folder).elsewhere == ("/etc/doorward/people", line.split()[1])


ENDING = "\n# The stanzas of doorward.spa.access.\n%include_folder access.d\n"
DAVE = "doorward1 " + base64.b64encode(b"d" * 32).decode()
DAVES = f"# Written by doorward.spa.access.\nSOURCE ANY\nCLIENT {DAVE} dave\nNAME dave\nOPEN_PORTS tcp/22\n"


@pytest.fixture
def with_more(folder: Path) -> Path:
    """With stanzas of doorward.spa.access: their folder is included, and has another file that nobody reads."""
    (folder / "access.conf").write_text(FILE + ENDING)
    (folder / "access.d").mkdir()
    for name, text in (("build.conf", BUILD.lstrip()), ("dave.conf", DAVES), (".old.conf", "SOURCE ANY\n")):
        (folder / "access.d" / name).touch(mode=0o600)
        (folder / "access.d" / name).write_text(text)
    return folder


def test_the_files_of_the_action_access_are_searched_as_well(with_more: Path) -> None:
    found = run(with_more)
    assert [each.name for each in found.clients] == ["controller", "alice", "alice-phone", "build", "build", "dave"]
    assert found.elsewhere == ()
    assert len(access.load(with_more / "access.conf").stanzas) == 5
    (with_more / "access.conf").write_text(FILE)
    assert "dave" not in [each.name for each in run(with_more).clients], "nobody reads what nothing includes"


def test_a_client_is_taken_out_of_the_files_of_the_action_access_too(with_more: Path) -> None:
    assert [each.name for each in run(with_more, "build").removed] == ["build", "build"]
    assert sorted(file.name for file in (with_more / "access.d").iterdir()) == [".old.conf", "dave.conf"]
    assert (with_more / "access.conf").read_text() == HEAD + CONTROLLER + ALICES + "\n" + ENDING
    assert [each.name for each in run(with_more, DAVE).removed] == ["dave"]
    assert (with_more / "access.conf").read_text() == HEAD + CONTROLLER + ALICES + "\n"
    assert len(access.load(with_more / "access.conf").stanzas) == 2


def test_the_last_stanza_leaves_what_includes_the_folder(with_more: Path) -> None:
    (with_more / "access.conf").write_text(BUILD + ENDING)
    run(with_more, "build")
    assert (with_more / "access.conf").read_text() == "\n" + ENDING
    assert [each.name for each in run(with_more).clients] == ["dave"]
    (with_more / "access.conf").write_text(f"{BUILD}%include_folder /etc/doorward/access.d/\n")
    run(with_more, "build")
    assert (with_more / "access.conf").read_text() == "\n%include_folder /etc/doorward/access.d/\n"
    run(with_more)
    assert (with_more / "access.conf").read_text() == "\n%include_folder /etc/doorward/access.d/\n"


def test_a_second_key_stands_beside_the_first_in_the_files_of_the_action_access(with_more: Path) -> None:
    run(with_more, host_access.NEW_KEY, DAVE, NEW)
    text = DAVES.replace(f"CLIENT {DAVE} dave\n", f"CLIENT {DAVE} dave\nCLIENT {NEW} dave\n")
    assert (with_more / "access.d/dave.conf").read_text() == text


def test_lines_keep_their_ends(folder: Path) -> None:
    (folder / "access.conf").write_bytes((FILE.replace("\n", "\r\n")).encode())
    run(folder, "alice")
    text = FILE.replace(f"CLIENT  {ALICE} alice;\n", "").replace("\n", "\r\n")
    assert (folder / "access.conf").read_bytes() == text.encode()


@pytest.mark.parametrize("printed", ["", "Traceback", "{}", '{"clients": 1, "removed": [], "elsewhere": []}'])
def test_what_the_host_does_not_say_is_an_error(printed: str) -> None:
    with pytest.raises(ValueError, match="cannot say which clients"):
        host_access.read(printed)


def test_no_secret_is_printed(folder: Path) -> None:
    command = [sys.executable, *host_access.words(str(folder))[1:]]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert FINGERPRINT in shown
    assert KEY not in shown
    assert HMAC not in shown
