"""METRICS_FILE and LOG_FORMAT json of a real daemon, and what it does where the file cannot be written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from doorward.linux.published import publish
from system.doorwardd import ACCESS, doorwardd, environment, eventually, files, is_open, listener, send, write
from system.test_daemon import knock
from unit.record.test_openmetrics import Read, read_by_both

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

NAMED = ACCESS.replace("SOURCE ANY", "SOURCE ANY\nNAME laptop")
WITHIN = 40  # seconds: a report, and the next one


def read(file: Path) -> Read:
    """What the file says now."""
    return read_by_both(file.read_bytes())


def said(file: Path, metric: str, /, **labels: str) -> float:
    """The value of one series, -1 where it is not there."""
    with contextlib.suppress(FileNotFoundError, KeyError):
        return read(file)[metric][tuple(sorted(labels.items()))]
    return -1


def test_the_file_has_what_happened_and_follows_what_happens(
    pair: tuple[Namespace, Namespace], tmp_path: Path, open_path: Path
) -> None:
    host, client = pair
    file = open_path / "doorward.prom"
    with listener(host), doorwardd(host, tmp_path, NAMED, f"METRICS_FILE {file};\n") as daemon:
        assert eventually(file.exists)
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert file.stat().st_uid == 0, "the helper writes it: the listener is another user"
        before = read(file)
        assert before["doorward_policy"][(("policy", "guard"),)] == 1
        assert before["doorward_live_grants"] == {(("name", ""),): 0}
        assert set(before["doorward_packets_total"].values()) == {0}
        send(client, b"A" * 200, host.ipv4)
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert eventually(lambda: said(file, "doorward_grants_total") == 1, WITHIN)
        after = read(file)
        assert after["doorward_verdicts_total"][("name", "laptop"), ("reason", "granted")] == 1
        assert after["doorward_packets_total"][(("reason", "granted"),)] == 1
        assert sum(after["doorward_packets_total"].values()) == 2
        assert after["doorward_live_grants"][(("name", "laptop"),)] == 1
        assert after["doorward_replay_packets"] == {(): 1}
        assert 0 <= time.time() - after["doorward_last_knock_timestamp_seconds"][(("name", "laptop"),)] < WITHIN + 20
        assert set(after["doorward_key_timestamp_seconds"]) == {(("file", f"{tmp_path}/access.conf"),)}
        assert after["doorward_closed"][()] == after["doorward_table_intact"][()] == 1
        argv = (sys.executable, "-m", "doorward", "close", *files(tmp_path))
        host.run(*argv, env=environment())
        host.nft("add element inet doorward open_any { 6 . 22 timeout 120s }")
        assert eventually(lambda: said(file, "doorward_closed") == 0, WITHIN)
        assert said(file, "doorward_doubt", cause="open") == 1
        assert said(file, "doorward_live_grants", name="laptop") == -1, "what root closed is not open"


def test_a_reload_begins_and_ends_the_file_and_counts_go_on(
    pair: tuple[Namespace, Namespace], tmp_path: Path, open_path: Path
) -> None:
    host, client = pair
    file, other = open_path / "one.prom", open_path / "two.prom"
    config = f"FIREWALL_FILE {tmp_path}/firewall.nft;\n"
    with listener(host), doorwardd(host, tmp_path, NAMED, f"METRICS_FILE {file};\n") as daemon:
        assert eventually(file.exists)
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        for number, line in enumerate((f"METRICS_FILE {other};\n", "", f"METRICS_FILE {other};\n"), 1):
            other.unlink(missing_ok=True)
            write(tmp_path / "doorwardd.conf", config + line)
            daemon.signal(signal.SIGHUP)
            daemon.wait_for("was read again", number)
            if line:
                assert eventually(other.exists)
        assert said(other, "doorward_grants_total") == 1
        write(tmp_path / "access.conf", NAMED.replace("laptop", "phone"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again", 4)
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted", 2)
        assert eventually(lambda: said(other, "doorward_verdicts_total", reason="granted", name="phone") == 1, WITHIN)
        assert said(other, "doorward_verdicts_total", reason="granted", name="laptop") == -1


@contextlib.contextmanager
def full(folder: Path) -> Iterator[Path]:
    """A folder without room for another byte."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "none", str(folder)], check=True)
    try:
        with (folder / "filling").open("wb", buffering=0) as filling, contextlib.suppress(OSError):
            while True:
                filling.write(bytes(1024))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_that_finds_no_room_keeps_the_old_one(open_path: Path) -> None:
    folder = open_path / "folder"
    folder.mkdir()
    publish(folder / "a.prom", b"beneath")
    with full(folder):
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            publish(folder / "a.prom", b"x")
        (folder / "filling").write_bytes(bytes(4096))
        publish(folder / "a.prom", b"old")
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            publish(folder / "a.prom", bytes(1 << 20))
        assert (folder / "a.prom").read_bytes() == b"old"
        assert sorted(one.name for one in folder.iterdir()) == ["a.prom", "filling"]
    assert (folder / "a.prom").read_bytes() == b"beneath"


@pytest.mark.parametrize("what", ["missing", "link", "full"])
def test_a_folder_that_cannot_be_used_is_one_line_and_knocks_go_on(
    pair: tuple[Namespace, Namespace], tmp_path: Path, open_path: Path, what: str
) -> None:
    host, client = pair
    folder, elsewhere = open_path / "folder", open_path / "elsewhere"
    elsewhere.mkdir()
    file = folder / "doorward.prom"
    with contextlib.ExitStack() as stack:
        if what == "link":
            folder.symlink_to(elsewhere)
        elif what == "full":
            folder.mkdir()
            stack.enter_context(full(folder))
        stack.enter_context(listener(host))
        daemon = stack.enter_context(doorwardd(host, tmp_path, ACCESS, f"METRICS_FILE {file};\n"))
        daemon.wait_for(f"METRICS_FILE {file} cannot be written: ")
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert is_open(client, host.ipv4)
        assert not file.exists()
        assert not list(elsewhere.iterdir()), "nothing is written behind a link"
        if what == "full":
            (folder / "filling").write_bytes(b"")
        else:
            folder.unlink(missing_ok=True)
            folder.mkdir()
        daemon.wait_for(f"METRICS_FILE {file} is written again", within=WITHIN)
        assert said(file, "doorward_grants_total") == 1
        assert sum("cannot be written" in line for line in daemon.lines) == 1


def test_a_helper_without_a_metrics_file_and_a_silent_daemon_show_by_the_age_of_the_file(
    pair: tuple[Namespace, Namespace], tmp_path: Path, open_path: Path
) -> None:
    host, _ = pair
    file = open_path / "doorward.prom"
    with doorwardd(host, tmp_path, ACCESS, f"METRICS_FILE {file};\n"):
        assert eventually(file.exists)
        first = said(file, "doorward_last_update_timestamp_seconds")
        assert eventually(lambda: said(file, "doorward_last_update_timestamp_seconds") > first, WITHIN)
    ended = said(file, "doorward_last_update_timestamp_seconds")
    with doorwardd(host, tmp_path, ACCESS) as daemon:
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
    assert said(file, "doorward_last_update_timestamp_seconds") == ended


def test_with_log_format_json_each_verdict_is_one_object_and_the_audit_file_has_lines(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    audit = tmp_path / "audit.log"
    with doorwardd(host, tmp_path, NAMED, f"LOG_FORMAT json;\nAUDIT_FILE {audit};\n") as daemon:
        packet = knock()
        for one, reason in ((b"A" * 200, "hmac"), (packet, "granted"), (packet, "replay")):
            send(client, one, host.ipv4)
            daemon.wait_for(f'"reason": "{reason}"')
        found = [json.loads(line) for line in daemon.lines if line.startswith("{")]
        assert eventually(lambda: audit.read_text().count("verdict=") == len(found))
    assert [(one["verdict"], one["reason"], one["origin"]) for one in found] == [
        ("denied", "hmac", client.ipv4),
        ("granted", "granted", client.ipv4),
        ("denied", "replay", client.ipv4),
    ]
    assert (found[1]["name"], found[1]["services"], found[1]["seconds"]) == ("laptop", ["tcp/22"], 30)
    assert not daemon.verdicts, "no line beside the object"
    argv = (sys.executable, "-m", "doorward", "audit", "verify", str(audit))
    assert host.run(*argv, env=environment()).stdout.startswith("4 lines hold")
