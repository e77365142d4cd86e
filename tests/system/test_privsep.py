"""What a listener that was taken over can do: nothing but what some stanza allows."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system import netns
from system.doorwardd import HMAC_KEY, KEY, doorwardd, environment, eventually, send, write
from unit.making import KEYS, message, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

    Pair = tuple[Namespace, Namespace]

SCRIPT = Path(__file__).with_name("taken_over.py")
ACCESS = f"SOURCE 192.0.2.0/24\n{KEY}\n{HMAC_KEY}\nOPEN_PORTS tcp/22\n"
REFUSED = {
    "connect the UDP server's socket": "PermissionError",
    "send on the UDP server's socket": "PermissionError",
    "write on the UDP server's socket": "OSError",  # EDESTADDRREQ: it has no peer, and connect is refused
    "change the UDP server's socket": "PermissionError",
    "open an INET socket": "PermissionError",
    "open an INET6 socket": "PermissionError",
    "open a PACKET socket": "PermissionError",
    "open a NETLINK socket": "PermissionError",
    "open a UNIX socket": "PermissionError",
    "send on the capture socket": "PermissionError",
    "send to an address on the capture socket": "PermissionError",
    "write on the capture socket": "OSError",  # ENXIO: it is bound to no interface, and bind is refused
    "rebind the capture socket": "PermissionError",
    "take the capture filter off": "PermissionError",
    "be root again": "PermissionError",
    "run a program": "PermissionError",
    "trace the helper": "PermissionError",
    "write another PID into the PID file": "KeyError",  # no such descriptor
    "kill the helper": "PermissionError",
    "fork": "PermissionError",
    "make a user namespace in a child": "PermissionError",
    "make one by clone3": "OSError",  # ENOSYS, so that threads are made another way
    "signal itself as any process of its user": "PermissionError",
    "leave its namespaces": "PermissionError",
    "use io_uring": "PermissionError",
    "read /etc/shadow": "PermissionError",
    "read access.conf": "PermissionError",
    "write outside its state": "PermissionError",
    "open another port": "refused: no stanza allows it: tcp/23 is not in OPEN_PORTS",
    "open a longer window": "refused: no stanza allows it: window 301",
    "open for another network": "refused: no stanza allows it: source 198.51.100.1",
    "lead connections to another port": "refused: no stanza allows it: local NAT",
    "lead connections to another host": "refused: no stanza allows it: forwarding",
    "send the helper nonsense": "it ended",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("taken_over")
    write(folder / "access.conf", ACCESS)
    write(
        folder / "doorwardd.conf",
        f"FIREWALL_FILE {folder}/none.nft;\nENABLE_UDP_SERVER Y\nUDPSERV_PORT 53\nPCAP_FILTER udp port 62201\n",
    )
    files = ("-c", str(folder / "doorwardd.conf"), "-a", str(folder / "access.conf"), "-r", str(folder / "run"))
    with netns.network("host") as (host,):
        ended = host.run(sys.executable, str(SCRIPT), "-f", *files, env=environment(), check=False)
        yield json.loads(ended.stdout)


@pytest.mark.parametrize("attempt", REFUSED)
def test_a_listener_that_was_taken_over_cannot(outcomes: dict[str, str], attempt: str) -> None:
    assert outcomes[attempt] == REFUSED[attempt]


def test_the_attempts_would_have_been_seen_to_succeed(outcomes: dict[str, str]) -> None:
    """The same program can do the one thing that is allowed, so a refusal is a refusal and not a broken program."""
    assert outcomes["open what a stanza allows"] == outcomes["start a thread"] == "done"
    assert set(outcomes) == {*REFUSED, "open what a stanza allows", "start a thread"}


def processes(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_listener_has_no_capability_and_the_helper_has_three(pair: Pair, tmp_path: Path) -> None:
    with doorwardd(pair[0], tmp_path) as daemon:
        (listener,) = processes(daemon.process.pid)
        theirs, ours = status(listener), status(daemon.process.pid)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(theirs[name], 16) == 0, name
    assert int(ours["CapEff"], 16) == int(ours["CapBnd"], 16) == 1 << 10 | 1 << 12 | 1 << 13
    assert (theirs["Seccomp"], theirs["NoNewPrivs"], ours["NoNewPrivs"]) == ("2", "1", "1")
    assert "0" not in theirs["Uid"].split()
    assert theirs["Groups"] == ""


@pytest.mark.parametrize("which", ["helper", "listener"])
def test_neither_process_outlives_the_other(pair: Pair, tmp_path: Path, which: str) -> None:
    host, client = pair
    with doorwardd(host, tmp_path) as daemon:
        (listener,) = processes(daemon.process.pid)
        os.kill(daemon.process.pid if which == "helper" else listener, 9)
        assert eventually(lambda: not Path(f"/proc/{listener}").exists() or status(listener)["State"].startswith("Z"))
        assert daemon.process.wait(10) != 0
    with doorwardd(host, tmp_path) as daemon:
        send(client, payload(message(text="0.0.0.0,tcp/22", time=int(time.time())), KEYS), host.ipv4)
        daemon.wait_for("reason=granted")
