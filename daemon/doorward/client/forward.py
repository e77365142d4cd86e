"""`doorward forward`: a port of this machine that leads to a hidden service, for programs that know no ProxyCommand.

Every connection to it is one to the service, with a knock of its own.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

from doorward.client.proxy import connected
from doorward.client.surroundings import UnansweredError
from doorward.errors import ClientError, ConfigError, DoorwardError

if TYPE_CHECKING:
    from doorward.client.profile import HostPort
    from doorward.client.surroundings import Outside

_CHUNK: Final = 1 << 16
_AT_ONCE: Final = 128  # connections; more wait until one ends


def run(said: SimpleNamespace, outside: Outside) -> None:
    """Serve until the process ends.

    Raises:
        ClientError: the port cannot be listened on, or is not one of the loopback.
    """
    slots = threading.BoundedSemaphore(_AT_ONCE)
    outside = outside._replace(ask=_ask_nobody)
    with _listening(said.local) as listening:
        host, port = listening.getsockname()[:2]
        outside.say(f"{host} port {port} leads to {said.target.host} port {said.target.port}")
        outside.out.flush()
        while True:
            accepted, _ = listening.accept()
            slots.acquire()
            threading.Thread(target=_serve, args=(accepted, said, outside, slots), daemon=True).start()


def _ask_nobody(_prompt: str) -> str:
    msg = "`doorward forward` does not ask at each connection"
    raise UnansweredError(msg)


def _listening(local: HostPort) -> socket.socket:
    host = "127.0.0.1" if local.host == "localhost" else local.host
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        msg = f"{local.host} is no address of this machine alone: what listens elsewhere would open the door to others"
        raise ClientError(msg)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, local.port or 0), family=family)
    except OSError as error:
        msg = f"{host} port {local.port or 0}: {error.strerror or error}"
        raise ClientError(msg) from error


def _serve(accepted: socket.socket, said: SimpleNamespace, outside: Outside, slots: threading.Semaphore) -> None:
    """Connect for one client, and carry its bytes; a failure is told, and ends this connection alone."""
    one = SimpleNamespace(**{**vars(said), "host": said.target.host, "dial_port": said.target.port})
    with accepted:
        try:
            with connected(one, outside) as opened:
                opened.settimeout(None)
                carry(accepted, opened)
        except ConfigError as error:
            outside.warn(str(error))
        except (DoorwardError, OSError) as error:
            outside.warn(f"{one.host} port {one.dial_port}: {error}")
        finally:
            slots.release()


def carry(one: socket.socket, other: socket.socket) -> None:
    """Copy bytes both ways until both sides have ended; each direction may end alone."""
    upwards = threading.Thread(target=_copy, args=(one, other), daemon=True)
    upwards.start()
    _copy(other, one)
    upwards.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # one side is gone, and with it the connection
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
