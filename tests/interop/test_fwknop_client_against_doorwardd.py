"""Debian's fwknop client against doorwardd: real packets on a wire, a real door in the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from system import netns
from system.doorwardd import HMAC_KEY, KEY, doorwardd, is_open, listener, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

DIGESTS = ["md5", "sha1", "sha256", "sha384", "sha512", "sha3_256", "sha3_512"]
MODES = ["cbc", "ecb", "cfb", "ofb", "ctr"]


@pytest.fixture(scope="module")
def road() -> Iterator[tuple[Namespace, Namespace]]:
    with netns.network("host", "client") as (host, client):
        yield host, client


def knock(client: Namespace, host: Namespace, folder: Path, *arguments: str) -> None:
    rc_file = write(folder / "fwknoprc", f"[default]\n{KEY.replace(':', '')}\n{HMAC_KEY.replace(':', '')}\n")
    common = ("-D", host.ipv4, "-A", "tcp/22", "--rc-file", str(rc_file), "--no-save-args", "--use-hmac")
    client.run("fwknop", *common, *arguments, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}, stdin=-3)


def access(**settings: str) -> str:
    extra = "".join(f"{name} {value}\n" for name, value in settings.items())
    return f"SOURCE ANY\n{KEY}\n{HMAC_KEY}\nOPEN_PORTS tcp/22\n{extra}"


def is_opened_by(road: tuple[Namespace, Namespace], folder: Path, rules: str, *arguments: str) -> str:
    """Return the audit line of a knock that opened a door which was closed before."""
    host, client = road
    with listener(host), doorwardd(host, folder, rules) as daemon:
        host.nft("flush set inet doorward open4")
        assert not is_open(client, host.ipv4, within=0.3)
        knock(client, host, folder, *arguments)
        line = daemon.wait_for("verdict=")
        assert is_open(client, host.ipv4), "\n".join(daemon.lines)
    return line


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_packet_with_each_digest_opens_the_door(
    road: tuple[Namespace, Namespace], tmp_path: Path, digest: str
) -> None:
    assert "reason=granted" in is_opened_by(road, tmp_path, access(), "-a", "10.77.0.2", "-m", digest)


@pytest.mark.parametrize("hmac", DIGESTS)
def test_a_packet_with_each_hmac_opens_the_door(road: tuple[Namespace, Namespace], tmp_path: Path, hmac: str) -> None:
    rules = access(HMAC_DIGEST_TYPE=hmac)
    assert "reason=granted" in is_opened_by(road, tmp_path, rules, "-a", "10.77.0.2", "--hmac-digest-type", hmac)


@pytest.mark.parametrize("mode", MODES)
def test_a_packet_in_each_encryption_mode_opens_the_door(
    road: tuple[Namespace, Namespace], tmp_path: Path, mode: str
) -> None:
    rules = access(ENCRYPTION_MODE=mode)
    assert "reason=granted" in is_opened_by(road, tmp_path, rules, "-a", "10.77.0.2", "-M", mode.upper())


def test_a_client_timeout_becomes_the_window(road: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    assert " seconds=77" in is_opened_by(road, tmp_path, access(), "-a", "10.77.0.2", "-f", "77")


def test_the_packets_origin_can_be_asked_for(road: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    line = is_opened_by(road, tmp_path, access(), "-s")
    assert " source=10.77.0.2 " in line


def test_a_wrong_hmac_type_opens_nothing(road: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = road
    with listener(host), doorwardd(host, tmp_path, access(HMAC_DIGEST_TYPE="sha512")) as daemon:
        host.nft("flush set inet doorward open4")
        knock(client, host, tmp_path, "-a", "10.77.0.2")
        assert "reason=hmac" in daemon.wait_for("verdict=")
        assert not is_open(client, host.ipv4, within=0.3)
