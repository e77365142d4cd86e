"""This machine's address as seen from outside: by a web site over TLS, by a name server, or by the user's own wget.

Whoever answers chooses whom the host lets in, so: TLS is verified, nothing but one plain address counts, and it must be
of the family, and as public, as the host that is knocked at.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import os
import select
import shlex
import socket
import ssl
import subprocess
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from doorward.client import dns
from doorward.client import profile as words
from doorward.client.address import resolve
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doorward.client.address import Endpoint
    from doorward.client.profile import Profile
    from doorward.client.surroundings import Outside
    from doorward.values import IPAddress

SITES: Final = ("https://icanhazip.com/", "https://api64.ipify.org/", "https://www.cipherdyne.org/cgi-bin/myip")
PLAIN_SITES: Final = ("http://icanhazip.com/", "http://www.cipherdyne.org/cgi-bin/myip")
SECONDS: Final = 10.0  # for one site or server, all of it
ANSWER_MAX: Final = 16 * 1024  # bytes of head and body
REDIRECTS_MAX: Final = 3
_ADDRESS_MAX: Final = 60  # characters
_PORTS: Final = {"https": 443, "http": 80}


def address(profile: Profile, host: Endpoint | None, outside: Outside) -> IPAddress:
    """The address that the first answering site of the profile reports; `host` is the host to knock at.

    Raises:
        ClientError: no site reports a usable address; the text has each site's reason.
    """
    failures = []
    for name, ask in _sites(profile, socket.AF_INET if host is None else host.family, outside):
        try:
            found = plain_address(ask())
            check(found, host)
        except (ClientError, OSError, ValueError, http.client.HTTPException) as error:
            failures.append(f"{name}: {_printable(getattr(error, 'strerror', None) or str(error), 200)}")
            continue
        if profile.verbose:
            outside.say(f"[+] Resolved external IP (via '{name}') as: {found}")
        return found
    msg = f"no site reports this machine's address, so name it with -a: {'; '.join(failures)}"
    raise ClientError(msg)


def plain_address(text: str) -> IPAddress:
    """The address in an answer that holds nothing else.

    Raises:
        ClientError: it is something else.
    """
    try:
        return ipaddress.ip_address(text.strip() if len(text) <= _ADDRESS_MAX else "")
    except ValueError:
        msg = f"answers {_printable(text, 40)!r}, not one plain address"
        raise ClientError(msg) from None


def _printable(text: str, limit: int) -> str:
    """A site's text without characters that a terminal obeys."""
    return "".join(char if char.isprintable() else "?" for char in text.strip()[:limit])


def check(found: IPAddress, host: Endpoint | None) -> None:
    """Refuse an address under which the host cannot see this machine.

    Raises:
        ClientError: why it cannot be.
    """
    odd = found.is_unspecified or found.is_loopback or found.is_multicast or found.is_link_local
    if odd or (found.version == 6 and (found.scope_id or found.ipv4_mapped)):  # noqa: PLR2004  IPv6
        msg = f"answers {found}, which is no source of packets"
        raise ClientError(msg)
    if host is None:
        return
    if found.version != host.host.version:
        msg = f"answers {found}, but the host to knock at is {host.host}"
        raise ClientError(msg)
    if host.host.is_global and not found.is_global:
        msg = f"answers {found}, a private address, but {host.host} is public"
        raise ClientError(msg)


def _sites(profile: Profile, family: socket.AddressFamily, outside: Outside) -> Iterator[tuple[str, Callable[[], str]]]:
    """The sites and name servers to ask, in order, each with its call: the profile's, or the built-in list."""
    agent = profile.user_agent or words.USER_AGENT
    plain = bool(profile.resolve_http_only)
    sites = profile.resolve_urls or (() if profile.resolve_dns else PLAIN_SITES if plain else SITES)
    for url in sites:
        if profile.wget is not None and not plain:
            yield url, partial(_by_wget, url, profile, agent, family, outside)
            continue
        if url.startswith("http:") and not plain:
            outside.warn(f"warning: {url}: without TLS an attacker on the path can answer")
        yield url, partial(fetch, url, agent, family, outside.monotonic)
    for question in profile.resolve_dns or ():
        name = f"{question.name}@{question.server.host}"
        yield name, partial(dns.ask, question, family, outside.monotonic)


def fetch(url: str, agent: str, family: socket.AddressFamily, monotonic: Callable[[], float]) -> str:
    """The body of a web address's answer.

    Raises:
        ClientError: no answer of 200 within size and time, or a redirection that must not be followed.
        OSError: no connection, or a bad certificate.
    """
    deadline = monotonic() + SECONDS
    for _ in range(REDIRECTS_MAX + 1):
        answer = _parsed(_exchange(url, agent, family, deadline, monotonic))
        if answer.status == http.HTTPStatus.OK:
            return answer.read(ANSWER_MAX).decode("ascii", "replace")
        url = _next(url, answer)
    msg = f"redirects more than {REDIRECTS_MAX} times"
    raise ClientError(msg)


def _next(url: str, answer: http.client.HTTPResponse) -> str:
    """The target of a redirection: never away from TLS, never to another scheme than HTTP's."""
    location = answer.getheader("Location")
    if answer.status not in {301, 302, 303, 307, 308} or location is None:
        msg = f"answers with status {answer.status}"
        raise ClientError(msg)
    try:
        (target,) = words.urls(urljoin(url, location))
    except ValueError:
        msg = "redirects to a text that is no web address"
        raise ClientError(msg) from None
    if url.startswith("https:") and not target.startswith("https:"):
        msg = "redirects to an address without TLS"
        raise ClientError(msg)
    return target


def _exchange(
    url: str, agent: str, family: socket.AddressFamily, deadline: float, monotonic: Callable[[], float]
) -> bytes:
    """All bytes of an answer, at most ANSWER_MAX, by the deadline."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    left = deadline - monotonic()
    endpoints = resolve(host, parts.port or _PORTS[parts.scheme], family=family, seconds=max(left, 0.1))
    request = f"GET {parts.path} HTTP/1.1\r\nUser-Agent: {agent}\r\nAccept: */*\r\nHost: {parts.netloc}\r\n"
    with socket.socket(endpoints[0].family, socket.SOCK_STREAM) as plain:
        plain.settimeout(max(deadline - monotonic(), 0.1))
        plain.connect(endpoints[0].sockaddr)
        if parts.scheme == "http":
            return _talk(plain, request, deadline, monotonic)
        with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as sealed:
            return _talk(sealed, request, deadline, monotonic)


def _talk(connection: socket.socket, request: str, deadline: float, monotonic: Callable[[], float]) -> bytes:
    connection.sendall(f"{request}Connection: close\r\n\r\n".encode("ascii"))

    def receive(left: float) -> bytes:
        connection.settimeout(left)
        return connection.recv(4096)

    return _all(receive, deadline, monotonic)


def _all(receive: Callable[[float], bytes], deadline: float, monotonic: Callable[[], float]) -> bytes:
    """All bytes up to the end; `receive` takes the seconds that it may wait."""
    content = b""
    while len(content) <= ANSWER_MAX:
        left = deadline - monotonic()
        if left <= 0:
            msg = f"answers too slowly: {SECONDS:g} s are over"
            raise ClientError(msg)
        chunk = receive(left)
        if not chunk:
            return content
        content += chunk
    msg = f"answers with more than {ANSWER_MAX} bytes"
    raise ClientError(msg)


def _parsed(content: bytes) -> http.client.HTTPResponse:
    connection = SimpleNamespace(makefile=lambda _mode: io.BytesIO(content))
    answer = http.client.HTTPResponse(connection)  # type: ignore[arg-type]  # makefile() is all it calls
    answer.begin()
    return answer


def _by_wget(url: str, profile: Profile, agent: str, family: socket.AddressFamily, outside: Outside) -> str:
    """The output of the user's wget, run as fwknop runs it (client/http_resolve_host.c), without a shell."""
    command = shlex.split(profile.wget or "wget")
    if not profile.wget_user_agent:
        command += ["-U", agent]
    command += ["-4" if family is socket.AF_INET else "-6", "--secure-protocol=auto", "--quiet", "-O", "-", url]
    try:
        program = subprocess.Popen(  # noqa: S603  the user's own command
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        msg = f"{command[0]} (-w, WGET_CMD) cannot be run: {error.strerror}"
        raise ClientError(msg) from error
    with program:
        try:
            return _output(program, outside.monotonic).decode("ascii", "replace")
        finally:
            program.kill()


def _output(program: subprocess.Popen[bytes], monotonic: Callable[[], float]) -> bytes:
    assert program.stdout is not None  # noqa: S101  it was asked for
    descriptor = program.stdout.fileno()

    def receive(left: float) -> bytes:
        if not select.select([descriptor], [], [], left)[0]:
            msg = f"prints nothing within {SECONDS:g} s"
            raise ClientError(msg)
        return os.read(descriptor, 4096)

    return _all(receive, monotonic() + SECONDS, monotonic)
