"""What a start needs of this host, each with its remedy: asked before anything is changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from doorward.config.settings import DaemonSettings
from doorward.firewall.nftables import Nftables
from doorward.linux import privileges, seccomp
from doorward.values import FirewallMode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doorward.config.stanza import Stanza

_START: Final = (privileges.CAP_NET_ADMIN, privileges.CAP_NET_RAW, privileges.CAP_SETUID, privileges.CAP_SETGID)


def require(stanzas: Iterable[Stanza] = (), *, firewall: bool = True) -> None:
    """Check what every start needs; without root only what does not need it to be seen.

    `firewall` says whether the packet filter will be used.

    Raises:
        DoorwardError: this host lacks it.
    """
    seccomp.require()
    account = privileges.account()
    if os.geteuid():
        return
    for_keyrings = (privileges.CAP_CHOWN,) if any(stanza.openpgp for stanza in stanzas) else ()
    privileges.require((*_START, *for_keyrings))
    privileges.require_user(account)
    if firewall:
        Nftables(DaemonSettings().firewall_file, FirewallMode.OBSERVE, frozenset).close()
