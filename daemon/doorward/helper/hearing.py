"""How knocks are heard where the settings leave it open: by a UDP server behind the kernel gate, or passively.

A server does not hear what another firewall drops or forwards, and what arrives in a VRF; passive capture does. So it
is for hosts where nothing of that is in its way (docs/decisions/0023), and what turns up later is looked for.
"""

from __future__ import annotations

import socket
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.config.settings import KNOCK_PORT
from doorward.errors import FirewallError
from doorward.firewall import legacy
from doorward.firewall.kernel_gate import Wanted
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Nftables
from doorward.firewall.wanted import SWITCH_FOLDER
from doorward.helper.messages import Way
from doorward.values import Carriers

if TYPE_CHECKING:
    from doorward.processes.configuration import Configuration

_INTERFACES: Final = Path("/sys/class/net")
_VRF: Final = "DEVTYPE=vrf"  # drivers/net/vrf.c
_REST: Final = 20  # times the duration of a look, before the next one
_REST_MAX: Final = 30.0  # seconds
_WRITTEN: Final = "as the settings say"
_UNHINDERED: Final = "every stanza names clients by public keys, and nothing on this host is in the way"


def way(found: Configuration, *, test: bool = False) -> Way:
    """How knocks are to be heard on this host as it is now. Needs root; with `test` there is no firewall."""
    if not found.settings.automatic:
        return Way(found.settings.udp_server is not None, _WRITTEN)
    why = "without a firewall there is no kernel gate" if test else beforehand(found) or _obstacle(found)
    return Way(why is None, why or _UNHINDERED)


def beforehand(found: Configuration) -> str | None:
    """Why the files alone do without a UDP server, or None where it depends on the host."""
    if found.formats.fwknop or not found.clients:
        return "not every stanza names clients by public keys"
    if found.magic != Carriers():
        return "magic packets are heard passively"
    if Needs.of(found.access.stanzas, found.settings.permissions).forwarding:
        return "connections are forwarded, and knocks may be addressed to other hosts"
    return None


def packet_filter(found: Configuration) -> Nftables:
    """The packet filter of a configuration, for a look at it. Raises FirewallError."""
    chosen = found.settings
    return Nftables(
        chosen.firewall_file,
        chosen.firewall_mode,
        lambda: found.guarded,
        needs=Needs.of(found.access.stanzas, chosen.permissions),
        mark=chosen.mark,
        switch=SWITCH_FOLDER,
    )


def gate_of(found: Configuration) -> Wanted | None:
    """The kernel gate that a configuration needs: in front of a UDP server for clients of doorward 1."""
    port = found.settings.udp_server
    return Wanted(port, found.formats.fwknop, found.clients) if port is not None and found.clients else None


class Watcher:
    """Looks for what turns up in the way of a UDP server that nobody asked for by name."""

    def __init__(self, found: Configuration, chosen: Way) -> None:
        """Watch for the configuration `found`, whose knocks are heard as `chosen`."""
        self._found = found
        self._watching = found.settings.automatic and chosen.server
        self._interfaces = socket.if_nameindex()
        self._changed = False
        self._next = 0.0
        self.obstacle = ""

    def expect(self) -> None:
        """Look again: rules of another firewall changed."""
        self._changed = True

    def look(self, now: float) -> None:
        """Find out whether something is in the way, if something changed and the last look is long enough ago.

        `now` in seconds of time.monotonic(). iptables-legacy reports no changes: to be in use is one.
        """
        if not self._watching or self.obstacle or now < self._next:
            return
        interfaces = socket.if_nameindex()
        if not (self._changed or interfaces != self._interfaces or legacy.is_used()):
            return
        self._changed, self._interfaces = False, interfaces
        found = way(self._found)
        self.obstacle = "" if found.server else found.why
        ended = time.monotonic()
        self._next = ended + min(_REST_MAX, _REST * (ended - now))


def _obstacle(found: Configuration) -> str | None:
    """What is in the way of a UDP server on this host, or None."""
    vrf = _vrf()
    if vrf is not None:
        return f"{vrf} is a VRF, where a server hears nothing"
    if legacy.is_used():
        return "tables of iptables-legacy are in use, which report no changes"
    try:
        with closing(packet_filter(found)) as firewall:
            return firewall.obstacle(Wanted(KNOCK_PORT, fwknop=False, clients=found.clients))
    except FirewallError as error:
        return f"the firewall cannot be read: {error}"


def _vrf(folder: Path = _INTERFACES) -> str | None:
    """An interface that is a VRF, or None."""
    for said in sorted(folder.glob("*/uevent")):
        with suppress(OSError):  # it has just gone
            if _VRF in said.read_text("ascii", "replace").splitlines():
                return said.parent.name
    return None
