"""DNAT of other programs, as `doorward status` names it."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from doorward.firewall import forwards, ruleset
from doorward.firewall.nftables import Nftables
from doorward.linux.netlink import Netlink
from doorward.values import FirewallMode, Protocol, Service
from system.containers import WEB4, WEB6, publish
from system.doorwardd import environment
from unit.collection.test_firewall_table import render

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.firewall.forwards import Forward
    from system.netns import Namespace

RULES = {
    "tcp dport 2222 redirect to :22": ("tcp/2222", "this host port 22"),
    "udp dport 53 dnat ip6 to [fd00::1]:5353": ("udp/53", "fd00::1 port 5353"),
    "tcp dport 90 dnat ip to ip saddr map { 10.0.0.1 : 10.0.0.2 }": ("tcp/90", "any of several places"),
    "tcp dport { 81, 82 } dnat ip to 10.0.0.1": (None, "10.0.0.1"),
    "ip daddr 10.0.0.7 dnat ip to 10.1.1.1": (None, "10.1.1.1"),
    "fib daddr type local redirect": (None, "this host"),
}


def named(found: list[Forward]) -> list[tuple[str | None, str]]:
    return [(None if one.service is None else str(one.service), one.target) for one in found]


def test_every_rule_of_nft_is_read(ns: Namespace) -> None:
    ns.nft(f"table inet other {{ chain led {{ {'; '.join(RULES)}; }}; chain unused {{ tcp dport 1 redirect; }}; }}")
    ns.nft("table inet other { chain pre { type nat hook prerouting priority dstnat; ct state new jump led; }; }")
    ns.nft("table inet other { chain out { type nat hook output priority -100; tcp dport 2 redirect; }; }")
    ns.nft(ruleset.observe(frozenset(ruleset.Part) - {ruleset.Part.SYSTEMS}))
    with ns.inside():
        kernel = Netlink()
    found = list(forwards.of_nft(kernel))
    kernel.close()
    assert named(found) == list(RULES.values())
    assert {one.place for one in found} == {"table inet other, chain led"}


def status(ns: Namespace, folder: Path, *words: str) -> str:
    argv = (sys.executable, "-m", "doorward", "status", "-r", str(folder), *words)
    return ns.run(*argv, env=environment(), check=False).stdout


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_status_names_what_docker_forwards_and_whether_it_is_closed(
    ns: Namespace, tmp_path: Path, flavour: str
) -> None:
    def closed() -> dict[str, bool]:
        found: dict[str, Any] = json.loads(status(ns, tmp_path, "--json"))
        return {one["service"]: one["closed"] for one in found["forwarded"]}

    publish(ns, flavour)
    assert closed() == {"tcp/8080": False, "udp/7777": False}
    ns.nft(render(doorward_public_services=["tcp/8080"]))
    assert closed() == {"tcp/8080": False, "udp/7777": True}
    assert "an older one" not in status(ns, tmp_path)
    ns.nft(render(doorward_firewall_mode="guard", firewall_services=["tcp/8080"]))
    assert closed() == {"tcp/8080": True, "udp/7777": False}
    ns.nft(ruleset.swap(ruleset.guard([Service(Protocol.UDP, 7777)])))
    assert closed() == {"tcp/8080": False, "udp/7777": True}
    shown = status(ns, tmp_path)
    for web, table in ((WEB4, "ip"), (WEB6, "ip6")):
        port = f"{web} port 80 (table {table} nat, chain DOCKER)"
        if flavour == "legacy":
            place = f"[{web}]" if table == "ip6" else web
            port = f"{place}:80 ({table}tables-legacy, table nat, chain DOCKER)"
        assert f"forwarded by another program: tcp/8080 to {port}: not closed by this table" in shown


def test_status_says_that_an_older_table_lets_pass_what_is_forwarded(ns: Namespace, tmp_path: Path) -> None:
    publish(ns, "nft")
    ns.nft(render())
    assert "NOT WELL: open" not in status(ns, tmp_path)
    ns.nft("flush chain inet doorward forward; flush chain inet doorward published")
    ns.nft("delete chain inet doorward published")
    assert "NOT WELL: open" in status(ns, tmp_path)


def test_a_guard_of_an_older_doorwardd_is_widened_and_keeps_its_grants(ns: Namespace, tmp_path: Path) -> None:
    services = [Service(Protocol.TCP, 8080)]
    ns.nft(ruleset.guard(services))
    ns.nft("flush chain inet doorward forward; flush chain inet doorward published")
    ns.nft("delete chain inet doorward published; delete chain inet doorward elsewhere")
    ns.nft("add element inet doorward open4 { 192.0.2.7 . 6 . 8080 timeout 60s }")
    with ns.inside(), closing(Nftables(tmp_path / "firewall.nft", FirewallMode.GUARD, lambda: services)) as made:
        assert "nothing for ports that other programs forward: it has now" in (made.prepare() or "")
        assert made.prepare() is None
        table = made.table()
        assert table is not None
        assert table.closes_forwarded
        assert [str(one.source) for one in made.grants()] == ["192.0.2.7"]
