"""The commands on a host look where the daemon really is, and at both packet filters."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward import pidfile
from doorward.config.daemon import RUN_FOLDER
from system.doorwardd import ACCESS, command, doorwardd, environment, is_open, listener, send, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

IPTABLES = "FIREWALL_BACKEND iptables\nFIREWALL_EXE /usr/sbin/iptables-legacy\n"


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
        assert (found["backend"], found["table"]) == ("iptables" if config else "nftables", "guard")
        knock(client, host)
        running.wait_for("reason=granted")
        assert is_open(client, host.ipv4)
        assert console(host, "close").stdout == "all grants are closed\n"
        assert not is_open(client, host.ipv4, within=0.5)
        opened = console(host, "open", "--for", "1h")
        assert "tcp/22 udp/7777" in opened.stdout, opened.stderr
        assert is_open(client, host.ipv4)
    assert not file.exists()
    assert json.loads(console(host, "status", "--json").stdout)["running"] is False


@pytest.mark.parametrize("config", ["", IPTABLES])
def test_after_the_daemon_has_ended_both_packet_filters_are_looked_at(pair: Pair, tmp_path: Path, config: str) -> None:
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
    assert console(host, "firewall", "stop").stdout.startswith("doorward kept nothing closed: there is neither")
    assert console(host, "close").stdout.startswith("nothing to close: there is neither")


def test_named_files_are_read_as_doorwardd_reads_them(pair: Pair, tmp_path: Path) -> None:
    host, _ = pair
    other = write(tmp_path / "other.conf", ACCESS.replace("tcp/22, udp/7777", "tcp/2222"))
    with doorwardd(host, tmp_path):
        files = ("-c", str(tmp_path / "doorwardd.conf"), "-a", str(other), "-r", str(tmp_path / "run"))
        assert "running, PID" in console(host, "status", *files).stdout
        assert "tcp/2222" in console(host, "open", "--for", "1m", *files).stdout
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
            assert pidfile.noted(file) is not None
            file.chmod(0o666)
            assert pidfile.noted(file) is None
    for left in (content, b"", b"{", b"[]", b"null", b'{"pid": 1}', bytes(70000)):
        write(file, "").write_bytes(left)
        assert pidfile.noted(file) is None
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


def test_on_a_host_with_iptables_alone_the_commands_need_no_libnftables(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    (library,) = Path("/usr/lib").glob("*-linux-gnu/libnftables.so.1")
    without = ("unshare", "-m", "sh", "-c", f'mount --bind /dev/null {library.resolve()} && exec "$@"', "sh")
    with listener(host), doorwardd(host, tmp_path, ACCESS, IPTABLES):
        assert "tcp/22 udp/7777" in console(host, "open", "--for", "1h", before=without).stdout
        assert is_open(client, host.ipv4)
        assert console(host, "close", before=without).stdout == "all grants are closed\n"
        assert not is_open(client, host.ipv4, within=0.5)
        assert json.loads(console(host, "status", "--json", before=without).stdout)["backend"] == "iptables"
    refused = console(client, "status", before=without)  # here the settings say nftables
    assert (refused.returncode, "libnftables1" in refused.stderr) == (1, True), "the library is hidden"


@pytest.mark.parametrize("exe", ["/usr/sbin/iptables-nope", "/usr/sbin/nft"])
def test_an_iptables_that_is_not_there_is_a_problem_with_its_line(ns: Namespace, tmp_path: Path, exe: str) -> None:
    access = write(tmp_path / "access.conf", ACCESS)
    config = write(tmp_path / "d.conf", f"FIREWALL_BACKEND iptables\nFIREWALL_EXE {exe}\n")
    files = ("-c", str(config), "-a", str(access), "-r", str(tmp_path / "run"))
    for words in (("check", *files), ("-f", *files)):
        done = subprocess.run(
            ns.command(*command(*words)), check=False, capture_output=True, text=True, env=environment(), timeout=60
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"{config}:2: FIREWALL_EXE {exe}: "), done.stderr
        assert "package" not in done.stderr


def _record(host: Namespace) -> Path:
    with host.inside():
        return pidfile.record_in(RUN_FOLDER)
