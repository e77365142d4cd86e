"""Requirements of a configuration on the packet filter and on the kernel."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.firewall.ruleset import Part
from doorward.frozen import dataclass
from doorward.linux.netlink import forwards
from doorward.values import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doorward.config.stanza import Stanza
    from doorward.values import Permissions

FINGERPRINTS: Final = Path("/etc/nftables/osf/pf.os")  # read by libnftables, which does not report it missing
_FORWARDING: Final = {
    "IPv4": (socket.AF_INET, "net.ipv4.ip_forward"),
    "IPv6": (socket.AF_INET6, "net.ipv6.conf.all.forwarding"),
}
# window size, time to live, don't fragment, size of the packet, options, genre, details
_FINGERPRINT: Final = re.compile(r"[^:#\s]+:\d+:[01]:[^:]+:[^:]*:([^:]+):[^\n]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Needs:
    """Parts of the table beyond plain grants, whether connections are forwarded, and systems to distinguish."""

    parts: frozenset[Part] = frozenset()
    forwarding: bool = False
    systems: frozenset[str] = frozenset()
    contradictions: tuple[str, ...] = ()

    @classmethod
    def of(cls, stanzas: Iterable[Stanza], permissions: Permissions) -> Needs:
        """The requirements of stanzas under the permissions of the settings."""
        chosen = [stanza for stanza in stanzas if stanza.cycle is None]  # others run commands instead
        forced = [stanza.forwarding.force for stanza in chosen if stanza.forwarding.force is not None]
        systems = frozenset(stanza.require_os for stanza in chosen if stanza.require_os is not None)
        wanted = {
            Part.NAT: permissions.local_nat or permissions.forwarding or bool(forced),
            Part.DESTINATION: permissions.destination_rule,
            Part.SYSTEMS: bool(systems),
            Part.WIDE: any(stanza.max_prefix4 or stanza.max_prefix6 for stanza in chosen),
        }
        parts = frozenset(part for part, said in wanted.items() if said)
        through = permissions.forwarding or any(not target.is_loopback for target, _ in forced)
        return cls(parts, through, systems, tuple(said for stanza in chosen for said in _contradictions(stanza)))

    def impossible(self, fingerprints: Path = FINGERPRINTS) -> str | None:
        """Why no table can serve this, one problem a line, or None."""
        return "\n".join(filter(None, [*self.contradictions, self.unknown_systems(fingerprints)])) or None

    def unknown_systems(self, file: Path = FINGERPRINTS) -> str | None:
        """Why a wanted system cannot be distinguished, or None."""
        if not self.systems:
            return None
        try:
            known = genres(file.read_text("utf-8", "replace"))
        except OSError as error:
            return (
                f"REQUIRE_OS needs the fingerprints in {file} ({error.strerror}): the package nftables has them as "
                "/usr/share/doc/nftables/examples/pf.os"
            )
        unknown = sorted(self.systems - known)
        if not unknown:
            return None
        return f"REQUIRE_OS {', '.join(unknown)}: {file} knows only {', '.join(sorted(known)) or 'nothing'}"

    def not_forwarding(self, is_on: Callable[[socket.AddressFamily], bool | None] = forwards) -> str | None:
        """Why this host does not forward, or None where it does or need not."""
        off = [name for name, (family, _) in _FORWARDING.items() if self.forwarding and is_on(family) is False]
        if not off:
            return None
        settings = " and ".join(_FORWARDING[name][1] for name in off)
        return f"this host forwards no {' and no '.join(off)}, and grants through it lead nowhere: set {settings} to 1"


def _contradictions(stanza: Stanza) -> Iterator[str]:
    """Requests of a stanza that contradict REQUIRE_OS: fingerprints exist for SYNs of TCP over IPv4."""
    if stanza.require_os is None:
        return
    place = f"{stanza.path}:{stanza.line}: REQUIRE_OS"
    if stanza.forwarding.force is not None or stanza.forwarding.everything:
        yield f"{place} and FORCE_NAT or FORWARD_ALL do not go together"
    if any(service.protocol is not Protocol.TCP for service in stanza.open_ports or ()):
        yield f"{place}: an operating system is recognised by the first packet of TCP, and OPEN_PORTS names UDP"


def genres(text: str) -> frozenset[str]:
    """The systems that a file of fingerprints names; a prefix @ or * is not part of a name, as nft reads them."""
    named = (match[1].strip() for match in map(_FINGERPRINT.fullmatch, text.splitlines()) if match)
    return frozenset(name[1:] if name[:1] in {"@", "*"} else name for name in named)
