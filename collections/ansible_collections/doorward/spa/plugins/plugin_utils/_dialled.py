# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where ssh really connects: ssh_config may say address, port and user, so ssh itself is asked (`ssh -G`)."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from ansible.errors import AnsibleConnectionFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ansible.plugins.connection import ConnectionBase

SSH_PORT = 22


class Dialled(NamedTuple):
    """What ssh dials; `bind_address` is empty where the kernel chooses."""

    host: str
    port: int
    user: str
    bind_address: str = ""


def dialled(connection: ConnectionBase) -> Dialled:
    """Return what a connection of ssh dials, with the same arguments and files that it uses.

    Raises:
        AnsibleConnectionFailure: ssh refuses its own arguments or files; the text is ssh's.
    """
    option = connection.get_option
    done = subprocess.run(  # noqa: S603  the user's own ssh, no shell
        [option("ssh_executable"), *_arguments(connection), "-G", "--", option("host")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        msg = f"ssh cannot say where it would connect for {option('host')}: {done.stderr.strip()[-500:]}"
        raise AnsibleConnectionFailure(msg)
    return read(done.stdout)


def read(shown: str) -> Dialled:
    """Return what `ssh -G` shows."""
    said: Mapping[str, str] = dict(line.partition(" ")[::2] for line in reversed(shown.splitlines()))
    return Dialled(said["hostname"], int(said["port"]), said["user"], said.get("bindaddress", ""))


def _arguments(connection: ConnectionBase) -> Iterator[str]:
    """Yield ssh's arguments in the order of ansible.builtin.ssh, since ssh takes the first of each."""
    option = connection.get_option
    yield from shlex.split(option("ssh_args") or "")
    if option("port"):
        yield from ("-o", f"Port={option('port')}")
    if option("remote_user"):
        yield from ("-o", f"User={option('remote_user')}")
    yield from shlex.split(option("ssh_common_args") or "")
    yield from shlex.split(option("ssh_extra_args") or "")
