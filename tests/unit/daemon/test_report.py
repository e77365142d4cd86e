"""`doorwardd check --report`: lines about this host, and the keys as fingerprints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from doorward.crypto import fingerprint
from doorward.daemon import cli
from doorward.daemon.report import confined
from doorward.host import sshd
from doorward.linux.confinement import Label
from doorward.values import Secret

if TYPE_CHECKING:
    from pathlib import Path

ACCESS = """\
SOURCE ANY
NAME laptop
KEY abcsecret
HMAC_KEY defsecret
OPEN_PORTS tcp/22
REQUIRE_SOURCE_ADDRESS Y
"""


def lines(folder: Path, capsys: pytest.CaptureFixture[str], access: str = ACCESS, *words: str) -> dict[str, list[str]]:
    """The lines by their topic."""
    for name, text in (("d.conf", ""), ("access.conf", access)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    files = ["-c", str(folder / "d.conf"), "-a", str(folder / "access.conf"), "-r", str(folder)]
    assert cli.main(["check", *files, *words]) == bool(words)  # the daemon does not run
    found: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        match = re.match(r"(ok|no|\?) +(\w+) ", line)
        if match:
            found.setdefault(match[2], []).append(line)
    return found


def test_each_thing_that_knocks_need_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(tmp_path, capsys, ACCESS, "--report")
    assert {"files", "daemon", "table", "sshd", "clock", "key"} <= set(found)
    assert found["daemon"] == [f"no  daemon  does not run, by {tmp_path}/doorwardd.pid  [systemctl start doorwardd]"]
    assert lines(tmp_path, capsys) == {}


def test_a_key_is_told_by_its_fingerprint_and_never_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = lines(tmp_path, capsys, ACCESS, "--report")["key"]
    told = fingerprint.words(Secret(b"abcsecret"), Secret(b"defsecret"))
    assert line.startswith(f"ok  key     stanza 1 (laptop): {told}  [")
    assert "secret" not in line


def test_a_stanza_without_an_hmac_key_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = lines(tmp_path, capsys, ACCESS.replace("HMAC_KEY defsecret\n", ""), "--report")["key"]
    assert line.startswith("?   key")
    assert "no HMAC key" in line


def test_knocks_without_keys_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    access = (
        "SOURCE ANY\nSEQUENCE tcp/7000 udp/8000 tcp/9000\nOPEN_PORTS tcp/22\n"
        "SOURCE ANY\nNAME camera\nMAGIC icmp\nHMAC_KEY correct-horse-battery\nOPEN_PORTS tcp/22\n"
    )
    sequence, magic = lines(tmp_path, capsys, access, "--report")["key"]
    assert sequence.startswith("?   key     stanza 1: a sequence of ports, which whoever sees it can send")
    assert magic.startswith("ok  key     stanza 2 (camera): a password of 21 bytes, for magic packets")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("OPEN_PORTS tcp/22", "no  sshd    no stanza opens tcp/2201"),
        ("OPEN_PORTS tcp/2201", "ok  sshd    tcp/2201 is opened by stanza 1 (laptop)"),
        ("", "ok  sshd    tcp/2201 is opened by stanza 1 (laptop)"),
        ("RESTRICT_PORTS tcp/2201", "no  sshd    no stanza opens tcp/2201"),
        ("OPEN_PORTS tcp/22\nRESTRICT_PORTS tcp/2201", "no  sshd    no stanza opens tcp/2201"),
    ],
)
def test_the_ports_of_sshd_are_covered_by_a_stanza_or_not(
    rules: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sshd"
    program.write_text("#!/bin/sh\necho port 2201\necho addressfamily any\n")
    program.chmod(0o755)
    monkeypatch.setattr(sshd, "_FOLDERS", str(tmp_path))
    (line,) = lines(tmp_path, capsys, ACCESS.replace("OPEN_PORTS tcp/22", rules), "--report")["sshd"]
    assert line.startswith(told)


def test_a_host_without_sshd_says_that_its_port_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshd, "_FOLDERS", str(tmp_path))
    assert lines(tmp_path, capsys, ACCESS, "--report")["sshd"][0].startswith("?   sshd")


@pytest.mark.parametrize(
    ("modules", "labels", "told"),
    [
        ((), (), "?   confine this kernel has neither AppArmor nor SELinux in force: no profile can be  ["),
        (
            ("AppArmor",),
            (Label("AppArmor", "doorward-listener", is_enforced=True),),
            "ok  confine AppArmor has the listener in doorward-listener, enforced",
        ),
        (
            ("AppArmor",),
            (Label("AppArmor", "doorward-listener", is_enforced=False),),
            "?   confine AppArmor has the listener in doorward-listener, which forbids nothing  [aa-enforce /etc/",
        ),
        (("SELinux",), (), "?   confine SELinux leaves the listener unconfined  [semodule -l]"),
    ],
)
def test_what_confines_the_listener_is_told(modules: tuple[str, ...], labels: tuple[Label, ...], told: str) -> None:
    (line,) = confined(modules, labels)
    assert str(line).startswith(told)
