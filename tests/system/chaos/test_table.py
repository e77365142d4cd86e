"""The nft table under attack by others on the host, while knocks arrive."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from system.doorwardd import eventually, is_open

if TYPE_CHECKING:
    from system.chaos.scene import Scene
    from system.doorwardd import Running

ATTACKS = {
    "the table deleted": "delete table inet doorward\n",
    "the whole ruleset flushed": "flush ruleset\n",
    "its rules flushed": "flush table inet doorward\n",
    "its chain flushed": "flush chain inet doorward guard\n",
    "its chain deleted": "flush chain inet doorward guard\ndelete chain inet doorward guard\n",
    "its guarded services forgotten": "flush set inet doorward guarded\n",
    "a rule in front": "insert rule inet doorward guard accept\n",
    "the table made dormant": "add table inet doorward { flags dormant; }\n",
}
GRANTS = 10_000
OPENINGS = 65_536  # that the sets of a table hold (firewall/ruleset.py)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_table_attacked_in_a_loop_while_knocks_arrive(scene: Scene, attack: str) -> None:
    with scene.daemon() as daemon:
        for _ in range(20):
            scene.knock()
            scene.host.run("nft", "-f", "-", input=ATTACKS[attack], check=False)
        assert eventually(lambda: not is_open(scene.client, scene.host.ipv4, within=0.2), 3), "open to everybody"
        scene.check(daemon)


def test_the_table_replaced_by_a_swap_while_knocks_arrive(scene: Scene) -> None:
    with scene.daemon() as daemon:
        text = scene.host.run("nft", "-s", "list", "table", "inet", "doorward").stdout
        for _ in range(20):
            scene.knock()
            scene.host.nft(f"add table inet doorward\ndelete table inet doorward\n{text}")
        scene.check(daemon)


def test_a_table_that_a_knock_finds_gone_comes_back_with_what_was_open(scene: Scene) -> None:
    """The helper is held up, so that the knock and the news of the deletion wait for it together."""
    with scene.daemon() as daemon:
        scene.host.nft("add element inet doorward open4 { 198.51.100.9 . 6 . 22 timeout 5s }\n")
        daemon.process.kill()
        daemon.process.wait(10)
    with scene.daemon() as daemon:
        for _ in range(5):
            daemon.signal(signal.SIGSTOP)
            knock = scene.knock()
            time.sleep(0.1)  # the listener's message comes first
            scene.host.nft("flush ruleset\n")
            daemon.signal(signal.SIGCONT)
            scene.granted(daemon, knock)
            assert eventually(lambda: "198.51.100.9" in scene.open_sources(), 2)
        assert eventually(lambda: "198.51.100.9" not in scene.open_sources())
        scene.check(daemon)


def test_ten_thousand_grants_outlive_reload_restart_and_flush_and_their_ends_do_not_move(scene: Scene) -> None:
    lasts, rounded = 600, 2  # seconds
    with scene.daemon() as daemon:
        made = [f"10.{n // 2500}.{n // 50 % 50}.{n % 50}" for n in range(GRANTS)]
        elements = ", ".join(f"{source} . 6 . 22 timeout {lasts}s" for source in made)
        before = time.monotonic()
        scene.host.nft(f"add element inet doorward open4 {{ {elements} }}\n")
        after = time.monotonic()
        assert len(scene.open_sources()) == GRANTS
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("was read again")
        scene.granted(daemon, scene.knock())
        daemon.process.kill()
        daemon.process.wait(10)
    with scene.daemon() as daemon:
        scene.granted(daemon, scene.knock())
        assert len(scene.open_sources()) >= GRANTS
        scene.host.nft("flush ruleset\n")
        scene.granted(daemon, scene.knock())
        daemon.wait_for("OUR TABLE WAS REMOVED")
        most = lasts - (time.monotonic() - after) + rounded
        remaining = scene.remaining()
        least = lasts - (time.monotonic() - before) - rounded
        assert [source for source in made if not least <= remaining[source] <= most] == []
        scene.host.nft("flush set inet doorward open4\n")
        scene.check(daemon)


def test_as_many_openings_as_the_table_holds_refuse_another_renew_their_own_and_make_room_when_one_ends(
    scene: Scene,
) -> None:
    with scene.daemon() as daemon:
        made = (f"10.0.{n >> 8}.{n & 255} . 6 . 22 timeout 1h" for n in range(OPENINGS))
        scene.host.nft(f"add element inet doorward open4 {{ {', '.join(made)} }}\n")
        refused = scene.knock()
        line = daemon.wait_for(f"origin_port={refused.port} ")
        assert "reason=firewall" in line
        assert "the set is full" in line
        scene.granted(daemon, scene.knock("10.0.9.9"))
        assert eventually(lambda: scene.witness.times("10.0.9.9") == 1), "who has an opening keeps it"
        assert eventually(lambda: "reason=granted" in answer(scene, daemon)), "that one ended, and made room"
        assert scene.witness.times(refused.source) == 0
        scene.host.nft("flush set inet doorward open4\n")
        scene.check(daemon)


def answer(scene: Scene, daemon: Running) -> str:
    """The line of another knock."""
    return daemon.wait_for(f"origin_port={scene.knock().port} ")
