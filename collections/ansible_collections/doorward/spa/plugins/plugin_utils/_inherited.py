# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that a first table must not cut; standard library only.

The kernel begins to track connections when a rule first asks for their state. To an older one, a packet from the peer
looks new, and a table that drops what is new would end every session that waits for its peer.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIST = ("ss", "-Htn", "state", "established")
_COLUMNS = 4  # queues, local and peer address
_SECONDS = 86_400  # far beyond the two hours after which the host's own keepalive makes the connection known
_SETS = {4: "inherited4", 6: "inherited6"}


def elements(listing: str) -> str:
    """Return the nft commands that let in what is left of the TCP connections that `ss` lists; empty without any."""
    pairs = list(_pairs(listing.splitlines()))
    lines = []
    for version, name in _SETS.items():
        chosen = sorted(text for number, text in pairs if number == version)
        if chosen:
            lines.append(f"add element inet doorward {name} {{ {', '.join(chosen)} }}\n")
    return "".join(lines)


def _pairs(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for words in map(str.split, lines):
        if len(words) < _COLUMNS:
            continue
        try:
            (local, local_port), (peer, peer_port) = _endpoint(words[2]), _endpoint(words[3])
        except ValueError:
            continue  # a warning of ss, or words of a tty
        if not local.is_loopback:
            yield local.version, f"{peer} . {peer_port} . {local} . {local_port} timeout {_SECONDS}s"


def _endpoint(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """Read `192.0.2.1:22`, `[2001:db8::1]:22` or `[fe80::1]%eth0:22`; a mapped address becomes the IPv4 one."""
    place, _colon, port = text.rpartition(":")
    address = ipaddress.ip_address(place.partition("%")[0].strip("[]"))
    return getattr(address, "ipv4_mapped", None) or address, int(port)
