"""Two gateways as one: a pair of hosts behind a moving address, with Debian's redis-server."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doorward.crypto.grant_record import RecordKey
from doorward.wire import resp
from system import netns
from system.doorwardd import (
    ACCESS,
    HMAC_KEY,
    KEY,
    command,
    doorwardd,
    environment,
    eventually,
    files,
    is_open,
    listener,
    send,
    used_store,
    write,
)
from system.redis_server import redis, replicating
from system.test_daemon import knock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.doorwardd import Running
    from system.netns import Namespace
    from system.redis_server import Redis

    Trio = tuple[Namespace, Namespace, Namespace]

NOT_ASKED = "the share cannot say whether it is new: no reply within 20 ms"
MOVING = "10.77.0.100"
LONG = ACCESS.replace("REQUIRE", "FW_ACCESS_TIMEOUT 60\nREQUIRE")


@pytest.fixture
def gateways() -> Iterator[Trio]:
    """Two gateways and a client on one switch; the first one has the moving address."""
    with netns.network("one", "two", "client") as (one, two, client):
        one.run("ip", "addr", "add", f"{MOVING}/24", "dev", "eth0")
        yield one, two, client


def fail_over(gateways: Trio) -> None:
    """Move the address, as VRRP does."""
    one, two, client = gateways
    one.run("ip", "addr", "del", f"{MOVING}/24", "dev", "eth0")
    two.run("ip", "addr", "add", f"{MOVING}/24", "dev", "eth0")
    client.run("ip", "neigh", "flush", "all")


def sharing(server: Path, policy: str = "") -> str:
    """The settings of one gateway of a pair."""
    return f"REPLAY_SHARE unix:{server};\n" + (f"SHARE_FAILURE {policy};\n" if policy else "")


@contextlib.contextmanager
def daemon_of(host: Namespace, folder: Path, config: str, *prefix: str, access: str = LONG) -> Iterator[Running]:
    """Yield a gateway's daemon, with a store that is not new."""
    folder.mkdir()
    used_store(folder)
    with doorwardd(host, folder, access, config, prefix=prefix) as daemon:
        yield daemon


@contextlib.contextmanager
def two_daemons(gateways: Trio, folder: Path, first: str, second: str) -> Iterator[tuple[Running, Running]]:
    """Yield the daemons of both gateways."""
    one, two, _ = gateways
    with daemon_of(one, folder / "one", first) as left, daemon_of(two, folder / "two", second) as right:
        yield left, right


@contextlib.contextmanager
def a_pair(gateways: Trio, folder: Path, policy: str = "") -> Iterator[tuple[Running, Running, Redis]]:
    """Yield the daemons of both gateways, and the one server that both ask."""
    with redis(gateways[0], folder / "redis") as server:
        config = sharing(server.socket, policy)
        with two_daemons(gateways, folder, config, config) as (left, right):
            yield left, right, server


def answers(daemon: Running) -> list[str]:
    """The lines of all packets so far."""
    return [line for line in daemon.verdicts if "verdict=carried" not in line]


def answer(daemon: Running, client: Namespace, packet: bytes, address: str) -> str:
    """The line of a packet."""
    count = len(answers(daemon))
    send(client, packet, address)
    assert eventually(lambda: len(answers(daemon)) > count), daemon.lines
    return answers(daemon)[count]


def granted(daemon: Running, client: Namespace, address: str, text: str = "0.0.0.0,tcp/22") -> bytes:
    """A packet that was granted; on a busy machine the server may be slower than 20 ms now and then."""
    for _ in range(20):
        packet = knock(text)
        if "reason=granted" in answer(daemon, client, packet, address):
            return packet
        time.sleep(1)
    raise AssertionError(daemon.lines)


def twice(daemons: tuple[Running, Running], client: Namespace, addresses: tuple[str, str]) -> str:
    """What becomes of a packet at the second gateway that the first one has granted."""
    for _ in range(20):
        line = answer(daemons[1], client, granted(daemons[0], client, addresses[0]), addresses[1])
        if NOT_ASKED not in line:
            return line
        time.sleep(1)
    raise AssertionError(daemons[1].lines)


def test_a_packet_that_one_gateway_accepted_is_refused_by_the_other_after_a_fail_over(
    gateways: Trio, tmp_path: Path
) -> None:
    one, two, client = gateways
    with replicating(one, two, tmp_path) as (primary, replica):
        settings = sharing(primary.socket), sharing(replica.socket)
        with two_daemons(gateways, tmp_path, *settings) as (left, right):
            packets = [granted(left, client, MOVING) for _ in range(4)]
            seen = sorted(primary.ask("keys", "doorward:seen:*").splitlines())
            assert eventually(lambda: sorted(replica.ask("keys", "doorward:seen:*").splitlines()) == seen)
            fail_over(gateways)
            primary.kill()
            replica.ask("replicaof", "no", "one")
            lines = [answer(right, client, packet, MOVING) for packet in packets]
            assert not [line for line in lines if "reason=granted" in line]
            assert [line for line in lines if "reason=replay" in line]
            granted(right, client, MOVING)


def test_without_a_share_both_accept_it(gateways: Trio, tmp_path: Path) -> None:
    client = gateways[2]
    with two_daemons(gateways, tmp_path, "", "") as (left, right):
        packet = granted(left, client, MOVING)
        fail_over(gateways)
        assert "reason=granted" in answer(right, client, packet, MOVING)


def test_a_door_that_was_just_opened_stays_open_through_a_fail_over(gateways: Trio, tmp_path: Path) -> None:
    one, two, client = gateways
    with (
        replicating(one, two, tmp_path) as (primary, replica),
        listener(one),
        listener(two),
        two_daemons(gateways, tmp_path, sharing(primary.socket), sharing(replica.socket)) as (left, right),
    ):
        assert not is_open(client, MOVING)
        granted(left, client, MOVING)
        line = right.wait_for("verdict=carried")
        assert f"reason=granted source={client.ipv4} services=tcp/22 seconds=" in line
        assert int(line.rpartition("seconds=")[2]) <= 60, "what is left of the window"
        fail_over(gateways)
        primary.kill()
        assert is_open(client, MOVING), "without another knock"
        assert not [line for line in left.lines if "verdict=carried" in line], "its own grants are not carried to it"


def close(host: Namespace, folder: Path) -> None:
    """Close everything at a gateway, as root does."""
    host.run(sys.executable, "-m", "doorward", "close", *files(folder), env=environment())


def test_a_gateway_that_starts_takes_what_is_open_and_what_root_closed_stays_closed(
    gateways: Trio, tmp_path: Path
) -> None:
    one, two, client = gateways
    with redis(one, tmp_path / "redis") as server, listener(two):
        config = sharing(server.socket)
        with daemon_of(one, tmp_path / "one", config) as left:
            granted(left, client, one.ipv4)
            assert eventually(lambda: server.ask("xlen", "doorward:grants") != "0")
        folder = tmp_path / "two"
        with daemon_of(two, folder, config) as right:
            right.wait_for("verdict=carried reason=granted")
            assert is_open(client, two.ipv4)
            close(two, folder)
            assert not is_open(client, two.ipv4)
        with doorwardd(two, folder, LONG, config) as right:
            right.wait_for("what is seen here is shared")
            time.sleep(2.5)  # two looks at the share
            assert not is_open(client, two.ipv4)
            assert not [line for line in right.lines if "verdict=carried" in line]


def status(host: Namespace, folder: Path) -> str:
    """What `doorward status` prints."""
    return host.run(sys.executable, "-m", "doorward", "status", *files(folder), env=environment(), check=False).stdout


@pytest.mark.parametrize("policy", ["", "refuse", "local"])
def test_redis_is_killed_in_the_middle(gateways: Trio, tmp_path: Path, policy: str) -> None:
    one, two, client = gateways
    with a_pair(gateways, tmp_path, policy) as (left, right, server):
        granted(left, client, one.ipv4)
        server.kill()
        said = "OPEN HERE TOO (SHARE_FAILURE local)" if policy == "local" else "no knock opens anything"
        assert said in left.wait_for("FAILS: ")
        assert eventually(lambda: f"share: {server.socket}: FAILS: it cannot" in status(one, left.folder))
        meanwhile = [knock() for _ in range(5)]
        for line in [answer(left, client, packet, one.ipv4) for packet in meanwhile]:
            if policy == "local":
                assert "reason=granted" in line
            else:
                assert "reason=store" in line
                assert "the share cannot say whether it is new: it cannot be reached: Connection refused" in line
        with redis(one, tmp_path / "redis") as again:
            left.wait_for("it answers again")
            right.wait_for("it answers again")
            assert eventually(lambda: again.ask("keys", "doorward:seen:*").count(":seen:") >= len(meanwhile))
            if policy == "local":
                assert eventually(lambda: again.ask("exists", "doorward:grants") == "1")
            # Each packet once: what was not asked in time is known to the gateway itself after that.
            lines = (answer(right, client, packet, two.ipv4) for packet in meanwhile)
            assert "reason=replay" in next(line for line in lines if NOT_ASKED not in line), "it was told afterwards"
            granted(right, client, two.ipv4)
            assert eventually(lambda: f"share: {server.socket}: works" in status(one, left.folder))


def test_redis_that_stops_costs_one_wait_a_second_and_is_used_again(gateways: Trio, tmp_path: Path) -> None:
    one, _, client = gateways
    with a_pair(gateways, tmp_path, "local") as (left, _, server):
        server.signal(signal.SIGSTOP)
        left.wait_for("FAILS: no reply within 20 ms")
        for _ in range(3):
            assert "reason=granted" in answer(left, client, knock(), one.ipv4)
        server.signal(signal.SIGCONT)
        left.wait_for("it answers again")
        assert eventually(lambda: server.ask("keys", "doorward:seen:*").count(":seen:") == 3)  # told afterwards


def test_an_error_of_redis_is_no_answer_and_its_end_is_seen_at_the_next_knock(gateways: Trio, tmp_path: Path) -> None:
    one, _, client = gateways
    with a_pair(gateways, tmp_path) as (left, _, server):
        granted(left, client, one.ipv4)
        server.ask("config", "set", "maxmemory", "1")
        assert "OOM command not allowed" in answer(left, client, knock(), one.ipv4)
        left.wait_for("FAILS: OOM command not allowed")
        server.ask("config", "set", "maxmemory", "0")
        left.wait_for("it is written again")  # with what it was not told
        granted(left, client, one.ipv4)


def test_a_replica_is_read_and_says_that_it_is_one(gateways: Trio, tmp_path: Path) -> None:
    one, two, client = gateways
    with (
        replicating(one, two, tmp_path) as (primary, replica),
        two_daemons(gateways, tmp_path, sharing(primary.socket), sharing(replica.socket)) as (left, right),
    ):
        assert "READONLY" in answer(right, client, knock(), two.ipv4)
        granted(left, client, one.ipv4)
        right.wait_for("verdict=carried reason=granted")


@contextlib.contextmanager
def lying(path: Path, reply: bytes, **others: bytes) -> Iterator[None]:
    """A server that answers the same whatever is asked; or something else to these commands."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as accepting:
        accepting.bind(str(path))
        accepting.listen()

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while asked := connection.recv(4096):
                    connection.sendall(others.get(asked.split(b"\r\n")[2].decode(), reply))

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(accepting.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield
        accepting.shutdown(socket.SHUT_RDWR)


LIES = {
    "nonsense": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "another kind": b":1\r\n",
    "two replies": b"+OK\r\n+OK\r\n",
    "no end": b"+" + b"x" * 1000,
    "a string without its end": b"$3\r\nabcdef\r\n",
    "a number that is none": b"$9999999999\r\n",
    "half a reply": b"*1\r\n*2\r\n",
    "an error": b"-ERR \x1b[2Junknown\r\n",
    "queued": b"+QUEUED\r\n",
}


@pytest.mark.parametrize("lie", LIES)
def test_redis_that_lies_opens_nothing(gateways: Trio, tmp_path: Path, lie: str) -> None:
    one, _, client = gateways
    with lying(tmp_path / "sock", LIES[lie]), daemon_of(one, tmp_path / "one", sharing(tmp_path / "sock")) as daemon:
        daemon.wait_for("FAILS: ")
        assert "reason=store" in answer(daemon, client, knock(), one.ipv4)
        assert not [line for line in daemon.lines if "\x1b" in line or "granted" in line]


def test_redis_that_takes_everything_for_new_opens_nothing_twice(gateways: Trio, tmp_path: Path) -> None:
    """With the local store behind it, a gateway has never less than without a share."""
    one, two, client = gateways
    with (
        lying(tmp_path / "sock", b"+OK\r\n", XREAD=b"*-1\r\n", XADD=b"$3\r\n1-0\r\n"),
        two_daemons(gateways, tmp_path, sharing(tmp_path / "sock"), sharing(tmp_path / "sock")) as (left, right),
    ):
        packet = granted(left, client, one.ipv4)
        assert "reason=replay" in answer(left, client, packet, one.ipv4)
        granted(left, client, one.ipv4)
        granted(right, client, two.ipv4)


KEY_OF_ACCESS = (b"k" * 32, b"h" * 64, b"", b"", b"", b"")


def test_whoever_writes_to_redis_opens_nothing(gateways: Trio, tmp_path: Path) -> None:
    one, two, client = gateways
    real, other = RecordKey(KEY_OF_ACCESS), RecordKey((b"K" * 32, *KEY_OF_ACCESS[1:]))
    forged = other.seal(b"G", bytes(12))
    with a_pair(gateways, tmp_path) as (left, right, server), listener(two):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as writer:
            writer.connect(str(server.socket))
            for made in (forged, real.name + forged[8:], b"", real.seal(b"Gxxx", bytes(12))):
                writer.sendall(resp.append(b"doorward:grants", made, 99))
                assert writer.recv(100).startswith(b"$")
        assert "records, of which the last one" in right.wait_for("verdict=carried reason=refused")
        granted(left, client, one.ipv4)
        right.wait_for("verdict=carried reason=granted")
        assert is_open(client, two.ipv4)
        record = server.ask("xrevrange", "doorward:grants", "+", "-", "count", "1")
        assert client.ipv4 not in record, "Redis does not see who is let in"


def test_a_record_that_is_played_again_opens_nothing(gateways: Trio, tmp_path: Path) -> None:
    one, two, client = gateways
    with a_pair(gateways, tmp_path) as (left, right, server), listener(two):
        granted(left, client, one.ipv4)
        right.wait_for("verdict=carried reason=granted")
        close(two, right.folder)
        assert not is_open(client, two.ipv4)
        server.ask("eval", REPEAT, "1", "doorward:grants")
        granted(left, client, one.ipv4, "0.0.0.0,udp/7777")
        right.wait_for("services=udp/7777")  # read behind the record that was played again
        assert not is_open(client, two.ipv4)


REPEAT = """
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return redis.call('XADD', KEYS[1], '*', 'g', first[2][2])
"""


def test_a_grant_that_no_stanza_allows_here_is_not_carried_over(gateways: Trio, tmp_path: Path) -> None:
    one, two, client = gateways
    with redis(one, tmp_path / "redis") as server:
        config = sharing(server.socket)
        narrow = LONG.replace("tcp/22, ", "")
        with (
            daemon_of(one, tmp_path / "one", config) as left,
            daemon_of(two, tmp_path / "two", config, access=narrow) as right,
        ):
            granted(left, client, one.ipv4)
            assert "tcp/22 is not in OPEN_PORTS" in right.wait_for("verdict=carried reason=refused")
            assert client.ipv4 not in two.nft("list set inet doorward open4")
            granted(left, client, one.ipv4, "0.0.0.0,udp/7777")
            right.wait_for("verdict=carried reason=granted")
            assert client.ipv4 in two.nft("list set inet doorward open4")


def faked(offset: str) -> tuple[str, ...]:
    """The command that runs a program whose clock of the day is this far off."""
    (library,) = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")  # noqa: PTH207  an absolute pattern
    return (
        *("env", f"LD_PRELOAD={library}", f"FAKETIME={offset}"),
        *("FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DISABLE_SHM=1"),
    )


@pytest.mark.parametrize("offset", ["+100s", "-100s"])
def test_gateways_whose_clocks_are_apart_say_so_and_accept_no_packet_twice(
    gateways: Trio, tmp_path: Path, offset: str
) -> None:
    one, two, client = gateways
    with redis(one, tmp_path / "redis") as server:
        config = sharing(server.socket)
        with (
            daemon_of(one, tmp_path / "one", config) as left,
            daemon_of(two, tmp_path / "two", config, *faked(offset)) as right,
        ):
            right.wait_for("what is seen here is shared")
            time.sleep(2.5)  # it has read what there was
            addresses = one.ipv4, two.ipv4
            for _ in range(20):  # a record that a slow share delayed is late for another reason, and has no line
                assert "reason=replay" in twice((left, right), client, addresses)
                time.sleep(1.5)
                if [line for line in right.lines if "verdict=carried" in line]:
                    break
            line = right.wait_for("verdict=carried reason=refused")
            assert "s ago: the clocks" in line if offset == "+100s" else "s from now: the clocks" in line
            assert "reason=replay" in twice((right, left), client, addresses[::-1])


def test_a_reload_begins_and_ends_the_sharing(gateways: Trio, tmp_path: Path) -> None:
    one, _, client = gateways
    with redis(one, tmp_path / "redis") as server:
        folder = tmp_path / "one"
        base = f"FIREWALL_FILE {folder}/firewall.nft;\n"
        shared = sharing(server.socket)
        with daemon_of(one, folder, "") as daemon:
            for number, (config, has) in enumerate(
                ((shared, True), (shared + "SHARE_FAILURE local;\n", True), ("", False)), 1
            ):
                write(folder / "doorwardd.conf", base + config)
                daemon.signal(signal.SIGHUP)
                daemon.wait_for("the configuration was read again", number)
                before = server.ask("keys", "doorward:seen:*").count(":seen:")
                granted(daemon, client, one.ipv4)
                assert (server.ask("keys", "doorward:seen:*").count(":seen:") > before) is has


SCRIPT = Path(__file__).with_name("taken_over.py")


def test_a_listener_that_was_taken_over_reaches_no_other_socket(gateways: Trio, tmp_path: Path) -> None:
    one = gateways[0]
    with redis(one, tmp_path / "redis") as server:
        write(tmp_path / "access.conf", f"SOURCE 192.0.2.0/24\n{KEY}\n{HMAC_KEY}\nOPEN_PORTS tcp/22\n")
        write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\n{sharing(server.socket)}")
        argv = (sys.executable, str(SCRIPT), "-f", *files(tmp_path))
        done = one.run(*argv, env=environment(), check=False)
        (line,) = (line for line in (done.stdout + done.stderr).splitlines() if line.startswith("{"))
        found = json.loads(line)
        assert found["connect to the share by itself"] == "PermissionError"
        assert found["connect the share's socket anew"] == "PermissionError"
        assert found["open a UNIX socket"] == "PermissionError"
        assert found["have connections made in a loop"] == "it was asked for a connection a moment ago"
        assert "NOPERM this user has no permissions to run" in found["empty the share"]
        assert found["ask the share"] == "b'+OK\\r\\n'"


@pytest.mark.parametrize("policy", ["refuse", "local"])
def test_the_service_manager_hears_that_no_knock_opens_anything(gateways: Trio, tmp_path: Path, policy: str) -> None:
    """By it the failure policy takes effect, as for a store that cannot be written (first-aid)."""
    one = gateways[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        manager.settimeout(60)
        prefix = ("env", f"NOTIFY_SOCKET={tmp_path}/manager")
        with daemon_of(one, tmp_path / "one", sharing(tmp_path / "redis/redis.sock", policy), *prefix) as daemon:
            daemon.wait_for("FAILS: it cannot be reached")
            said = [manager.recv(4096).decode()]
            while "WATCHDOG=1" not in said[-1] or len(said) < 4:
                said.append(manager.recv(4096).decode())
            failing = [text for text in said if "ERRNO=5" in text]
            assert [text for text in said if "ERRNO=0" in text]
            assert bool(failing) is (policy == "refuse")
            assert all("REPLAY_SHARE cannot be asked: no knock opens anything" in text for text in failing)
            if failing:
                with redis(one, tmp_path / "redis"):
                    while "ERRNO=0" not in manager.recv(4096).decode():
                        pass


def test_a_socket_of_the_servers_group_needs_that_group(gateways: Trio, tmp_path: Path) -> None:
    one, _, client = gateways
    account = pwd.getpwnam("redis")
    with redis(one, tmp_path / "redis") as server:
        os.chown(server.socket, account.pw_uid, account.pw_gid)
        server.socket.chmod(0o770)
        config = sharing(server.socket)
        with daemon_of(one, tmp_path / "without", config) as daemon:
            said = daemon.wait_for("FAILS: it cannot be reached: Permission denied")
            assert "doorward-helper is root without its power over files: see docs/two-gateways.md" in said
            assert "reason=store" in answer(daemon, client, knock(), one.ipv4)
        with daemon_of(one, tmp_path / "with", config, "setpriv", f"--groups=0,{account.pw_gid}") as daemon:
            granted(daemon, client, one.ipv4)


def test_check_and_a_daemon_that_opens_nothing(gateways: Trio, tmp_path: Path) -> None:
    one, _, client = gateways
    with redis(one, tmp_path / "redis") as server:
        write(tmp_path / "access.conf", LONG)
        write(tmp_path / "doorwardd.conf", f"FIREWALL_FILE {tmp_path}/none.nft;\n{sharing(server.socket)}")
        argv = command("check", *files(tmp_path)[:4], "-r", f"{tmp_path}/run")
        assert f"The share {server.socket} answers." in one.run(*argv, env=environment()).stdout
        folder = tmp_path / "test"
        folder.mkdir()
        with doorwardd(one, folder, LONG, sharing(server.socket), "-t") as daemon:
            daemon.wait_for("REPLAY_SHARE is not asked")
            used = knock()
            send(client, used, one.ipv4)
            daemon.wait_for("reason=granted")
        assert server.ask("keys", "*") == "", "a daemon that opens nothing takes no packet from the pair"
        server.kill()
        said = one.run(*argv, env=environment()).stdout
        assert "FAILS: it cannot be reached: Connection refused; knocks meanwhile: SHARE_FAILURE refuse." in said
        report = subprocess.run(
            one.command(*argv, "--report"), check=False, capture_output=True, text=True, env=environment()
        )
        assert f"no  share   {server.socket}: it cannot be reached" in report.stdout
