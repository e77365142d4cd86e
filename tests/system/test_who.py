"""`doorward who` on a real kernel: who is in, since when, and who is not any more."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from doorward.record import granted
from doorward.record.granted import FILE, Granted
from doorward.values import Grant, Service
from system.doorwardd import ACCESS, doorwardd, environment, eventually, files, send
from system.test_daemon import knock
from system.test_metrics_file import full
from system.test_sessions import UDP, accepting, answers, behind, is_heard, sending, served
from unit.making import OTHER_KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from system.netns import Namespace

NAMED = ACCESS.replace("SOURCE ANY", "SOURCE ANY\nNAME laptop\nFW_ACCESS_TIMEOUT 5")
SECOND = """
SOURCE ANY
NAME phone
KEY_BASE64 S0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0s=
HMAC_KEY_BASE64 SEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISA==
OPEN_PORTS tcp/22
REQUIRE_SOURCE_ADDRESS N
FW_ACCESS_TIMEOUT 5
"""


def console(host: Namespace, folder: Path, *words: str) -> str:
    argv = (sys.executable, "-m", "doorward", words[0], *files(folder), *words[1:])
    return host.run(*argv, env=environment()).stdout.strip()


def who(host: Namespace, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The grants and the connections."""
    said = json.loads(console(host, folder, "who", "--json"))
    return said["grants"], said["connections"]


@contextlib.contextmanager
def connected(client: Namespace, address: str, port: int = 22) -> Iterator[socket.socket]:
    with client.inside(), socket.create_connection((address, port), 5) as made:
        yield made


def seconds(words: str) -> float:
    """The Unix seconds of a time as `who` writes it."""
    return time.mktime(time.strptime(words, "%Y-%m-%d %H:%M:%S+00:00")) - time.timezone


@pytest.mark.parametrize("exact", [True, False], ids=["with times of connection tracking", "without"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_connection_has_its_clients_name_after_its_grant_has_ended(
    pair: tuple[Namespace, Namespace],
    tmp_path: Path,
    family: str,
    exact: bool,  # noqa: FBT001  a case
) -> None:
    host, client = pair
    target = getattr(host, family)
    host.run("sysctl", "-q", "-w", f"net.netfilter.nf_conntrack_timestamp={int(exact)}")
    with accepting(host), doorwardd(host, tmp_path, NAMED) as daemon:
        assert console(host, tmp_path, "who") == "nobody is in"
        before = int(time.time())
        send(client, knock(), target)
        daemon.wait_for("reason=granted")
        with connected(client, target) as connection:
            assert answers(connection)
            after = time.time() + 1
            grants, _ = who(host, tmp_path)
            assert [(one["name"], one["service"]) for one in grants] == [("laptop", "tcp/22")]
            assert eventually(lambda: not who(host, tmp_path)[0]), "the grant ends"
            (one,) = who(host, tmp_path)[1]
            assert (one["name"], one["service"], one["target"]) == ("laptop", "tcp/22", None)
            assert (one["source"], one["source_port"]) == connection.getsockname()[:2]
            if exact:
                assert before <= seconds(one["since"]) <= after
            else:
                assert one["since"] is None
                first, last = map(seconds, one["between"])
                assert before <= first <= after
                assert first + 4 <= last <= first + 6
            said = console(host, tmp_path, "who").splitlines()
            assert said[0] == "laptop"
            assert said[1].startswith(f"  in: {one['source']} port {one['source_port']} tcp/22, ")
            assert console(host, tmp_path, "close", "--from", one["source"], "--sessions") == (
                f"closed 0 of {one['source']}; ended: 1"
            )
            assert not answers(connection)
            assert console(host, tmp_path, "who") == "nobody is in"


def test_two_clients_behind_one_address_are_named_and_a_restart_forgets_nobody(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    host.run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_timestamp=1")
    with accepting(host), contextlib.ExitStack() as stack:
        with doorwardd(host, tmp_path, NAMED + SECOND) as daemon:
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted")
            one = stack.enter_context(connected(client, host.ipv4))
            assert answers(one)
            assert eventually(lambda: not who(host, tmp_path)[0]), "the first grant ends"
            time.sleep(1.5)  # a connection may begin a second after its grant
            second = payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), OTHER_KEYS)
            send(client, second, host.ipv4)
            daemon.wait_for("reason=granted", 2)
            two = stack.enter_context(connected(client, host.ipv4))
            assert answers(two)
        with doorwardd(host, tmp_path, NAMED + SECOND):
            found = {item["source_port"]: item["name"] for item in who(host, tmp_path)[1]}
            ports = [item.getsockname()[1] for item in (one, two)]
            assert found == dict(zip(ports, ["laptop", "phone"], strict=True))


def test_a_udp_flow_and_a_forwarded_connection_are_connections_too(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    gateway, client = pair
    nat = NAMED + "FORCE_NAT 10.88.0.9 22\nENABLE_FORWARD_ACCESS Y\n"
    with behind(gateway, client) as inside, accepting(inside):
        config = "ENABLE_IPT_FORWARDING Y;\n"
        with doorwardd(gateway, tmp_path, nat.replace("tcp/22, udp/7777", "tcp/2222"), config) as daemon:
            send(client, knock("0.0.0.0,tcp/2222"), gateway.ipv4)
            daemon.wait_for("reason=granted")
            with connected(client, gateway.ipv4, 2222) as connection:
                assert answers(connection)
                (one,) = who(gateway, tmp_path)[1]
                assert (one["name"], one["service"], one["target"]) == ("laptop", "tcp/2222", "10.88.0.9,22")
    with (
        served(gateway, "answers"),
        doorwardd(gateway, tmp_path, NAMED) as daemon,
        sending(client, gateway.ipv4) as flow,
    ):
        send(client, knock(f"0.0.0.0,udp/{UDP}"), gateway.ipv4)
        daemon.wait_for("reason=granted")
        assert is_heard(flow)
        assert [(one["name"], one["service"]) for one in who(gateway, tmp_path)[1]] == [("laptop", f"udp/{UDP}")]


def test_others_connections_and_the_hosts_own_are_not_in_it(
    trio: tuple[Namespace, Namespace, Namespace], tmp_path: Path
) -> None:
    host, client, other = trio
    with accepting(host), accepting(other), doorwardd(host, tmp_path, NAMED) as daemon, contextlib.ExitStack() as stack:
        host.nft("add element inet doorward open_any { 6 . 22 timeout 60s, 6 . 2222 timeout 60s }")
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        for source, target, port in ((other, host, 22), (client, host, 2222), (host, other, 22), (client, host, 22)):
            assert answers(stack.enter_context(connected(source, target.ipv4, port)))
        found = [(one["source"], one["service"]) for one in who(host, tmp_path)[1]]
        assert found == [(client.ipv4, "tcp/22")]


def test_a_record_that_finds_no_room_has_whole_lines_alone(open_path: Path) -> None:
    folder = open_path / "run"
    folder.mkdir()
    (entry,) = Granted.of(Grant(ipaddress.ip_address("192.0.2.7"), (Service.parse("tcp/22"),), 30), 1_800_000_000)
    with full(folder):
        (folder / "filling").write_bytes(bytes(1 << 14))
        kept = 0
        with contextlib.suppress(OSError):
            while True:
                granted.append(folder, [entry])
                kept += 1
        assert kept > 10
        assert granted.read(folder) == [entry] * kept
        (folder / "filling").write_bytes(b"")
        granted.append(folder, [entry])
        assert granted.read(folder) == [entry] * (kept + 1)


def test_grants_that_cannot_be_recorded_are_opened_and_one_line_says_so(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    with accepting(host), doorwardd(host, tmp_path, NAMED) as daemon:
        (tmp_path / "run" / FILE).symlink_to(tmp_path / "elsewhere")
        for count in (1, 2):
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted", count)
        with connected(client, host.ipv4) as connection:
            assert answers(connection)
        daemon.wait_for("grants are not on record")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        assert sum("not on record" in line for line in daemon.lines) == 1
    assert not (tmp_path / "elsewhere").exists()
