"""SESSION_MAX and KEEP_WHILE_USED on a real kernel."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from system.doorwardd import ACCESS, doorwardd, eventually, send
from system.test_daemon import knock
from system.test_sessions import UDP, accepting, answers, behind, drain, is_heard, sending, served
from system.test_who import SECOND, connected, console, who
from unit.making import OTHER_KEYS, message, payload

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from system.netns import Namespace

NAMED = ACCESS.replace("SOURCE ANY", "SOURCE ANY\nNAME laptop")
LIMITED = NAMED + "SESSION_MAX 6\nFW_ACCESS_TIMEOUT 3\n"
KEEPING = NAMED + "KEEP_WHILE_USED Y\nFW_ACCESS_TIMEOUT 8\n"
WITHIN = 30


def lives(connection: socket.socket, seconds: float) -> float:
    """For how long a connection carries data, up to so many seconds."""
    began = time.monotonic()
    while answers(connection) and time.monotonic() < began + seconds:
        time.sleep(0.2)
    return time.monotonic() - began


@pytest.mark.parametrize("exact", ["1", "0"], ids=["with times of connection tracking", "without"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_connection_is_ended_when_its_time_is_over_and_no_other(
    pair: tuple[Namespace, Namespace], tmp_path: Path, family: str, exact: str
) -> None:
    host, client = pair
    target = getattr(host, family)
    host.run("sysctl", "-q", "-w", f"net.netfilter.nf_conntrack_timestamp={exact}")
    with accepting(host), doorwardd(host, tmp_path, LIMITED) as daemon:
        send(client, knock(), target)
        daemon.wait_for("reason=granted")
        host.nft("add element inet doorward open_any { 6 . 2222 timeout 60s }")
        with connected(client, target) as session, connected(client, target, 2222) as other:
            lived = lives(session, WITHIN)
            assert 3 < lived < WITHIN
            daemon.wait_for("laptop: SESSION_MAX 6")
            assert answers(other), "the grant was not for this port"
        assert not who(host, tmp_path)[1]
        send(client, knock(), target)
        daemon.wait_for("reason=granted", 2)
        with connected(client, target) as session:
            assert answers(session), "another knock lets the client in again"


def test_a_restart_gives_no_connection_more_time_than_its_last_window(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    with accepting(host), contextlib.ExitStack() as stack:
        with doorwardd(host, tmp_path, NAMED) as daemon:
            send(client, knock(), host.ipv4)
            daemon.wait_for("reason=granted")
            session = stack.enter_context(connected(client, host.ipv4))
            time.sleep(7)
            assert answers(session)
        with doorwardd(host, tmp_path, LIMITED) as daemon:
            daemon.wait_for("laptop: SESSION_MAX 6")
            assert not answers(session)


def test_what_a_grant_without_a_limit_can_have_let_in_goes_on(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    with accepting(host), doorwardd(host, tmp_path, LIMITED + SECOND) as daemon:
        send(client, knock(), host.ipv4)
        send(client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), OTHER_KEYS), host.ipv4)
        daemon.wait_for("reason=granted", 2)
        with connected(client, host.ipv4) as session:
            assert lives(session, 12) >= 12


def test_a_udp_flow_and_a_connection_through_the_host_end_too(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    host, client = pair
    with served(host, "talks"), doorwardd(host, tmp_path, LIMITED) as daemon, sending(client, host.ipv4) as flow:
        send(client, knock(f"0.0.0.0,udp/{UDP}"), host.ipv4)
        daemon.wait_for("reason=granted")
        assert is_heard(flow)
        end = time.monotonic() + WITHIN
        while is_heard(flow, 0.5):
            assert time.monotonic() < end
        daemon.wait_for(f"udp/{UDP}, laptop: SESSION_MAX 6")
        drain(flow)
        assert not is_heard(flow)
    nat = LIMITED.replace("tcp/22, udp/7777", "tcp/2222") + "FORCE_NAT 10.88.0.9 22\nENABLE_FORWARD_ACCESS Y\n"
    config = "ENABLE_IPT_FORWARDING Y;\n"
    with behind(host, client) as inside, accepting(inside), doorwardd(host, tmp_path, nat, config) as daemon:
        send(client, knock("0.0.0.0,tcp/2222"), host.ipv4)
        daemon.wait_for("reason=granted")
        with connected(client, host.ipv4, 2222) as session:
            session.settimeout(2)
            assert lives(session, WITHIN) < WITHIN
            daemon.wait_for("tcp/2222, laptop: SESSION_MAX 6")


def grants(host: Namespace, folder: Path) -> list[str]:
    return [str(one["service"]) for one in who(host, folder)[0]]


def test_a_grant_lives_while_it_is_used_and_ends_after_that(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    with accepting(host), doorwardd(host, tmp_path, KEEPING) as daemon:
        send(client, knock(f"0.0.0.0,tcp/22,udp/{UDP}"), host.ipv4)
        daemon.wait_for("reason=granted")
        assert sorted(grants(host, tmp_path)) == ["tcp/22", f"udp/{UDP}"]
        with connected(client, host.ipv4) as session:
            assert eventually(lambda: grants(host, tmp_path) == ["tcp/22"]), "the one that nobody uses ends"
            time.sleep(20)
            assert answers(session)
            assert grants(host, tmp_path) == ["tcp/22"]
            with connected(client, host.ipv4) as second:
                assert answers(second), "another connection needs no knock"
        assert eventually(lambda: grants(host, tmp_path) == [], 60)


def test_a_udp_tunnel_keeps_its_grant(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    with served(host, "answers"), doorwardd(host, tmp_path, KEEPING) as daemon, sending(client, host.ipv4) as flow:
        send(client, knock(f"0.0.0.0,udp/{UDP}"), host.ipv4)
        daemon.wait_for("reason=granted")
        for _ in range(14):
            assert is_heard(flow)
            time.sleep(1)
        assert grants(host, tmp_path) == [f"udp/{UDP}"]
        host.run("conntrack", "-F")
        assert is_heard(flow), "a new flow gets in by the grant"


def test_what_root_closes_is_not_kept(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    with accepting(host), doorwardd(host, tmp_path, KEEPING) as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        with connected(client, host.ipv4) as session:
            time.sleep(10)
            assert grants(host, tmp_path) == ["tcp/22"]
            console(host, tmp_path, "close", "--from", client.ipv4)
            assert answers(session)
            time.sleep(6)
            assert grants(host, tmp_path) == []


def test_a_stanza_without_it_keeps_nothing(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    host, client = pair
    with accepting(host), doorwardd(host, tmp_path, KEEPING.replace("KEEP_WHILE_USED Y\n", "")) as daemon:
        send(client, knock(), host.ipv4)
        daemon.wait_for("reason=granted")
        with connected(client, host.ipv4) as session:
            assert answers(session)
            assert eventually(lambda: grants(host, tmp_path) == [])
            assert answers(session)
