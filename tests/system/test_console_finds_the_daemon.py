"""The commands on a host look where the daemon really is, and at its table."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.config.settings import RUN_FOLDER
from doorward.host import running as host_running
from system import executing
from system.doorwardd import ACCESS, command, doorwardd, environment, is_open, listener, send, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

IPTABLES = "FIREWALL_BACKEND iptables\n"


def console(host: Namespace, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `doorward …` with nothing of its own, as a newcomer does; `before` runs it in another way."""
    argv = [word for word in command(*words) if word != "doorwardd"]
    return subprocess.run(
        host.command(*before, *argv), check=False, capture_output=True, text=True, env=environment(), timeout=60
    )


def knock(client: Namespace, host: Namespace) -> None:
    send(client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS), host.ipv4)


@pytest.mark.parametrize("config", ["", IPTABLES])
def test_without_options_the_commands_find_the_files_of_the_running_daemon(
    pair: Pair, tmp_path: Path, config: str
) -> None:
    host, client = pair
    with listener(host), doorwardd(host, tmp_path, ACCESS, config) as running:
        file = _record(host)
        assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 0)
        found = json.loads(console(host, "status", "--json").stdout)
        assert found["running"] is True
        assert found["pid"] == json.loads(file.read_text())["pid"]
        assert (found["foreign_firewall"], found["table"]) == ("admit" if config else "report", "guard")
        knock(client, host)
        running.wait_for("reason=granted")
        assert is_open(client, host.ipv4)
        assert console(host, "close").stdout == "all grants are closed\n"
        assert not is_open(client, host.ipv4, within=0.5)
        opened = console(host, "open", "tcp/22", "--for", "1h")
        assert "tcp/22" in opened.stdout, opened.stderr
        assert is_open(client, host.ipv4)
    assert not file.exists()
    assert json.loads(console(host, "status", "--json").stdout)["running"] is False


@pytest.mark.parametrize("config", ["", IPTABLES])
def test_after_the_daemon_has_ended_the_table_is_looked_at(pair: Pair, tmp_path: Path, config: str) -> None:
    host, client = pair
    with listener(host):
        with doorwardd(host, tmp_path, ACCESS, config) as running:
            knock(client, host)
            running.wait_for("reason=granted")
        assert f"open: {client.ipv4} tcp/22" in console(host, "status").stdout
        assert console(host, "close").stdout == "all grants are closed\n"
        assert not is_open(client, host.ipv4, within=0.5)
        stopped = console(host, "firewall", "stop")
        assert "OPEN" in stopped.stdout, stopped.stderr
        assert is_open(client, host.ipv4)
    assert console(host, "firewall", "stop").stdout.startswith("doorward kept nothing closed: there is no")
    assert console(host, "close").stdout.startswith("nothing to close: there is no")


def test_named_files_are_read_as_doorwardd_reads_them(pair: Pair, tmp_path: Path) -> None:
    host, _ = pair
    other = write(tmp_path / "other.conf", ACCESS.replace("tcp/22, udp/7777", "tcp/2222"))
    with doorwardd(host, tmp_path):
        files = ("-c", str(tmp_path / "doorwardd.conf"), "-a", str(other), "-r", str(tmp_path / "run"))
        shown = console(host, "status", *files).stdout
        assert "running, PID" in shown
        assert "NOT WELL: changed: " in shown, "the running daemon guards what its own file names"
        assert "NOT WELL: changed: " not in console(host, "status").stdout
        assert "NOT RUNNING" in console(host, "status", "-r", str(tmp_path / "elsewhere")).stdout
    missing = console(host, "status", "-c", str(tmp_path / "missing.conf"))
    assert missing.returncode
    assert "missing.conf" in missing.stderr


def test_a_record_whose_daemon_is_gone_or_that_others_wrote_is_ignored(pair: Pair, tmp_path: Path) -> None:
    host, _ = pair
    with doorwardd(host, tmp_path):
        file = _record(host)
        content = file.read_bytes()
        with host.inside():
            assert host_running.noted(file) is not None
            file.chmod(0o666)
            assert host_running.noted(file) is None
    for left in (content, b"", b"{", b"[]", b"null", b'{"pid": 1}', bytes(70000)):
        write(file, "").write_bytes(left)
        assert host_running.noted(file) is None
        assert "NOT RUNNING" in console(host, "status").stdout
    file.unlink()


@pytest.mark.parametrize("words", [(), ("-t",)])
def test_a_second_daemon_leaves_the_commands_with_the_first(pair: Pair, tmp_path: Path, words: tuple[str, ...]) -> None:
    host, _ = pair
    second = tmp_path / "second"
    second.mkdir()
    with doorwardd(host, tmp_path) as first:
        with doorwardd(host, second, ACCESS, "", *words) as running:
            told = [line for line in running.lines if "work on the doorwardd of PID" in line]
            assert [str(first.process.pid) in line for line in told] == [True]
            assert json.loads(console(host, "status", "--json").stdout)["pid"] == first.process.pid
        assert json.loads(console(host, "status", "--json").stdout)["pid"] == first.process.pid
    with doorwardd(host, second, ACCESS, "", *words):
        assert json.loads(console(host, "status", "--json").stdout)["running"] is not bool(words)


def test_without_libnftables_nothing_is_changed_and_its_package_is_named(ns: Namespace, tmp_path: Path) -> None:
    access, config = write(tmp_path / "access.conf", ACCESS), write(tmp_path / "d.conf", "FOREIGN_FIREWALL admit\n")
    (library,) = Path("/usr/lib").glob("*-linux-gnu/libnftables.so.1")
    without = ("unshare", "-m", "sh", "-c", f'mount --bind /dev/null {library.resolve()} && exec "$@"', "sh")
    files = ("-c", str(config), "-a", str(access), "-r", str(tmp_path / "run"))
    for words, code in ((("check", *files), 1), (("-f", *files), 1)):
        argv = ns.command(*without, *command(*words))
        done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment(), timeout=60)
        assert (done.returncode, "install the package libnftables1" in done.stderr) == (code, True), done.stderr
    assert ns.nft("list ruleset") == ""


def _record(host: Namespace) -> Path:
    with host.inside():
        return host_running.record_in(RUN_FOLDER)


@pytest.mark.parametrize("config", ["", "ENABLE_UDP_SERVER Y;\n"])
def test_packets_that_the_kernel_had_no_room_for_are_in_the_log_and_in_the_status(
    pair: Pair, tmp_path: Path, config: str
) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, config, "-d", str(tmp_path / "replay.db")) as running:
        (listening,) = executing.children(running.process.pid)
        os.kill(listening, signal.SIGSTOP)
        with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(30_000):
                sender.sendto(b"A" * 200, (host.ipv4, 62201))
        os.kill(listening, signal.SIGCONT)
        said = running.wait_for("packets were dropped by the kernel")
        count = int(said.split()[0])
        assert count > 0
        time.sleep(1.5)  # one tick more
        found = json.loads(console(host, "status", "--json").stdout)["packets"]
        assert found["dropped"] >= count
        assert found["hmac"] + found["dropped"] <= 30_000
        assert f"dropped {found['dropped']}" in console(host, "status").stdout
