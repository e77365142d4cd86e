# ruff: noqa: SLF001, T201  an intruder respects no privacy, and this one prints what it achieved
"""A listener that was taken over: after it has given up its power it tries what an intruder would.

Run as `taken_over.py [doorwardd's options]`, as root, in a namespace of its own; prints what came of each attempt.
Everything but the loop is the real listener.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.capture.udp import UdpCapture
from doorward.daemon import cli, processes
from doorward.daemon.listener import Listener
from doorward.errors import DoorwardError, FirewallError
from doorward.values import Grant, Nat, Service

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable

ALLOWED = ("192.0.2.7", "tcp/22", 30)
TARGET = ipaddress.ip_address("10.0.0.5")
_LIBC = ctypes.CDLL(None, use_errno=True)


class TakenOver(Listener):
    """The listener with the intruder's program in place of its loop."""

    def _serve(self, selector: selectors.BaseSelector) -> None:
        del selector
        tap = next(iter(self._captures._captures.values()))._sockets[0]  # type: ignore[attr-defined]
        print(json.dumps({name: _outcome(attempt) for name, attempt in self._attempts(tap).items()}), flush=True)
        time.sleep(0.1)

    def _attempts(self, tap: socket.socket) -> dict[str, Callable[[], Any]]:
        servers = [one._socket for one in self._captures._captures.values() if isinstance(one, UdpCapture)]
        return {
            **(_on_the_server(servers[0]) if servers else {}),
            "open an INET socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "open an INET6 socket": lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM),
            "open a PACKET socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
            "open a NETLINK socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12),
            "open a UNIX socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
            "send on the capture socket": lambda: tap.send(b"x" * 60),
            "send to an address on the capture socket": lambda: tap.sendto(b"x" * 60, ("eth0", 0x0800)),
            "write on the capture socket": lambda: os.write(tap.fileno(), b"x" * 60),
            "rebind the capture socket": lambda: tap.bind(("eth0", 0x0003)),
            "take the capture filter off": lambda: tap.setsockopt(socket.SOL_SOCKET, 27, struct.pack("i", 0)),
            "be root again": lambda: os.setresuid(0, 0, 0),
            "run a program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606  the point is that it cannot
            "trace the helper": lambda: _call(_LIBC.ptrace, 16, os.getppid(), 0, 0),
            "write another PID into the PID file": lambda: _write_inherited(self._configuration.settings.pid_file.name),
            "kill the helper": lambda: os.kill(os.getppid(), signal.SIGKILL),
            "fork": os.fork,
            "make a user namespace in a child": lambda: _call(_LIBC.syscall, 56, 0x10000011, 0, 0, 0, 0),
            "make one by clone3": lambda: _call(_LIBC.syscall, 435, None, 0),
            "signal itself as any process of its user": lambda: os.kill(os.getpid(), 0),
            "start a thread": lambda: threading.Thread(target=int).start(),
            "leave its namespaces": lambda: _call(_LIBC.unshare, 0x40000000),
            "use io_uring": lambda: _call(_LIBC.syscall, 425, 8, None),
            "read /etc/shadow": Path("/etc/shadow").read_bytes,
            "read access.conf": Path(self._configuration.settings.access_file).read_bytes,
            "write outside its state": lambda: Path("/var/lib/intruder").write_bytes(b"x"),
            "open what a stanza allows": lambda: self._power.open(_grant(*ALLOWED)),
            "open another port": lambda: self._power.open(_grant("192.0.2.7", "tcp/23", 30)),
            "open a longer window": lambda: self._power.open(_grant("192.0.2.7", "tcp/22", 301)),
            "open for another network": lambda: self._power.open(_grant("198.51.100.1", "tcp/22", 30)),
            "lead connections to another port": lambda: self._power.open(_leading(Nat(None, 22))),
            "lead connections to another host": lambda: self._power.open(_leading(Nat(TARGET, 22))),
            "send the helper nonsense": lambda: _nonsense(self),
        }


def _leading(nat: Nat) -> Grant:
    return replace(_grant(*ALLOWED), nat=nat)


def _write_inherited(name: str) -> None:
    """Write to the file of this name through a descriptor that is open already."""
    folder = Path("/proc/self/fd")
    opened = {link.readlink().name: int(link.name) for link in sorted(folder.iterdir()) if link.is_symlink()}
    if "replay.db" not in opened:
        message = "the descriptors cannot be seen"
        raise RuntimeError(message)
    os.write(opened[name], b"1\n")


def _grant(source: str, service: str, seconds: int) -> Grant:
    return Grant(ipaddress.ip_address(source), (Service.parse(service),), seconds)


def _nonsense(listener: TakenOver) -> None:
    os.write(listener._channel.fileno(), b"\xff" * 100)
    if not listener._channel.recv(100):
        message = "it ended"
        raise DoorwardError(message)


def _call(function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _on_the_server(server: socket.socket) -> dict[str, Callable[[], Any]]:
    return {
        "connect the UDP server's socket": lambda: server.connect(("192.0.2.1", 9)),
        "send on the UDP server's socket": lambda: server.sendto(b"x", ("192.0.2.1", 9)),
        "write on the UDP server's socket": lambda: os.write(server.fileno(), b"x"),
        "change the UDP server's socket": lambda: server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1),
    }


def _outcome(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except (OSError, KeyError) as error:
        return f"{type(error).__name__}"
    except FirewallError as error:
        return f"refused: {error}"
    except DoorwardError as error:
        return str(error)
    return "done"


if __name__ == "__main__":
    vars(processes)["Listener"] = TakenOver
    sys.exit(cli.main(sys.argv[1:]))
