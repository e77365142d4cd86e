"""doorwardd on a real kernel: what it opens, what it keeps shut, and what it says."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.host import commands as console_host
from doorward.host import here
from doorward.linux.systemd import AS_OF, REFUSED
from system.doorwardd import (
    ACCESS,
    command,
    doorwardd,
    environment,
    eventually,
    is_open,
    listener,
    send,
    used_store,
    write,
)
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]
    Trio = tuple[Namespace, Namespace, Namespace]


def knock(text: str = "0.0.0.0,tcp/22", age: int = 0, **changes: object) -> bytes:
    return payload(message(text=text, time=int(time.time()) - age, **changes), KEYS)


def other_tag(content: bytes) -> bytes:
    return content[:-9] + (b"A" if content[-9:-8] != b"A" else b"B") + content[-8:]


def cli(
    host: Namespace, *arguments: str, stdin: bytes = b"", path: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    argv = host.command(*([] if path is None else ["/usr/bin/env", f"PATH={path}"]), *command(*arguments))
    return subprocess.run(argv, check=False, input=stdin, capture_output=True, env=environment(), timeout=60)


def elements(host: Namespace) -> list[str]:
    listing = json.loads(host.run("nft", "-j", "list", "table", "inet", "doorward").stdout)["nftables"]
    sets = [entry["set"] for entry in listing if "set" in entry and entry["set"]["name"].startswith("open")]
    return [str(element["elem"]["val"]["concat"]) for made in sets for element in made.get("elem", [])]


@pytest.fixture
def sshd(pair: Pair) -> Iterator[None]:
    with listener(pair[0]):
        yield


@pytest.mark.usefixtures("sshd")
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_knock_opens_the_door_for_its_origin_and_the_kernel_closes_it(
    pair: Pair, tmp_path: Path, family: str
) -> None:
    host, client = pair
    address = getattr(host, family)
    assert is_open(client, address), "open before the daemon runs"
    with doorwardd(host, tmp_path, ACCESS + "FW_ACCESS_TIMEOUT 3\n") as daemon:
        assert not is_open(client, address, within=0.5)
        send(client, knock(), address)
        daemon.wait_for("reason=granted")
        assert is_open(client, address)
        assert eventually(lambda: not elements(host))
        assert not is_open(client, address, within=0.5)


@pytest.mark.usefixtures("sshd")
def test_a_door_is_open_for_its_source_alone(trio: Trio, tmp_path: Path) -> None:
    host, client, outsider = trio
    with listener(host, 22), doorwardd(host, tmp_path) as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert is_open(client, host.ipv4)
        assert not is_open(outsider, host.ipv4, within=0.5)


@pytest.mark.usefixtures("sshd")
def test_an_established_connection_outlives_its_window(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    access = ACCESS.replace("tcp/22", "tcp/22, tcp/2222") + "FW_ACCESS_TIMEOUT 2\n"
    with doorwardd(host, tmp_path, access) as daemon, listener(host, 2222) as accepting:
        send(client, knock("0.0.0.0,tcp/22"), host.ipv4)
        daemon.wait_for("reason=granted")
        host.nft(f"add element inet doorward open4 {{ {client.ipv4} . tcp . 2222 timeout 2s }}")
        with client.inside(), socket.create_connection((host.ipv4, 2222), timeout=5) as talking:
            answering, _ = accepting.accept()
            assert eventually(lambda: not elements(host))
            assert not is_open(client, host.ipv4, 2222, within=0.5)
            talking.sendall(b"still here")
            with answering:
                assert answering.recv(64) == b"still here"


def test_each_refusal_is_one_line_and_nothing_on_the_wire(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    seeing = ("tcpdump", "--immediate-mode", "-nUi", "eth0", "-w", str(tmp_path / "seen"))
    used_store(tmp_path)
    with doorwardd(host, tmp_path) as daemon, client.process(*seeing):
        replayed = knock()
        cases = {
            "malformed": b"A" * 139 + b"?",
            "hmac": other_tag(knock()),
            "stale": knock(age=500),
            "future": knock(age=-500),
            "services": knock("0.0.0.0,tcp/23"),
            "replay": replayed,
        }
        assert eventually((tmp_path / "seen").exists)
        time.sleep(0.5)
        send(client, replayed, host.ipv4)
        daemon.wait_for("reason=granted")
        for content in cases.values():
            send(client, content, host.ipv4)
        for reason in cases:
            daemon.wait_for(f"verdict=denied reason={reason} origin={client.ipv4}")
        client.run("ping", "-c1", host.ipv4)  # planted: an answer that the capture must show
        time.sleep(0.3)
        assert len(daemon.verdicts) == len(cases) + 1
    shown = client.run("tcpdump", "-nr", str(tmp_path / "seen"), "src", "host", host.ipv4, "and", "ip").stdout
    assert [line for line in shown.splitlines() if "echo reply" in line]
    assert not [line for line in shown.splitlines() if "echo reply" not in line]


def test_live_grants_survive_a_reload_and_the_new_files_count(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path) as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        before = elements(host)
        write(tmp_path / "access.conf", ACCESS.replace("tcp/22", "tcp/23"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        assert elements(host) == before
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=services")
        send(client, knock("0.0.0.0,tcp/23"), host.ipv4)
        daemon.wait_for("reason=granted", count=2)


@pytest.mark.usefixtures("sshd")
def test_a_reload_guards_the_services_that_are_new(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with listener(host, 23), doorwardd(host, tmp_path) as daemon:
        assert is_open(client, host.ipv4, 23)
        write(tmp_path / "access.conf", ACCESS.replace("tcp/22", "tcp/22, tcp/23"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        assert not is_open(client, host.ipv4, 23, within=0.5)


def test_a_broken_file_is_reported_and_the_old_configuration_stays(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path) as daemon:
        write(tmp_path / "access.conf", ACCESS + "OPEN_PORT tcp/1\nKEY_BASE64 ?\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("the old one stays")
        assert daemon.wait_for("access.conf:6: unknown name 'OPEN_PORT'")
        assert daemon.wait_for("access.conf:7: KEY_BASE64: is not base64")
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")


def test_a_reload_that_the_listener_refuses_changes_nothing_in_the_helper(pair: Pair, tmp_path: Path) -> None:
    """A capture file is read from the start on only, which the listener knows and the helper does not."""
    host, client = pair
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    with doorwardd(host, tmp_path) as daemon:
        config = (tmp_path / "doorwardd.conf").read_text()
        (hearing,) = (int(pid) for pid in _children(daemon.process.pid))
        folders = [Path(f"/proc/{pid}/fd") for pid in (daemon.process.pid, hearing)]
        before, held = host.run("nft", "list", "table", "inet", "doorward").stdout, _fewest(folders)
        write(tmp_path / "access.conf", ACCESS.replace("tcp/22", "tcp/23"))
        write(tmp_path / "doorwardd.conf", f"{config}PCAP_FILTER udp port 62300\nPCAP_FILE {empty}\n")
        for count in range(1, 6):
            daemon.signal(signal.SIGHUP)
            daemon.wait_for(f"{empty}: a capture file is read from the start on only", count=count)
            daemon.wait_for("the configuration is refused, the old one stays", count=count)
        assert eventually(lambda: _counted(folders) == held), "no descriptor is left behind"
        assert host.run("nft", "list", "table", "inet", "doorward").stdout == before
        send(client, knock(), host.ipv4, 62300)
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")  # the helper's limits have tcp/22 as before
        assert len(daemon.verdicts) == 1, "the new port is not heard"
        write(tmp_path / "doorwardd.conf", f"{config}PCAP_FILTER udp port 62300\n")
        daemon.signal(signal.SIGHUP)  # the same without what is refused: it would have been seen
        daemon.wait_for("was read again")
        send(client, knock("0.0.0.0,tcp/23"), host.ipv4, 62300)
        daemon.wait_for("reason=granted", count=2)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _counted(folders: list[Path]) -> list[int]:
    return [len(list(folder.iterdir())) for folder in folders]


def _fewest(folders: list[Path]) -> list[int]:
    """The descriptors that are held throughout: a look at other firewalls opens one for a moment."""
    seen = []
    for _ in range(20):
        seen.append(_counted(folders))
        time.sleep(0.05)
    return [min(counts) for counts in zip(*seen, strict=True)]


def test_a_knock_opens_nothing_while_the_store_cannot_be_written(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    disk = tmp_path / "run"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        with doorwardd(host, tmp_path) as daemon:
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted")
            host.nft("flush set inet doorward open4")
            with pytest.raises(OSError, match="No space"):
                (disk / "rest").write_bytes(bytes(1 << 20))
            assert eventually(lambda: _knock_once(client, host) and any("reason=store" in x for x in daemon.verdicts))
            granted = sum("reason=granted" in line for line in daemon.verdicts)
            (disk / "rest").unlink()
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted", count=granted + 1)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _knock_once(client: Namespace, host: Namespace) -> bool:
    send(client, knock(), host.ipv4)
    return True


def test_a_table_that_somebody_removed_comes_back_with_what_was_open(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with listener(host), doorwardd(host, tmp_path, ACCESS.replace("tcp/22", "tcp/22, tcp/23")) as daemon:
        send(client, knock("0.0.0.0,tcp/23"), host.ipv4)
        daemon.wait_for("reason=granted")
        before = elements(host)
        for times in (1, 2):
            host.nft("flush ruleset")
            daemon.wait_for("OUR TABLE WAS REMOVED", count=times)
            assert elements(host) == before
            assert not is_open(client, host.ipv4, within=0.5)


def test_capture_resumes_when_its_interface_comes_back(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, "PCAP_INTF eth0;\n") as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        host.run("ip", "link", "set", "eth0", "name", "gone0", "down")
        daemon.wait_for("eth0 is not there")
        host.run("ip", "link", "set", "gone0", "name", "eth0", "up")
        daemon.wait_for("eth0 is there")
        assert eventually(lambda: client.run("ping", "-c1", "-W1", host.ipv4, check=False).returncode == 0)
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted", count=2)


def test_grants_outlive_the_daemon_and_close_without_it(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with listener(host):
        with doorwardd(host, tmp_path, ACCESS + "FW_ACCESS_TIMEOUT 4\n") as daemon:
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted")
            daemon.signal(signal.SIGKILL)
            daemon.process.wait(10)
        assert is_open(client, host.ipv4)
        assert eventually(lambda: not is_open(client, host.ipv4, within=0.3))


def test_a_replay_is_known_after_the_daemon_was_killed(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path) as daemon:
        first = knock()
        send(client, first, host.ipv4)
        daemon.wait_for("reason=granted")
        daemon.signal(signal.SIGKILL)
        daemon.process.wait(10)
    with doorwardd(host, tmp_path) as daemon:
        send(client, first, host.ipv4)
        daemon.wait_for("reason=replay")


def test_test_mode_decides_and_opens_nothing(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, "", "-t") as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("test=yes verdict=granted")
        assert "doorward" not in host.run("nft", "list", "tables").stdout


def test_the_packet_limit_ends_the_daemon(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, "", "-C", "2") as daemon:
        for _ in range(2):
            send(client, b"A" * 200, host.ipv4)
        assert daemon.process.wait(10) == 0


def test_a_store_that_is_put_aside_is_followed_by_a_start_or_an_end_as_in_fwknopd(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS) as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        files = ("-c", f"{tmp_path}/doorwardd.conf", "-a", f"{tmp_path}/access.conf", "-r", f"{tmp_path}/run")
        busy = cli(host, *files, "--rotate-digest-cache", "--exit-parse-digest-cache")
        assert busy.returncode == 1, "a running daemon has it"
    store, old = tmp_path / "run/replay.db", tmp_path / "run/replay.db-old"
    with doorwardd(host, tmp_path, ACCESS, "", "--rotate-digest-cache") as daemon:
        assert old.exists()
        send(client, knock(), host.ipv4)
        assert "reason=replay" in daemon.wait_for("verdict=")
    old.unlink()
    ended = cli(host, *files, "--rotate-digest-cache", "--exit-parse-digest-cache")
    assert (ended.returncode, old.exists(), store.exists()) == (0, True, True)
    assert b"parsed, exiting" in ended.stdout
    old.unlink()
    assert cli(host, *files, "--rotate-digest-cache", "--exit-parse-config").returncode == 0
    assert not old.exists()


def test_a_script_made_for_fwknopd_starts_asks_reloads_and_ends_it(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    config = write(
        tmp_path / "fwknopd.conf", f"PCAP_INTF eth0;\nFIREWALL_FILE {tmp_path}/none.nft;\nPCAP_LOOP_SLEEP 1;\n"
    )
    access = write(tmp_path / "access.conf", ACCESS)
    files = ("-c", str(config), "-a", str(access), "-r", str(tmp_path / "run"))
    try:
        assert cli(host, *files, "-i", "eth0").returncode == 0, "it returns when it hears knocks"
        status = cli(host, *files, "-S")
        assert (status.returncode, b"pid=" in status.stdout) == (0, True)
        again = cli(host, *files)
        assert (again.returncode, b"is running already" in again.stderr) == (1, True)
        assert cli(host, *files, "-R").returncode == 0
        send(client, knock(), host.ipv4)
        assert eventually(lambda: client.ipv4.encode() in cli(host, *files, "--fw-list").stdout)
        listed = cli(host, *files, "--fw-list-all", path="/nowhere")  # the program nft is not needed
        assert listed.returncode == 0
        assert client.ipv4.encode() in listed.stdout
        assert b"table inet doorward { # handle " in listed.stdout
        assert cli(host, *files, "--fw-flush").returncode == 0
        assert cli(host, *files, "--fw-list").stdout == b""
        dumped = cli(host, *files, "-D").stdout
        assert b"PCAP_INTF                    =  'eth0'" in dumped
        assert dumped.count(b"<see the access.conf file>") == 2
    finally:
        assert cli(host, *files, "-K").returncode == 0
    status = cli(host, *files, "-S")
    assert (status.returncode, status.stdout) == (1, b"No running doorwardd detected.\n")


def test_a_configuration_with_mistakes_does_not_start(ns: Namespace, tmp_path: Path) -> None:
    access = write(tmp_path / "access.conf", ACCESS + "OPEN_PORT tcp/1\n")
    for arguments in (("-f",), (), ("check",), ("--exit-parse-config",)):
        ended = cli(ns, *arguments, "-a", str(access), "-r", str(tmp_path / "run"))
        assert (ended.returncode, ended.stderr) == (1, f"{access}:6: unknown name 'OPEN_PORT'\n".encode())


def test_check_accepts_good_files(ns: Namespace, tmp_path: Path) -> None:
    access = write(tmp_path / "access.conf", ACCESS)
    ended = cli(ns, "check", "-a", str(access))
    assert (ended.returncode, ended.stdout) == (0, b"Configs parsed, exiting. 1 stanzas.\n")


def test_explain_says_what_would_happen_and_leaves_no_trace(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path) as daemon:
        content = knock()
        files = ("-a", str(tmp_path / "access.conf"), "-d", str(tmp_path / "run" / "replay.db"))
        ask = ("explain", "--origin", client.ipv4, *files)
        for _ in range(2):
            said = cli(host, *ask, stdin=content)
            assert (said.returncode, said.stdout.startswith(b"verdict=granted")) == (0, True), said
        assert elements(host) == []
        send(client, content, host.ipv4)
        daemon.wait_for("reason=granted")
        assert b"reason=replay" in cli(host, *ask, stdin=content).stdout


def test_a_store_that_somebody_removed_lets_nothing_old_in_again(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    with doorwardd(host, tmp_path) as daemon:
        first = knock()
        send(client, first, host.ipv4)
        daemon.wait_for("reason=granted")
    for name in ("replay.db", "replay.db-wal", "replay.db-shm"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    with doorwardd(host, tmp_path) as daemon:
        assert daemon.wait_for("WAS REMOVED")
        send(client, first, host.ipv4)
        daemon.wait_for("reason=replay")


@pytest.mark.parametrize("change", ["another file", "an empty file"])
def test_a_store_that_knows_nothing_accepts_no_knock_of_before(change: str, pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    store = tmp_path / "run" / "replay.db"
    with doorwardd(host, tmp_path) as daemon:
        first = knock()
        send(client, first, host.ipv4)
        daemon.wait_for("reason=granted")
    if change == "an empty file":
        store.write_bytes(b"")
    arguments = ("-d", str(tmp_path / "other.db")) if change == "another file" else ()
    with doorwardd(host, tmp_path, ACCESS, "", *arguments) as daemon:
        assert daemon.wait_for(
            "WAS REMOVED, REPLACED" if change == "an empty file" else "other.db is new: packets made"
        )
        send(client, first, host.ipv4)
        daemon.wait_for("reason=replay")
        if change == "another file":
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted")


def test_a_daemon_in_fwknopds_place_accepts_no_knock_that_fwknopd_may_have_seen(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "digest.cache").touch()
    config = "MAX_SPA_PACKET_AGE 5;\n"
    with doorwardd(host, tmp_path, ACCESS, config) as daemon:
        send(client, knock(), host.ipv4)  # a client's clock may run ahead of ours by the accepted age
        daemon.wait_for("reason=replay")
        time.sleep(7)  # the age, and whole seconds on both sides
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")


def console(host: Namespace, folder: Path, *words: str) -> int:
    """Run a command of the host's console on the files of one test."""
    parser = argparse.ArgumentParser()
    console_host.add_commands(parser.add_subparsers(), here.Host(configuration=folder / "doorwardd.conf"))
    chosen = parser.parse_args(words)
    with host.inside():
        return int(chosen.run(chosen))


@pytest.mark.parametrize("who", [(), ("--from", "10.77.0.2")])
def test_what_was_closed_by_hand_stays_closed_when_the_table_is_loaded_again(
    pair: Pair, tmp_path: Path, who: tuple[str, ...]
) -> None:
    host, client = pair
    with doorwardd(host, tmp_path, ACCESS, f"FWKNOP_RUN_DIR {tmp_path}/run;\n") as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        assert console(host, tmp_path, "close", *who) == 0
        assert elements(host) == []
        send(client, knock("0.0.0.0,udp/7777"), host.ipv4)
        daemon.wait_for("reason=granted", count=2)
        host.nft("flush ruleset")
        daemon.wait_for("OUR TABLE WAS REMOVED")
        assert len(elements(host)) == 1
        assert "7777" in elements(host)[0]


def test_files_named_from_where_it_was_started_are_found_in_the_background_and_on_reload(
    pair: Pair, tmp_path: Path
) -> None:
    host, client = pair
    write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\n")
    write(tmp_path / "access.conf", ACCESS)
    argv = host.command(*command("-c", "doorwardd.conf", "-a", "access.conf", "-r", "run"))
    try:
        started = subprocess.run(argv, check=False, capture_output=True, env=environment(), cwd=tmp_path, timeout=60)
        assert started.returncode == 0, started
        write(tmp_path / "access.conf", ACCESS.replace("tcp/22", "tcp/23"))
        assert cli(host, "-r", str(tmp_path / "run"), "-R").returncode == 0
        assert eventually(lambda: _opens(host, client, "0.0.0.0,tcp/23"))
    finally:
        assert cli(host, "-r", str(tmp_path / "run"), "-K").returncode == 0


def _opens(host: Namespace, client: Namespace, text: str) -> bool:
    send(client, knock(text), host.ipv4)
    time.sleep(0.2)
    return elements(host) != []


def test_what_hinders_a_start_in_the_background_is_said_on_the_terminal(ns: Namespace, tmp_path: Path) -> None:
    write(tmp_path / "access.conf", ACCESS)
    write(tmp_path / "replay.db", "not a database" * 100)
    arguments = ("-a", str(tmp_path / "access.conf"), "-r", str(tmp_path / "run"), "-d", str(tmp_path / "replay.db"))
    ended = cli(ns, *arguments)
    assert ended.returncode == 1
    assert b"--rotate-digest-cache" in ended.stderr


def test_the_service_manager_hears_what_became_of_each_reload_and_when(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        manager.settimeout(20)

        def status() -> tuple[str, str]:
            while "READY=1" not in (said := manager.recv(4096).decode()):
                pass
            assert "ERRNO=0" in said
            reading, _, moment = said.partition("STATUS=")[2].partition(AS_OF)
            return reading, moment

        with doorwardd(pair[0], tmp_path, prefix=("env", f"NOTIFY_SOCKET={tmp_path}/manager")) as daemon:
            seen = [status()]
            for access in ("SOURCE nowhere\n", ACCESS):
                write(tmp_path / "access.conf", access)
                daemon.signal(signal.SIGHUP)
                seen.append(status())
    assert [reading.partition(":")[0] for reading, _ in seen] == ["listening", REFUSED, "listening"]
    assert len({moment for _, moment in seen}) == len(seen), "each has its moment"
