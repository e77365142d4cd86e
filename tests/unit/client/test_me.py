"""`doorward status` of a person: who am I, which hosts have I keys for, how am I seen, is the clock right."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from doorward import console, portable
from doorward.client import me, seen
from doorward.client.address import Endpoint, own_address
from doorward.linux import clock
from doorward.values import address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLOCK = clock.is_synchronised
KEY = "QUFBQUFBQUFBQUFBQUFBQQ=="
RC_FILE = f"""\
[default]
SPOOF_USER bob
[web1]
SPA_SERVER 192.0.2.10
ACCESS tcp/22,udp/53
KEY_BASE64 {KEY}
HMAC_KEY secretsecret
[db]
SPA_SERVER db.example.org
KEY_COMMAND pass show db
HMAC_KEY_COMMAND pass show db
[mail]
GPG_RECIPIENT CAFE
USE_GPG Y
[plain]
SPA_SERVER 192.0.2.11
KEY_FILE /etc/keys
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.delenv("SPOOF_USER", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(me, "is_synchronised", lambda: True)
    monkeypatch.setattr(me, "HOSTS_FILES", ())
    return tmp_path


@pytest.fixture
def rc_file(home: Path) -> Path:
    path = home / ".fwknoprc"
    path.write_text(RC_FILE)
    path.chmod(0o600)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*words: str) -> tuple[int, str]:
        code = console.main(["status", "--me", *words])
        said = "".join(capsys.readouterr())
        assert not [key for key in (KEY, "secretsecret") if key in said]
        return code, said

    return call


@pytest.mark.usefixtures("rc_file")
def test_it_names_the_user_the_hosts_with_their_kind_of_key_and_the_clock(run: Callable[..., tuple[int, str]]) -> None:
    code, said = run()
    assert code == 0
    assert said.splitlines()[1:] == [
        "[web1] knocks at 192.0.2.10 for tcp/22,udp/53: key in the file",
        "[db] knocks at db.example.org: key printed by pass",
        "[mail] knocks at the host that is dialled: key GnuPG, for CAFE, without an HMAC",
        "[plain] knocks at 192.0.2.11: key in /etc/keys, without an HMAC",
        "clock: kept right by a program",
    ]
    assert said.startswith("doorward ")
    assert ": user alice" in said


def test_a_machine_without_keys_is_not_well(home: Path, run: Callable[..., tuple[int, str]]) -> None:
    code, said = run()
    assert code == 1
    assert f"NOT WELL: there is no key in {home}/.fwknoprc: `doorward import -` takes" in said


def learned(home: Path, *entries: seen.Seen) -> None:
    for entry in entries:
        seen.learn(home / ".local/state/doorward/seen", entry)


def here(host: str) -> str:
    """The way to a host from this network, wherever the tests run."""
    there = address(bytes(map(int, host.split("."))))
    try:
        return seen.way(own_address(Endpoint(there, 62201)), there)
    except OSError:
        return "private,-,-"


@pytest.mark.usefixtures("rc_file")
def test_it_says_how_hosts_have_seen_this_machine(home: Path, run: Callable[..., tuple[int, str]]) -> None:
    now = int(time.time())
    outside = address(bytes([198, 51, 100, 7]))
    learned(
        home,
        seen.Seen("private,000000,-", "127.0.0.2", outside, now - 86400 * 3),
        seen.Seen("private,7f0000,00000000", "site", outside, now - 7200),
        seen.Seen(here("127.0.0.1"), "127.0.0.1", outside, now),
    )
    code, said = run()
    assert code == 0
    assert "127.0.0.1 saw this machine at 198.51.100.7 just now, from this network\n" in said
    assert "127.0.0.2 saw this machine at 198.51.100.7 3 d ago, from another network\n" in said
    assert "a site told 198.51.100.7 2 h ago\n" in said


@pytest.mark.usefixtures("rc_file")
def test_an_address_that_is_too_old_is_said_to_be(home: Path, run: Callable[..., tuple[int, str]]) -> None:
    file = home / ".local/state/doorward/seen"
    file.parent.mkdir(mode=0o700, parents=True)
    file.write_text(f"private,0a0000,- 192.0.2.1 198.51.100.7 {int(time.time()) - 86400 * 100}\n")
    file.chmod(0o600)
    assert "100 d ago, from another network, too old to be used" in run()[1]


@pytest.mark.usefixtures("rc_file")
def test_learned_addresses_that_cannot_be_used_are_not_well(home: Path, run: Callable[..., tuple[int, str]]) -> None:
    file = home / ".local/state/doorward/seen"
    file.parent.mkdir(mode=0o700, parents=True)
    file.write_text("nonsense\n")
    file.chmod(0o600)
    code, said = run()
    assert (code, "NOT WELL: 1 of the lines of" in said) == (1, True)
    file.chmod(0o666)
    assert "others can write it" in run()[1]


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (False, "clock: no program keeps it right, as far as the kernel knows; two minutes off, no knock opens\n"),
        (None, "clock: this system does not say whether a program keeps it right\n"),
    ],
)
@pytest.mark.usefixtures("rc_file")
def test_it_says_whether_the_clock_is_kept_right_which_alone_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str]], kept: object, words: str
) -> None:
    monkeypatch.setattr(me, "is_synchronised", lambda: kept)
    code, said = run()
    assert words in said
    assert code == 0


def test_a_clock_that_is_behind_its_own_files_is_not_well(rc_file: Path, run: Callable[..., tuple[int, str]]) -> None:
    os.utime(rc_file, (time.time() + 86400, time.time() + 86400))
    assert "NOT WELL: the clock is behind" in run()[1]


def test_this_kernel_says_whether_its_clock_is_kept_right() -> None:
    assert CLOCK() in {True, False}


def test_sections_with_mistakes_and_without_keys_are_not_well(
    rc_file: Path, run: Callable[..., tuple[int, str]]
) -> None:
    rc_file.write_text(RC_FILE + "[bad]\nACCESS nonsense\n[open]\nSPA_SERVER x\n")
    code, said = run()
    assert code == 1
    assert f"NOT WELL: {rc_file}:19: ACCESS" in said
    assert "NOT WELL: [open] has no key: it is dialled without a knock" in said
    rc_file.write_text("[bad\n")
    assert run()[0] == 3


def test_a_file_that_others_can_read_is_not_well(rc_file: Path, run: Callable[..., tuple[int, str]]) -> None:
    rc_file.chmod(0o644)
    code, said = run()
    assert (code, "NOT WELL" in said, "chmod 600 it" in said) == (1, True, True)


@pytest.mark.usefixtures("rc_file")
def test_json_says_the_same(run: Callable[..., tuple[int, str]]) -> None:
    found: dict[str, Any] = json.loads(run("--json")[1])
    assert found["user"] == "alice"
    assert [each["section"] for each in found["keys"]] == ["web1", "db", "mail", "plain"]
    assert (found["well"], found["doubts"], found["clock"]) == (True, [], True)


@pytest.mark.skipif(not portable.HOSTS_RUN_HERE, reason="a host is Linux (tests/other_systems.py)")
@pytest.mark.usefixtures("rc_file")
def test_on_a_host_it_is_never_taken_for_the_hosts_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert console.main(["status"]) == 0
    monkeypatch.setattr(me, "HOSTS_FILES", (tmp_path,))
    assert console.main(["status"]) == 4
    assert "this machine is a host too" in capsys.readouterr().err
    assert console.main(["status", "-c", "/etc/doorward/doorwardd.conf"]) == 4
    assert "must be run as root" in capsys.readouterr().err


def test_hosts_with_a_pinned_key_are_named(run: Callable[..., tuple[int, str]], home: Path) -> None:
    (home / ".fwknoprc").write_text("")
    (home / ".fwknoprc").chmod(0o600)
    assert "NOT WELL: there is no key in" in run()[1]
    (home / ".config/doorward").mkdir(parents=True)
    known = home / ".config/doorward/known_hosts"
    known.write_text("web1,192.0.2.7 doorward1 UEC0E7nbycvVrA3gSruId/CeTc9X5BXqP39r2s1edXE=\n")
    code, said = run()
    assert code == 0, said
    assert "web1,192.0.2.7: knocked at with the key that `doorward keys pin` keeps" in said
    assert json.loads(run("--json")[1])["pinned"] == ["web1,192.0.2.7"]
    known.write_text("web1\n")
    code, said = run()
    assert (code, f"{known}:1: the line is not NAME doorward1 BASE64" in said) == (3, True), said
