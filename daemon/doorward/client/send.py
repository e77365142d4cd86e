"""One payload onto the network, in what carries it: UDP, TCP, HTTP; what needs root is in raw.py.

Source: fwknop client/spa_comm.c, whose bytes these are; IPv6 is ours.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.config.profile import Carrier

if TYPE_CHECKING:
    from doorward.client.address import Endpoint
    from doorward.values import IPAddress

USER_AGENT: Final = "Fwknop/2.6.11"  # receivers look for this name unless ALLOW_ANY_USER_AGENT says otherwise
CONNECT_SECONDS: Final = 5.0
_PROXY_SECONDS: Final = 2.0  # for a proxy to pass the request on: many drop it when the client goes away
_FOR_URLS: Final = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True, slots=True)
class Transport:
    """How packets travel. `server` is the name for HTTP's Host; `proxy` the one that passes the request on."""

    carrier: Carrier = Carrier.UDP
    source_port: int | None = None
    spoofed: IPAddress | None = None
    icmp_type: int | None = None
    icmp_code: int = 0
    user_agent: str = USER_AGENT
    server: str = ""
    proxy: str | None = None


def send(payload: bytes, to: Endpoint, transport: Transport) -> int:
    """Send a payload and return the number of bytes; the source port is the system's choice where none is given.

    Raises:
        OSError: no route, the source port is taken, nobody accepts, or the packet filter of this machine forbids it.
        ClientError: a raw packet cannot be made.
    """
    if transport.carrier.is_raw:
        from doorward.client import raw  # noqa: PLC0415  it loads scapy

        return raw.send(payload, to, transport)
    if transport.carrier is Carrier.UDP:
        with _bound(to, socket.SOCK_DGRAM, transport) as sender:
            sender.connect(to.sockaddr)
            return sender.send(payload)
    content = payload if transport.carrier is Carrier.TCP else http_request(payload, transport)
    with _bound(to, socket.SOCK_STREAM, transport) as sender:
        sender.settimeout(CONNECT_SECONDS)
        sender.connect(to.sockaddr)
        sender.sendall(content)
        if transport.proxy is not None:
            _wait(sender)
    return len(content)


def unsent(error: OSError, to: Endpoint, transport: Transport) -> str:
    """Return where a payload was to go, and why it did not get there."""
    name = f"the proxy {transport.proxy}" if transport.proxy is not None else transport.server
    host = str(to.host) if name in {"", str(to.host)} else f"{name} ({to.host})"
    port = "" if transport.carrier is Carrier.ICMP else f" port {to.port}"
    return f"{host}{port} over {transport.carrier.value}: {_reason(error, transport)}"


def _reason(error: OSError, transport: Transport) -> str:
    needed = f"; -P {transport.carrier.value} needs a server there (ENABLE_TCP_SERVER Y on the host)"
    needed = needed if transport.proxy is None else ""
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no answer within {CONNECT_SECONDS:g} s{needed}"
    if error.errno == errno.ECONNREFUSED:
        return f"{error.strerror}{needed}"
    if error.errno == errno.EPERM:
        return f"{error.strerror}: this machine's own packet filter forbids it"
    return error.strerror or str(error)


def http_request(payload: bytes, transport: Transport) -> bytes:
    """Return the request whose path is the payload, in the alphabet of URLs."""
    path = payload.translate(_FOR_URLS).decode("ascii")
    server = _in_url(transport.server)
    lines = [
        f"GET /{path} HTTP/1.1" if transport.proxy is None else f"GET http://{server}/{path} HTTP/1.1",
        f"User-Agent: {transport.user_agent}",
        "Accept: */*",
        f"Host: {server if transport.proxy is None else _in_url(transport.proxy)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _bound(to: Endpoint, kind: socket.SocketKind, transport: Transport) -> socket.socket:
    made = socket.socket(to.family, kind | socket.SOCK_CLOEXEC)
    try:
        if transport.source_port is not None:
            if kind is socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last knock's may still be in TIME_WAIT
            made.bind(("", transport.source_port))
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"this machine's port {transport.source_port} (-S): {error.strerror}") from error
    return made


def _wait(sender: socket.socket) -> None:
    """Wait for the proxy's first word; what it says is nothing to us."""
    sender.settimeout(_PROXY_SECONDS)
    with contextlib.suppress(OSError):
        sender.recv(1)
