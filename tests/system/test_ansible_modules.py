"""The actions doorward.spa.grant and doorward.spa.info, run by ansible on a host with a real daemon and table."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doorward import archive
from system.doorwardd import doorwardd, environment, eventually, files, is_open, listener, write
from system.netns import network
from unit.collection_plugins import COLLECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

# Where the role installs them: in a mount namespace of its own, over the folders of this machine.
OVER = """
for folder in bin sbin; do
    room="$0/room-$folder"
    mkdir -p "$0/$folder" "$room"
    mount -t tmpfs none "$room"
    mkdir "$room/up" "$room/work"
    cp -a "$0/$folder/." "$room/up"
    mount -t overlay none -o "lowerdir=/usr/$folder,upperdir=$room/up,workdir=$room/work" "/usr/$folder"
done
exec "$@"
"""
pytestmark = pytest.mark.ansible


def install(folder: Path) -> Path:
    """Both launchers with the daemon's files, to be laid over /usr/bin and /usr/sbin."""
    archive.build(folder / "doorward.pyz")
    given = " ".join(files(folder))
    command = f"exec {sys.executable} -I {folder}/doorward.pyz --modules={':'.join(sys.path)}"
    for name, words in (("bin/doorward", f'"$@" {given}'), ("sbin/doorwardd", f'doorwardd "$@" {given}')):
        (folder / "over" / name).parent.mkdir(parents=True)
        write(folder / "over" / name, f"#!/bin/sh\n{command} {words}\n", 0o755)
    return folder / "over"


class Host:
    """A host that ansible reaches by running in it."""

    def __init__(self, host: Namespace, folder: Path, over: Path) -> None:
        self._host, self._folder, self._over = host, folder, over

    def module(self, name: str, *options: str, **arguments: object) -> dict[str, Any]:
        """The result of a module."""
        given = ["-a", json.dumps(arguments)] if arguments else []
        words = ["ansible", "localhost", "-m", f"doorward.spa.{name}", *given, *options]
        where = environment() | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "ANSIBLE_HOME": str(self._folder / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "PYTHONWARNINGS": "default",
        }
        over = ("unshare", "-m", "sh", "-c", OVER, str(self._over))
        done = self._host.run(*over, *words, check=False, env=where, cwd=self._folder)
        shown = done.stdout
        assert "=> {" in shown, done
        result: dict[str, Any] = json.loads(shown[shown.index("=> {") + 3 : shown.rindex("}") + 1])
        return result | {"failed": "localhost | FAILED!" in shown}


@contextmanager
def hidden(folder: Path) -> Iterator[tuple[Host, Namespace, Namespace]]:
    with network("host", "client") as (host, client), listener(host), doorwardd(host, folder):
        yield Host(host, folder, install(folder)), host, client


def test_a_grant_opens_for_a_while_and_closes_and_says_what_it_changed(tmp_path: Path) -> None:
    with hidden(tmp_path) as (ansible, host, client):
        asked = {"source": client.ipv4, "services": ["tcp/22"], "window": 600}
        assert not is_open(client, host.ipv4)
        planned = ansible.module("grant", "--check", **asked)
        assert (planned["changed"], planned["opened"]) == (True, ["tcp/22"])
        assert not is_open(client, host.ipv4), "check mode opens nothing"
        assert ansible.module("grant", **asked)["changed"]
        assert eventually(lambda: is_open(client, host.ipv4))
        assert not ansible.module("grant", **asked)["changed"]
        renewed = ansible.module("grant", **asked | {"renew_below": 600})
        assert (renewed["changed"], renewed["opened"]) == (True, ["tcp/22"])
        shut = {"source": client.ipv4, "state": "closed"}
        (one,) = ansible.module("grant", "--check", **shut)["closed"]
        assert (one["source"], one["service"]) == (client.ipv4, "tcp/22")
        assert is_open(client, host.ipv4), "check mode closes nothing"
        assert ansible.module("grant", **shut)["changed"]
        assert not is_open(client, host.ipv4)
        assert not ansible.module("grant", **shut)["changed"]
        assert ansible.module("grant", source="any", services=["tcp/22"], window=600)["changed"]
        assert eventually(lambda: is_open(client, host.ipv6))
        assert ansible.module("grant", source="any", state="closed")["changed"]
        assert not is_open(client, host.ipv6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": "gw.example", "window": 5}, "source: 'gw.example' does not appear to be an IPv4 or IPv6 address"),
        ({"source": "192.0.2.7"}, "window: the seconds are missing"),
        ({"source": "192.0.2.7", "window": 5, "services": ["tpc/22"]}, "services: 'tpc/22' is no service"),
        ({"source": "192.0.2.7", "window": 5, "sessions": True}, "sessions: only state=closed ends them"),
    ],
)
def test_a_grant_that_nobody_can_be_given_is_refused(
    tmp_path: Path, ns: Namespace, arguments: dict[str, object], words: str
) -> None:
    refused = Host(ns, tmp_path, install(tmp_path)).module("grant", **arguments)
    assert refused["failed"]
    assert words in refused["msg"]


def test_a_host_tells_its_state_its_files_and_its_version(tmp_path: Path) -> None:
    with hidden(tmp_path) as (ansible, _host, _client):
        told = ansible.module("info", "--check")
        assert (told["changed"], told["installed"], told["is_current"]) == (False, True, True)
        assert told["status"]["table"] == "guard"
        assert told["status"]["well"], told["status"]["causes"]
        assert told["check"]["ok"], told["check"]
        write(tmp_path / "access.conf", "SOURCE ANY\nKEY_BASE65: x\n")
        told = ansible.module("info")
        assert not told["check"]["ok"]
        assert any(f"{tmp_path}/access.conf:2: " in line for line in told["check"]["problems"])
        assert told["status"]["running"], "the daemon goes on with what it has read"


def test_a_host_without_doorward_is_told_from_one_with_it(tmp_path: Path, ns: Namespace) -> None:
    (tmp_path / "over/bin").mkdir(parents=True)
    (tmp_path / "over/sbin").mkdir()
    told = Host(ns, tmp_path, tmp_path / "over").module("info")
    assert told["installed"] is Path("/usr/bin/doorward").exists()
    assert told["controller_version"]
