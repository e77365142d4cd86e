"""The record of what was granted to whom: bounded, for root alone, and never another's file."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from doorward.record import granted
from doorward.record.granted import BEFORE, BYTES_MAX, FILE, Granted
from doorward.values import Grant, Nat, Service

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.125
SOURCE = ipaddress.ip_address("192.0.2.7")
SSH, WEB = Service.parse("tcp/22"), Service.parse("udp/443")
GRANTS = {
    "two services": Grant(SOURCE, (SSH, WEB), 30, name="laptop"),
    "no name": Grant(ipaddress.ip_address("2001:db8::7"), (SSH,), 30),
    "a network": Grant(ipaddress.ip_address("192.0.2.0"), (SSH,), 30, name="a@b", prefix=24),
    "a ghost service": Grant(SOURCE, (SSH,), 30, Nat(None, 2222)),
    "everything": Grant(SOURCE, (SSH,), 30, Nat.to_everywhere(4)),
}


@pytest.mark.parametrize("grant", GRANTS.values(), ids=GRANTS)
def test_what_is_recorded_can_be_read(tmp_path: Path, grant: Grant) -> None:
    entries = list(Granted.of(grant, NOW))
    granted.append(tmp_path, entries)
    assert granted.read(tmp_path) == entries
    assert {(one.begun, one.ended, one.name) for one in entries} == {(NOW, NOW + 30, grant.name)}
    assert {one.service for one in entries} == ({None} if grant.nat and grant.nat.everything else set(grant.services))
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_it_stays_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    (entry,) = Granted.of(GRANTS["no name"], 0)
    last = 0
    while not (tmp_path / BEFORE).exists() or last % 5000:
        last += 1
        granted.append(tmp_path, [replace(entry, begun=float(last))] * 10)
    held = granted.read(tmp_path)
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) < 2 * BYTES_MAX + 10_000
    assert held[-1].begun == last
    assert [one.begun for one in held] == sorted(one.begun for one in held)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1 2 192.0.2.7/32 tcp/22 - laptop",
        "1 2 192.0.2.7/32 tcp/22 - - laptop more",
        "x 2 192.0.2.7/32 tcp/22 - - laptop",
        "1 2 192.0.2.7/24 tcp/22 - - laptop",
        "1 2 192.0.2.7/32 tcp/99999 - - laptop",
        "1 2 192.0.2.7/32 tcp/22 - x laptop",
        "1 2 192.0.2.7/32 tcp/22 x - laptop",
        '1 2 192.0.2.7/32 tcp/22 - - "laptop"',
        "\xff\xff",
    ],
)
def test_a_broken_line_is_left_out_and_the_others_are_read(tmp_path: Path, line: str) -> None:
    (entry,) = Granted.of(GRANTS["no name"], NOW)
    granted.append(tmp_path, [entry])
    with (tmp_path / FILE).open("ab") as stream:
        stream.write(line.encode("latin-1") + b"\n")
    granted.append(tmp_path, [entry])
    assert granted.read(tmp_path) == [entry, entry]


def test_without_a_record_there_is_nothing(tmp_path: Path) -> None:
    assert granted.read(tmp_path) == []
    assert granted.read(tmp_path / "missing") == []
    with pytest.raises(FileNotFoundError):
        granted.append(tmp_path / "missing", Granted.of(GRANTS["no name"], NOW))


def test_another_users_file_or_a_link_is_neither_written_nor_read(tmp_path: Path) -> None:
    entries = list(Granted.of(GRANTS["no name"], NOW))
    theirs, file = tmp_path / "theirs", tmp_path / FILE
    granted.append(tmp_path, entries)
    file.rename(theirs)
    content = theirs.read_bytes()
    for plant in (file.symlink_to, file.hardlink_to):
        plant(theirs)
        with pytest.raises(OSError, match=r"link|name"):
            granted.append(tmp_path, entries)
        assert granted.read(tmp_path) == []
        file.unlink()
    file.write_bytes(content)
    os.chown(file, 1234, 1234)
    with pytest.raises(PermissionError, match="another user's"):
        granted.append(tmp_path, entries)
    assert granted.read(tmp_path) == []
    assert theirs.read_bytes() == file.read_bytes() == content
