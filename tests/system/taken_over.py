# ruff: noqa: SLF001, T201  an intruder respects no privacy, and this one prints what it achieved
"""A taken-over listener: after it has given up its power it makes an intruder's attempts.

Run as `taken_over.py [doorwardd's options]`, as root, in a namespace of its own; prints what came of each attempt.
Everything but the loop is the real listener.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import json
import logging
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import termios
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.capture.udp import UdpCapture
from doorward.daemon import cli, processes
from doorward.errors import DoorwardError, FirewallError
from doorward.listener.loop import Listener
from doorward.values import Grant, Nat, Service
from doorward.wire import resp

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable

    from doorward.helper.remote import RemotePower
    from doorward.listener.sharing import Sharing
    from doorward.record.log import Log

ALLOWED = ("192.0.2.7", "tcp/22", 30)
TARGET = ipaddress.ip_address("10.0.0.5")
_WRITE_AND_RUN = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
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
            "type into the terminal": lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"),
            "open the terminal": lambda: os.open("/dev/tty", os.O_RDWR),
            "have a process of its user signalled": lambda: fcntl.fcntl(self._channel, fcntl.F_SETOWN, os.getpid()),
            "choose the signal": lambda: fcntl.fcntl(self._channel, fcntl.F_SETSIG, signal.SIGKILL),
            "set the limits of a process of its user": lambda: resource.prlimit(os.getpid(), resource.RLIMIT_CORE),
            "make memory that is written and run": lambda: mmap.mmap(-1, 4096, prot=_WRITE_AND_RUN),
            "be in a thread that was there before": lambda: _in_thread_of(self._log, socket.socketpair),
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
            "have AUDIT_FILE opened where none is configured": self._power.open_audit,
            **(_on_the_share(self._sharing, self._power) if self._sharing is not None else {}),
            **(self._on_the_gate() if self._configuration.clients else {}),
            "send the helper nonsense": lambda: _nonsense(self),
        }

    def _on_the_gate(self) -> dict[str, Callable[[], Any]]:
        most, now = 3 * self._configuration.clients, int(time.time()) // 64
        strange = [os.urandom(8) for _ in range(most + 1)]
        return {
            "let more tags pass than clients have": lambda: self._power.let_pass({now: strange}),
            "let them pass in several messages": lambda: self._let_pass_later({now: strange[:most], now + 1: strange}),
            "let tags of another time pass": lambda: self._power.let_pass({int(time.time()) // 64 + 9: strange[:1]}),
            "let strangers' tags pass": lambda: self._let_pass_later({now: strange[:most]}),
            "let others pass at once": lambda: self._power.let_pass({now: strange[1:]}),
        }

    def _let_pass_later(self, tags: dict[int, list[bytes]]) -> None:
        """Let tags pass when the listener's own refresh at its start is long enough ago."""
        time.sleep(1.1)
        self._power.let_pass(tags)


def _on_the_share(sharing: Sharing, power: RemotePower) -> dict[str, Callable[[], Any]]:
    path, connection = sharing.path, sharing._share._socket
    assert connection is not None
    return {
        "connect to the share by itself": lambda: _call(_LIBC.connect, connection.fileno(), *_address(path)),
        "connect the share's socket anew": lambda: connection.connect(str(path)),
        "have connections made in a loop": lambda: [power.open_share() for _ in range(2)],
        "empty the share": lambda: _said(connection, b"*1\r\n$8\r\nFLUSHALL\r\n"),
        "ask the share": lambda: _said(connection, resp.claim(b"doorward:seen:x", 1000)),
    }


def _address(path: Path) -> tuple[bytes, int]:
    packed = struct.pack("=H108s", socket.AF_UNIX, bytes(path))
    return packed, len(packed)


def _said(connection: socket.socket, question: bytes) -> None:
    """Raise what is answered."""
    os.write(connection.fileno(), question)
    time.sleep(0.5)
    raise DoorwardError(connection.recv(100).partition(b" (")[0])


def _leading(nat: Nat) -> Grant:
    return replace(_grant(*ALLOWED), nat=nat)


def _write_inherited(name: str) -> None:
    """Write to the file of this name through an inherited descriptor."""
    folder = Path("/proc/self/fd")
    opened = {link.readlink().name: int(link.name) for link in sorted(folder.iterdir()) if link.is_symlink()}
    if "replay.db" not in opened:
        message = "the descriptors cannot be seen"
        raise RuntimeError(message)
    os.write(opened[name], b"1\n")


def _grant(source: str, service: str, seconds: int) -> Grant:
    name = os.environ.get("TAKEN_OVER_STANZA")  # a helper refuses a name that the allowing stanza does not have
    return Grant(ipaddress.ip_address(source), (Service.parse(service),), seconds, name=name)


def _nonsense(listener: TakenOver) -> None:
    os.write(listener._channel.fileno(), b"\xff" * 100)
    if not listener._channel.recv(100):
        message = "it ended"
        raise DoorwardError(message)


class _Task(logging.Handler):
    """A log handler that runs a task in the thread of the log."""

    def __init__(self, task: Callable[[], Any]) -> None:
        super().__init__()
        self._task = task
        self.done = threading.Event()
        self.error: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        del record
        try:
            self._task()
        except OSError as error:
            self.error = error
        self.done.set()


def _in_thread_of(log: Log, task: Callable[[], Any]) -> None:
    """Run a task in the log's thread, which began before the filter was installed."""
    handler = _Task(task)
    log.write_also(handler)
    log.info("a line for %s", task)
    handler.done.wait(5)
    log.write_no_more(handler)
    if handler.error is not None:
        raise handler.error


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
