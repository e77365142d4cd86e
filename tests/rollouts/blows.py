"""What strikes the controller, the way between it and a host, or the host from outside."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lab import hosts
from lab.containers import podman
from lab.controller import AT_ONCE
from lab.plan import CONTROLLER, CONTROLLER_LINK, NETWORK, Address
from lab.run import attempt, run
from rollouts.faults import ACCESS, Blow
from rollouts.processes import kill
from rollouts.scene import ROLLOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollouts.scene import Run, Scene

MOVED: Final = Address(2)  # where the controller goes


def strike(blow: Blow, scene: Scene, under_way: Run) -> None:
    """Strike, and return once it is done."""
    _BLOWS[blow](scene, under_way)


def take_back(blow: Blow, scene: Scene) -> None:
    """Have the controller reach the host again as before; nothing where it does."""
    host = scene.trial.host
    if blow in (Blow.CUT, Blow.MUTE):
        attempt("ip", "netns", "exec", NETWORK, "nft", "delete", "table", "netdev", host.name)
    if blow is Blow.MOVE:
        attempt("ip", "route", "delete", f"{host.address.ipv4}/32")
        attempt("ip", "address", "delete", MOVED.ipv4_interface, "dev", CONTROLLER_LINK)


def _cut(scene: Scene, _: Run) -> None:
    _drop(scene, "")


def _mute(scene: Scene, _: Run) -> None:
    _drop(scene, "udp dport 62201")


def _drop(scene: Scene, what: str) -> None:
    """Have packets of the controller's vanish on their way over the bridge."""
    hook = "type filter hook ingress device controller priority 0;"
    way = f"ip saddr {Address(CONTROLLER).ipv4} ip daddr {scene.trial.host.address.ipv4}"
    rules = f"table netdev {scene.host} {{\nchain incoming {{\n{hook}\n{way} {what} drop\n}}\n}}\n"
    run("ip", "netns", "exec", NETWORK, "nft", "-f", "-", stdin=rules)


def _move(scene: Scene, _: Run) -> None:
    """Have new connections to the host come from another address of the controller."""
    run("ip", "address", "replace", MOVED.ipv4_interface, "dev", CONTROLLER_LINK)
    way = ("dev", CONTROLLER_LINK, "src", MOVED.ipv4)
    run("ip", "route", "replace", f"{scene.trial.host.address.ipv4}/32", *way)


def _another(scene: Scene, _: Run) -> None:
    """Roll out from elsewhere, from beginning to end."""
    home = scene.controller.home
    other = replace(scene.controller, home=home.with_name(f"{home.name}o"))
    window = ("--extra-vars", "doorward_window=8")
    other.playbook(ROLLOUT, "--limit", scene.host, *AT_ONCE, *ACCESS, *window).check()
    shutil.rmtree(other.home, ignore_errors=True)


def _power(scene: Scene, _: Run) -> None:
    host = scene.trial.host
    podman("kill", "--signal=KILL", host.container)
    podman("wait", host.container)
    hosts.start(host)


_BLOWS: Final[dict[Blow, Callable[[Scene, Run], None]]] = {
    Blow.KILL: lambda _, under_way: kill(under_way.process.pid),
    Blow.INTERRUPT: lambda _, under_way: os.killpg(under_way.process.pid, signal.SIGINT),
    Blow.TERMINATE: lambda _, under_way: os.killpg(under_way.process.pid, signal.SIGTERM),
    Blow.CUT: _cut,
    Blow.MUTE: _mute,
    Blow.MOVE: _move,
    Blow.LOSE_KEY: lambda scene, _: (scene.folder / "client.key").unlink(),
    Blow.ANOTHER: _another,
    Blow.REBOOT: lambda scene, _: hosts.restart(scene.trial.host),
    Blow.POWER: _power,
}
