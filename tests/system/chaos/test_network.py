"""Interfaces and addresses that come, go and change under the capture."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from system import netns
from system.chaos.scene import playing
from system.doorwardd import eventually, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from system.chaos.scene import Scene
    from system.doorwardd import Running

    Change = Callable[[Scene, Running, bool], Scene]

ON = {"on all interfaces": "", "on eth0": "PCAP_INTF eth0;\n"}


def _answers(scene: Scene) -> bool:
    return scene.client.run("ping", "-c1", "-W1", scene.host.ipv4, check=False).returncode == 0


def _link(scene: Scene, *words: str) -> None:
    scene.host.run("ip", "link", *words)


def _down_and_up(scene: Scene, _daemon: Running, _named: bool) -> Scene:  # noqa: FBT001  one signature for all changes
    _link(scene, "set", "eth0", "down")
    scene.knock()
    _link(scene, "set", "eth0", "up")
    return scene


def _renamed_and_back(scene: Scene, daemon: Running, named: bool) -> Scene:  # noqa: FBT001  as above
    _link(scene, "set", "eth0", "down")
    _link(scene, "set", "eth0", "name", "other0", "up")
    scene.knock()
    if named:
        daemon.wait_for("eth0 is not there")
    _link(scene, "set", "other0", "down")
    _link(scene, "set", "other0", "name", "eth0", "up")
    return scene


def _deleted_and_made_again(scene: Scene, daemon: Running, named: bool) -> Scene:  # noqa: FBT001  as above
    """Join the two namespaces by a new pair: the interface is another one, with the old one's name."""
    _link(scene, "del", "eth0")
    if named:
        daemon.wait_for("eth0 is not there")
    scene.client.run("ip", "link", "del", "eth0")
    _link(scene, "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", scene.client.name)
    for member in (scene.host, scene.client):
        member.run("ip", "addr", "add", f"{member.ipv4}/24", "dev", "eth0")
        member.run("ip", "link", "set", "eth0", "up")
    return scene


def _another_address(scene: Scene, _daemon: Running, _named: bool) -> Scene:  # noqa: FBT001  as above
    scene.host.run("ip", "addr", "flush", "dev", "eth0")
    moved = dataclasses.replace(scene.host, number=77)
    scene.host.run("ip", "addr", "add", f"{moved.ipv4}/24", "dev", "eth0")
    return dataclasses.replace(scene, host=moved)


CHANGES: dict[str, Change] = {
    "goes down and up": _down_and_up,
    "is renamed and renamed back": _renamed_and_back,
    "is deleted and made again": _deleted_and_made_again,
    "gets another address": _another_address,
}


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("change", CHANGES)
def test_an_interface_that(change: str, where: str) -> None:
    with netns.network("host", "client") as (host, client), playing((host, client)) as scene:
        write(scene.folder / "doorwardd.conf", f"FIREWALL_FILE {scene.folder}/none.nft;\n{ON[where]}", 0o644)
        with scene.daemon() as daemon:
            scene.granted(daemon, scene.knock())
            named = bool(ON[where])
            changed = CHANGES[change](scene, daemon, named)
            assert eventually(lambda: _answers(changed))
            if named and change in {"is renamed and renamed back", "is deleted and made again"}:
                daemon.wait_for("eth0 is there")
            changed.check(daemon)
