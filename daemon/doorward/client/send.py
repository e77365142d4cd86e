"""Sending one payload over UDP, TCP or HTTP; raw.py has the carriers that need root.

Source: fwknop client/spa_comm.c, whose format this is; IPv6 is doorward's own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from typing import TYPE_CHECKING, Final

from doorward.client.profile import USER_AGENT, Carrier

if TYPE_CHECKING:
    from doorward.client.address import Endpoint
    from doorward.client.profile import Profile

CONNECT_SECONDS: Final = 5.0
_PROXY_SECONDS: Final = 2.0  # for a proxy to pass the request on: many drop it when the client goes away
_SENDERS_MAX: Final = 8  # of one run; later ones say what earlier ones said
# not in Python's socket module until 3.14: IP_RECVERR and IPV6_RECVERR of linux/in.h and linux/in6.h
_ERRORS: Final = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_FOR_URLS: Final = bytes.maketrans(b"+/", b"-_")


def send(payload: bytes, to: Endpoint, profile: Profile, senders: list[socket.socket] | None = None) -> int:
    """Send a payload and return the number of bytes; without a source port the system chooses one.

    Sockets of UDP are kept in `senders`, at most a few: refusals.py reads there how the network answered. Not those of
    a fixed source port, which the next packet needs.

    Raises:
        OSError: no route, the source port is in use, no server accepts, or this machine's packet filter forbids it.
        ClientError: a raw packet cannot be made.
    """
    if profile.transport.is_raw:
        from doorward.client import raw  # noqa: PLC0415  it loads scapy

        return raw.send(payload, to, profile)
    if profile.transport is Carrier.UDP:
        sender = _bound(to, socket.SOCK_DGRAM, profile)
        with contextlib.nullcontext() if _kept(sender, senders, profile) else sender:
            sender.connect(to.sockaddr)
            return sender.send(payload)
    content = payload if profile.transport is Carrier.TCP else http_request(payload, profile)
    with _bound(to, socket.SOCK_STREAM, profile) as sender:
        sender.settimeout(CONNECT_SECONDS)
        sender.connect(to.sockaddr)
        sender.sendall(content)
        if profile.http_proxy is not None:
            _wait(sender)
    return len(content)


def _kept(sender: socket.socket, senders: list[socket.socket] | None, profile: Profile) -> bool:
    """Keep a socket, in the place of the oldest where there are many, and have the system tell it of refusals."""
    if senders is None or profile.source_port is not None:
        return False
    if len(senders) >= _SENDERS_MAX:
        senders.pop(0).close()
    senders.append(sender)
    if sys.platform == "linux":
        sender.setsockopt(*_ERRORS[sender.family], 1)
    return True


def unsent(error: OSError, to: Endpoint, profile: Profile) -> str:
    """The destination of a payload that was not sent, and the reason."""
    name = f"the proxy {profile.http_proxy.host}" if profile.http_proxy is not None else profile.server
    host = str(to.host) if name in {None, str(to.host)} else f"{name} ({to.host})"
    port = "" if profile.transport is Carrier.ICMP else f" port {to.port}"
    return f"{host}{port} over {profile.transport.value}: {_reason(error, profile)}"


def _reason(error: OSError, profile: Profile) -> str:
    needed = f"; -P {profile.transport.value} needs a server there (ENABLE_TCP_SERVER Y on the host)"
    needed = needed if profile.http_proxy is None else ""
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no answer within {CONNECT_SECONDS:g} s{needed}"
    if error.errno == errno.ECONNREFUSED:
        return f"{error.strerror}{needed}"
    if error.errno == errno.EPERM:
        return f"{error.strerror}: this machine's own packet filter forbids it"
    return error.strerror or str(error)


def http_request(payload: bytes, profile: Profile) -> bytes:
    """The request with the payload as its path, in the alphabet of URLs."""
    path = payload.translate(_FOR_URLS).decode("ascii")
    server = _in_url(profile.server or "")
    lines = [
        f"GET /{path} HTTP/1.1" if profile.http_proxy is None else f"GET http://{server}/{path} HTTP/1.1",
        f"User-Agent: {profile.user_agent or USER_AGENT}",
        "Accept: */*",
        f"Host: {server if profile.http_proxy is None else _in_url(profile.http_proxy.host)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _bound(to: Endpoint, kind: socket.SocketKind, profile: Profile) -> socket.socket:
    if profile.source_port is None:
        return to.open(kind)
    try:
        return to.open(kind, profile.source_port, reuse=kind is socket.SOCK_STREAM)  # it may still be in TIME_WAIT
    except OSError as error:
        raise OSError(error.errno, f"this machine's port {profile.source_port} (-S): {error.strerror}") from error


def _wait(sender: socket.socket) -> None:
    """Wait for the proxy's first bytes; they are ignored."""
    sender.settimeout(_PROXY_SECONDS)
    with contextlib.suppress(OSError):
        sender.recv(1)
