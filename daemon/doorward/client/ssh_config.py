"""`doorward ssh-config`: the lines that let every ssh, git and rsync knock by itself."""

from __future__ import annotations

import re
import shlex
from typing import Final

from doorward.errors import ClientError

_PATTERN: Final = re.compile(r"[A-Za-z0-9*?!_.:][A-Za-z0-9*?!_.:-]{0,252}", re.ASCII)


def stanza(hosts: list[str], command: list[str]) -> str:
    """Return an ssh_config stanza for the host patterns; `command` is `doorward connect` with its options.

    Raises:
        ClientError: a pattern has a character that ssh_config would read otherwise.
    """
    for host in hosts:
        if _PATTERN.fullmatch(host) is None:
            msg = f"{host[:80]!r} is no host name or pattern for ssh_config"
            raise ClientError(msg)
    # ssh expands % in a ProxyCommand before the shell sees it
    proxy = " ".join(shlex.quote(word).replace("%", "%%") for word in command)
    return "\n".join([f"Match host {','.join(hosts)}", f"    ProxyCommand {proxy} %h %p", "    ProxyUseFdpass yes", ""])
