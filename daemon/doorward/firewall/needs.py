"""What a configuration asks of the packet filter and of the kernel around it."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.firewall.forwarding import forwards
from doorward.firewall.ruleset import Part
from doorward.values import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doorward.config.stanza import Stanza

FINGERPRINTS: Final = Path("/etc/nftables/osf/pf.os")  # where libnftables looks, and says nothing when it is not there
_FORWARDING: Final = {
    "IPv4": (socket.AF_INET, "net.ipv4.ip_forward"),
    "IPv6": (socket.AF_INET6, "net.ipv6.conf.all.forwarding"),
}
# window size, time to live, don't fragment, size of the packet, options, genre, details
_FINGERPRINT: Final = re.compile(r"[^:#\s]+:\d+:[01]:[^:]+:[^:]*:([^:]+):[^\n]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Needs:
    """The parts of the table beyond plain grants, whether connections pass through, and systems to be told apart."""

    parts: frozenset[Part] = frozenset()
    forwarding: bool = False
    systems: frozenset[str] = frozenset()
    contradictions: tuple[str, ...] = ()

    @classmethod
    def of(cls, stanzas: Iterable[Stanza], *, nat: bool, forwarding: bool, destination: bool) -> Needs:
        """Return what stanzas need under what the settings allow: any NAT, NAT to other hosts, a destination rule."""
        chosen = [stanza for stanza in stanzas if stanza.cycle is None]  # commands take the table's place there
        forced = [stanza.forwarding.force for stanza in chosen if stanza.forwarding.force is not None]
        systems = frozenset(stanza.require_os for stanza in chosen if stanza.require_os is not None)
        wanted = {
            Part.NAT: nat or forwarding or bool(forced),
            Part.DESTINATION: destination,
            Part.SYSTEMS: bool(systems),
        }
        parts = frozenset(part for part, said in wanted.items() if said)
        through = forwarding or any(not target.is_loopback for target, _ in forced)
        return cls(parts, through, systems, tuple(said for stanza in chosen for said in _contradictions(stanza)))

    def impossible(self, fingerprints: Path = FINGERPRINTS) -> str | None:
        """Return why no table could serve this, one problem a line, or None."""
        return "\n".join(filter(None, [*self.contradictions, self.unknown_systems(fingerprints)])) or None

    def unknown_systems(self, file: Path = FINGERPRINTS) -> str | None:
        """Return why a wanted system could not be told from others, or None where all of them can."""
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
        """Return what keeps this host from forwarding at all, or None where nothing does or nothing is forwarded."""
        off = [name for name, (family, _) in _FORWARDING.items() if self.forwarding and is_on(family) is False]
        if not off:
            return None
        settings = " and ".join(_FORWARDING[name][1] for name in off)
        return f"this host forwards no {' and no '.join(off)}, and grants through it lead nowhere: set {settings} to 1"


def _contradictions(stanza: Stanza) -> Iterator[str]:
    """Yield what a stanza asks for that cannot be had with REQUIRE_OS: fingerprints are of SYNs of TCP over IPv4."""
    if stanza.require_os is None:
        return
    place = f"{stanza.path}:{stanza.line}: REQUIRE_OS"
    if stanza.forwarding.force is not None or stanza.forwarding.everything:
        yield f"{place} and FORCE_NAT or FORWARD_ALL do not go together"
    if any(service.protocol is not Protocol.TCP for service in stanza.open_ports or ()):
        yield f"{place}: an operating system is told from the first packet of TCP, and OPEN_PORTS names UDP"


def genres(text: str) -> frozenset[str]:
    """Return the systems that a file of fingerprints names; a mark before a name is none of it, as nft reads them."""
    named = (match[1].strip() for match in map(_FINGERPRINT.fullmatch, text.splitlines()) if match)
    return frozenset(name[1:] if name[:1] in {"@", "*"} else name for name in named)
