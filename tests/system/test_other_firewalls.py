"""Other firewalls beside ours: with `admit` a grant opens, with `report` the chain that can drop it is named."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from system.doorwardd import ACCESS, command, doorwardd, environment, eventually, files, listener, send, write
from system.other_firewalls import ADMIT, FARES, OBSERVE, OTHERS, fared, iptables, knock, named, reached, rules, shell
from system.test_fwknop_files import INSTALLED, started, two_stanzas
from system.test_fwknop_files import KEYS as FWKNOP_KEYS
from system.test_fwknop_files import knock as fwknop
from thirds import a_third
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from pathlib import Path

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]
    Trio = tuple[Namespace, Namespace, Namespace]


@pytest.mark.parametrize("name", a_third(OTHERS))
def test_a_grant_opens_where_another_firewall_admits_our_mark(pair: Pair, tmp_path: Path, name: str) -> None:
    host, client = pair
    assert fared(host, client, tmp_path, OTHERS[name]) == FARES
    assert not rules(host), "a daemon that was started without a unit leaves no rule"


@pytest.mark.parametrize("name", a_third(OTHERS))
def test_a_chain_that_can_drop_a_grant_is_named_with_the_command_that_opens_it(
    pair: Pair, tmp_path: Path, name: str
) -> None:
    host, client = pair
    other = OTHERS[name]
    shell(host, other.load)
    before = rules(host)
    address = other.addresses(host)[0]
    with listener(host), doorwardd(host, tmp_path, ACCESS, OBSERVE) as running:
        remedy = named(running, other)
        assert remedy in said(host, "doorwardd", "check", *files(tmp_path))
        assert remedy in said(host, "status", *files(tmp_path))
        knock(client, address, running, 1)
        assert not reached(client, address), "what was said is true"
        assert rules(host) == before == "", "nothing foreign is touched"
        shell(host, remedy)
        assert reached(client, address), "the command helps"
        assert remedy not in said(host, "doorwardd", "check", *files(tmp_path)), (
            "with its rule a chain is named no more"
        )
        assert remedy not in said(host, "status", *files(tmp_path))


def said(host: Namespace, *words: str) -> str:
    """What a command of this checkout prints."""
    argv = [*command()[:-1], *words]
    done = subprocess.run(
        host.command(*argv), check=False, capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.returncode in ((0, 1) if "status" in words else (0,)), done.stderr  # 1: not well, such as this host
    return done.stdout + done.stderr


def test_an_ordinary_host_of_fwknop_opens_without_one_change(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    access = write(tmp_path / "access.conf", two_stanzas())
    shell(host, "iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
    shell(host, "iptables -A INPUT -p tcp --dport 22 -j DROP")
    with (
        listener(host, 22),
        started(host, tmp_path, "-c", str(INSTALLED / "fwknopd.conf"), "-a", str(access)) as daemon,
    ):
        assert not reached(client, host.ipv4)
        fwknop(client, tmp_path, host.ipv4, *FWKNOP_KEYS[:2], "-A", "tcp/22")
        daemon.wait_for("verdict=granted reason=granted")
        assert reached(client, host.ipv4)
        kept = host.run("iptables", "-S", "INPUT").stdout.splitlines()
        assert kept[1].endswith("--comment doorward -j ACCEPT"), "one rule, at the head"
        assert len(kept) == 4


def test_a_forwarded_grant_passes_dockers_chains(trio: Trio, tmp_path: Path) -> None:
    host, client, inner = trio
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    docker = "DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER"
    load = iptables(
        "nft", "-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
        "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -o docker0 -j DOCKER",
        "-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2",
        "-A DOCKER-ISOLATION-STAGE-1 -j RETURN", "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP",
        "-A DOCKER-ISOLATION-STAGE-2 -j RETURN", "-A DOCKER-USER -j RETURN", chains=docker,
    ).replace(":INPUT ACCEPT", ":FORWARD DROP")  # fmt: skip
    load = load.replace("'-A INPUT -p ipv6-icmp -j ACCEPT' ", "")
    shell(host, load)
    access = ACCESS.replace("tcp/22, udp/7777", "tcp/2222") + f"FORCE_NAT {inner.ipv4} 22\nFORCE_MASQUERADE Y\n"
    config = "ENABLE_IPT_FORWARDING Y\nFOREIGN_FIREWALL admit\n"
    with listener(inner, 22), doorwardd(host, tmp_path, access, config) as running:
        running.wait_for("table ip filter, chain FORWARD can drop what a grant lets in: our rule")
        assert not reached(client, host.ipv4, 2222)
        send(client, payload(message(text="0.0.0.0,tcp/2222", time=int(time.time())), KEYS), host.ipv4)
        running.wait_for("reason=granted")
        assert reached(client, host.ipv4, 2222)
        shell(host, load)
        running.wait_for("OUR RULE WAS TAKEN OUT of table ip filter, chain FORWARD", within=3)


def test_a_table_with_an_owner_is_named_and_keeps_nobody_from_starting(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    owned = (
        "add table inet owned { flags owner; }; add chain inet owned input { type filter hook input priority 0; policy "
        "drop; }; add rule inet owned input ct state established accept"
    )
    with (
        host.process("nft", "-i", stdin=subprocess.PIPE) as owner,
        listener(host),
    ):
        assert owner.stdin is not None
        owner.stdin.write(owned.replace("; add", "\nadd") + "\n")
        owner.stdin.flush()
        assert eventually(lambda: "owned" in host.nft("list tables"))
        with doorwardd(host, tmp_path, ACCESS, ADMIT) as running:
            assert "flag owner" in running.wait_for("table inet owned, chain input can drop")
            knock(client, host.ipv4, running, 1)


@pytest.mark.parametrize("count", [5_000, 20_000])
def test_many_rules_of_a_busy_tool_cost_a_knock_nothing(pair: Pair, tmp_path: Path, count: int) -> None:
    host, client = pair
    addresses = (f"10.{n >> 8 & 255}.{n & 255}.1" for n in range(count))
    busy = "".join(f"add rule inet busy input ip saddr {one} tcp dport 23 drop\n" for one in addresses)
    host.nft(
        "add table inet busy\nadd chain inet busy input { type filter hook input priority 0; policy accept; }\n" + busy
    )
    with listener(host), doorwardd(host, tmp_path, ACCESS, "FOREIGN_FIREWALL admit\n") as running:
        running.wait_for("table inet busy, chain input can drop what a grant lets in: our rule")
        took = []
        for number in range(1, 11):
            host.nft("add rule inet busy input ip saddr 10.1.2.3 drop\n")
            began = time.monotonic()
            knock(client, host.ipv4, running, number)
            took.append(time.monotonic() - began)
        assert sorted(took)[5] < 0.2, took
        assert reached(client, host.ipv4)
        assert running.process.poll() is None


def test_a_mark_that_a_rule_of_the_host_uses_is_named(pair: Pair, tmp_path: Path) -> None:
    host, _ = pair
    shell(host, "iptables -A INPUT -p tcp -j MARK --set-xmark 0x40000000/0x40000000")
    with doorwardd(host, tmp_path) as running:
        running.wait_for("table ip filter, chain INPUT uses the bit 0x40000000 of the mark too: set FIREWALL_MARK")
        options = ("-c", str(tmp_path / "doorwardd.conf"), "-a", str(tmp_path / "access.conf"))
        assert "uses the bit 0x40000000" in said(host, "doorwardd", "check", *options)
    with doorwardd(host, tmp_path, ACCESS, "FIREWALL_MARK 0x20000000\n") as running:
        assert not [line for line in running.lines if "uses the bit" in line]


def test_a_mark_from_elsewhere_opens_nothing(pair: Pair, tmp_path: Path) -> None:
    host, client = pair
    shell(host, OTHERS["iptables-nft, policy drop"].load)
    shell(host, "iptables -t mangle -A PREROUTING -j MARK --set-xmark 0x40000000/0x40000000")
    with (
        listener(host),
        doorwardd(host, tmp_path, ACCESS, ADMIT) as running,
    ):
        running.wait_for("our rule accepts it there")
        assert not reached(client, host.ipv4)
        knock(client, host.ipv4, running, 1)
        assert reached(client, host.ipv4)


def test_stop_takes_our_rule_out_of_other_firewalls(pair: Pair, tmp_path: Path) -> None:
    host, _ = pair
    shell(host, OTHERS["iptables-nft, policy drop"].load + " && " + OTHERS["iptables-legacy, policy drop"].load)
    options = ("-c", str(tmp_path / "doorwardd.conf"), "-r", str(tmp_path / "run"))
    with doorwardd(host, tmp_path, ACCESS, "FOREIGN_FIREWALL admit\n") as running:
        assert eventually(lambda: rules(host).count("--comment doorward") == 2)
        stopped = said(host, "firewall", "stop", *options)
        assert "doorwardd keeps its rule in them: stop it first" in stopped
        assert rules(host).count("--comment doorward") == 2
        running.signal(signal.SIGKILL)
        running.process.wait(10)
        assert rules(host), "a daemon that was killed leaves them, and they accept what nobody marks"
        assert "4 rules of ours are taken out" in said(host, "firewall", "stop", *options)
        assert not rules(host)
