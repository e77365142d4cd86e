# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The explicit knock of actions: the client's command line for a connection, and its run."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.doorward.spa.plugins.connection.ssh import Connection

_SOURCE_FLAGS = {"auto": (), "packet": ("-s",)}


def command(
    connection: Connection,
    services: Sequence[str],
    *,
    to: tuple[str | None, int | None] = (None, None),
    source: str | None = None,
    key: Sequence[str] = (),
) -> list[str]:
    """Return the client's command line; what is not given is taken from the connection, and the key stays in a file."""
    option = connection.get_option
    host, port = to[0] or option("spa_host") or connection.spa_dialled().host, to[1] or option("spa_port")
    words = [*_archive.command("knock"), *(key or connection.spa_key_arguments()), "--no-save-args"]
    source = source or option("spa_source")
    words += ["-A", ",".join(services), "-D", host, "-p", str(port), *_SOURCE_FLAGS.get(source, ("-a", source))]
    return [*words, *connection.spa_jump_arguments()]


def send(command: Sequence[str]) -> None:
    """Send one packet.

    Raises:
        AnsibleActionFail: it was not sent; the text is the client's.
    """
    done = subprocess.run(  # noqa: S603  our own archive, no shell
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        msg = f"the knock was not sent: {(done.stderr or done.stdout).strip()[-500:]}"
        raise AnsibleActionFail(msg)
