"""The program that a jump host runs, run here; the rest is in system/test_everywhere.py."""

from __future__ import annotations

import binascii
import ipaddress
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from doorward.client.jump import Ends, _lines, _source, remote_command
from doorward.client.profile import SourceRule
from doorward.errors import ClientError

if TYPE_CHECKING:
    from pathlib import Path

HERE, PUBLIC = (ipaddress.ip_address(text) for text in ("192.168.1.5", "9.9.9.9"))


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("programs", [["sh", "python3", "perl"], ["sh", "perl"]], ids=" ".join)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNSPEC])
def test_each_line_of_base64_becomes_a_datagram_and_the_ends_are_told(
    shell: str, programs: list[str], family: int, tmp_path: Path
) -> None:
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    for name in programs:
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind((host, 0))
        door.settimeout(10)
        command = remote_command(host, host, door.getsockname()[1], family)
        words = [f"/usr/bin/{shell}", "-c", command]
        lines = b"".join(map(binascii.b2a_base64, (b"abc", b" \n\0\xff")))
        done = subprocess.run(words, input=lines, check=True, capture_output=True, env={"PATH": str(tmp_path)})
        assert done.stdout.decode() == f"doorward-jump {host} {host}\n"
        assert [door.recv(100), door.recv(100)] == [b"abc", b" \n\0\xff"]


def test_a_host_that_refuses_the_first_datagram_gets_the_second() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    words = ["sh", "-c", remote_command("127.0.0.1", "127.0.0.1", port, socket.AF_INET)]
    done = subprocess.run(words, input=b"YWJj\nYWJj\nYWJj\n", check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_login_prints_before_is_passed_over_within_a_bound() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"Welcome\n\xff\ndoorward-")
    os.write(writing, b"jump a b\n")
    lines = _lines(reading, time.monotonic() + 5, time.monotonic)
    assert [next(lines) for _ in range(3)] == ["Welcome", "\ufffd", "doorward-jump a b"]
    os.close(writing)
    assert list(lines) == []
    os.close(reading)


@pytest.mark.parametrize(
    ("rule", "source"),
    [(None, HERE), (SourceRule.AUTO, HERE), (SourceRule.NAMED, HERE), (SourceRule.PACKET, None), (PUBLIC, PUBLIC)],
)
def test_the_jump_hosts_address_is_let_in_unless_another_is_named(rule: object, source: object) -> None:
    assert _source(rule, Ends(HERE, HERE)) == source  # type: ignore[arg-type]


def test_a_jump_host_behind_nat_is_let_in_by_the_packets_origin_or_told() -> None:
    assert _source(None, Ends(HERE, PUBLIC)) is None
    with pytest.raises(ClientError, match=r"192\.168\.1\.5\) is behind NAT"):
        _source(SourceRule.NAMED, Ends(HERE, PUBLIC))
    with pytest.raises(ClientError, match="says nothing about a jump host"):
        _source(SourceRule.RESOLVE, Ends(HERE, HERE))
