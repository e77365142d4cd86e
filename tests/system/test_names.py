"""Whom a line is about: a stanza's name in the log, in AUDIT_FILE, in the packet filter and in `doorward status`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from system.doorwardd import ACCESS, command, doorwardd, environment, eventually, is_open, listener, send
from system.executing import Trace, cycle, executing
from system.executing import knock as knock_for_commands
from system.test_console_finds_the_daemon import console
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

NAMED = f"{ACCESS}NAME laptop\n"
NAT = (
    "ENABLE_IPT_LOCAL_NAT Y;\nENABLE_IPT_FORWARDING Y;\n",
    f"{NAMED}FORCE_NAT 127.0.0.1 22\n",
)


def knock(client: Namespace, host: Namespace) -> bytes:
    made = payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS)
    send(client, made, host.ipv4)
    return made


def names(host: Namespace) -> list[str | None]:
    """The names that `doorward status` shows, one a grant."""
    return [one.get("name") for one in json.loads(console(host, "status", "--json").stdout)["grants"]]


def explain(host: Namespace, folder: Path, content: bytes, origin: str) -> subprocess.CompletedProcess[str]:
    words = ("explain", "--origin", origin, "-a", str(folder / "access.conf"), "-d", str(folder / "none"))
    return host.run(*command(*words), env=environment(), check=False, input=content.decode())


def test_a_name_is_in_the_log_in_the_audit_file_in_the_status_and_in_the_table(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    audit = tmp_path / "audit.log"
    with listener(host), doorwardd(host, tmp_path, NAMED, f"AUDIT_FILE {audit};\n") as daemon:
        sent = knock(client, host)
        assert " stanza=1 name=laptop user=alice " in daemon.wait_for("reason=granted")
        assert eventually(lambda: " name=laptop " in audit.read_text())
        assert is_open(client, host.ipv4)
        assert names(host) == ["laptop"]
        assert ", laptop" in next(line for line in console(host, "status").stdout.splitlines() if "open:" in line)
        assert 'comment "laptop"' in host.run("nft", "list", "set", "inet", "doorward", "open4").stdout
        send(client, sent, host.ipv4)
        assert " name=laptop" in daemon.wait_for("reason=replay")
        assert " name=laptop " in explain(host, tmp_path, sent, client.ipv4).stdout
        host.nft("delete table inet doorward")
        daemon.wait_for("table inet doorward")
        assert eventually(lambda: names(host) == ["laptop"]), "opened again with its name"
        assert console(host, "close", "--from", client.ipv4).stdout == f"closed 1 of {client.ipv4}\n"
        assert not is_open(client, host.ipv4, within=0.5)


def test_a_restarted_daemon_adopts_grants_with_their_names(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, NAMED) as daemon:
        knock(client, host)
        daemon.wait_for("reason=granted")
    with doorwardd(host, tmp_path, ACCESS) as daemon:
        host.nft("delete table inet doorward")
        daemon.wait_for("table inet doorward")
        assert eventually(lambda: names(host) == ["laptop"])
        time.sleep(1.1)  # the store is older than the next knock
        knock(client, host)
        daemon.wait_for("reason=granted")
        assert names(host) == [None], "a renewal has the name of the stanza that grants now"


def test_a_forwarded_grant_has_its_name_too(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    config, access = NAT
    with doorwardd(host, tmp_path, access, config) as daemon:
        knock(client, host)
        assert " name=laptop " in daemon.wait_for("reason=granted")
        assert names(host) == ["laptop"]


def test_a_command_cycle_and_its_lines_have_the_name(pair: Pair, open_path: Path) -> None:
    host, client = pair
    trace = Trace.make(open_path)
    with executing(host, open_path, f"{cycle(trace, seconds=300)}NAME laptop\n") as daemon:
        knock_for_commands(host, client)
        daemon.wait_for("command=open stanza=1 name=laptop ")
        shown = console(host, "status").stdout
        assert "(stanza 1, laptop)" in shown
        assert console(host, "close").returncode == 0
        daemon.wait_for("command=close stanza=1 name=laptop ")


@pytest.mark.parametrize("comment", ["not a name", "x=y"])
def test_a_comment_of_another_making_is_no_name(pair: Pair, tmp_path: Path, comment: str) -> None:
    host, _ = pair
    with doorwardd(host, tmp_path, NAMED):
        element = f'192.0.2.9 . tcp . 22 timeout 60s comment "{comment}"'
        host.nft(f"add element inet doorward open4 {{ {element} }}")
        assert names(host) == [None]
