"""`doorward mosh`: mosh to a hidden host. One knock opens ssh's port and the UDP ports that mosh may take."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Final

from doorward.client.ssh_config import program, proxy_command, route_words
from doorward.config import convert
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace

    from doorward.values import Service


PORTS: Final = "udp/60000-60010"


def run(said: SimpleNamespace) -> None:
    """Become mosh.

    Raises:
        ClientError: mosh is not installed, or the ports are none that it takes.
    """
    command = words(said, program(sys.orig_argv, sys.argv[1:], sys.executable))
    try:
        os.execvp(command[0], command)  # noqa: S606  no shell; the host is a checked word
    except OSError as error:
        msg = f"{command[0]}: {error.strerror or error} (Debian: apt install mosh)"
        raise ClientError(msg) from error


def words(said: SimpleNamespace, own: Sequence[str]) -> list[str]:
    """The command line of mosh; the host itself says at which address it was reached."""
    if said.jump:
        msg = "mosh speaks UDP, which no jump host carries: take ssh"
        raise ClientError(msg)
    first, last = _ends(said.udp or convert.services(PORTS))
    connect = [*own, "connect", *route_words(said), "--follow-ssh"]
    proxy = proxy_command(connect, f"--service tcp/%p,udp/{first}-{last}")
    ssh = [*(said.ssh or ("ssh",)), "-o", "ProxyUseFdpass=yes", "-o", f"ProxyCommand={proxy}"]
    ports = f"{first}:{last}" if first != last else str(first)
    options = [f"--ssh={shlex.join(ssh)}", "--experimental-remote-ip=remote", "-p", ports]
    return ["mosh", *options, "--", said.destination, *said.command]


def _ends(services: tuple[Service, ...]) -> tuple[int, int]:
    ports = [service.port for service in services]
    if str(services[0].protocol) != "udp" or ports != list(range(ports[0], ports[0] + len(ports))):
        msg = "mosh takes one range of UDP ports: --ports udp/60000-60010"
        raise ClientError(msg)
    return ports[0], ports[-1]
