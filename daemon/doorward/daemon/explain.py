"""What would become of a packet, by the production decision, without privileges and without effects."""

from __future__ import annotations

import argparse
import ipaddress
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward import audit
from doorward.config import access
from doorward.config.daemon import CONFIG_FOLDER, STATE_FOLDER, DaemonSettings
from doorward.errors import ConfigError, DoorwardError
from doorward.gate import Gate
from doorward.replay import ReplayStore
from doorward.values import Datagram, unmap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from doorward.config.stanza import Stanza
    from doorward.daemon.configuration import Configuration
    from doorward.gate import Memory

_PAYLOAD_MAX: Final = 1501


class _View:
    """The replay store as it stands, read only."""

    def __init__(self, store: ReplayStore) -> None:
        self._store = store

    def remember(self, packet: bytes, made: int, until: int) -> bool:  # noqa: ARG002  the interface of Memory
        """Say whether the packet would be new."""
        return not self._store.has(packet)


class _Nothing:
    """A memory that has seen nothing."""

    def remember(self, packet: bytes, made: int, until: int) -> bool:  # noqa: ARG002  the interface of Memory
        """Say that the packet is new."""
        return True


def main(argv: Sequence[str]) -> int:
    """Explain the payload on standard input: 0 it would be granted, 1 it would not, 2 usage."""
    options = _parser().parse_args(argv)
    payload = sys.stdin.buffer.read(_PAYLOAD_MAX).strip()
    try:
        stanzas = access.load(options.access_file).stanzas
        memory = _memory(options.digest_file)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  the problems, one a line
        return 1
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why the command failed
        return 1
    datagram = Datagram(payload, options.origin, options.destination, 0, 62201)
    now = time.time() if options.time is None else options.time
    verdict = Gate(stanzas, memory, lambda _grant: None, None if options.any_age else options.max_age).judge(
        datagram, now
    )
    print(audit.line(verdict))  # noqa: T201  the command's output
    return 0 if verdict.granted else 1


def _memory(path: Path | None) -> Memory:
    return _View(ReplayStore(path, read_only=True)) if path is not None and path.exists() else _Nothing()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="doorwardd explain", description="Say what would become of the packet on standard input, without effect."
    )
    add = parser.add_argument
    add("--origin", type=_packed, required=True, metavar="ADDRESS", help="where the packet comes from")
    add("--destination", type=_packed, default=bytes(4), metavar="ADDRESS", help="where it goes to (default 0.0.0.0)")
    add("-a", "--access-file", type=Path, default=CONFIG_FOLDER / "access.conf", metavar="FILE", help="stanzas")
    add("-d", "--digest-file", type=Path, default=STATE_FOLDER / "replay.db", metavar="FILE", help="replay store")
    add("--time", type=float, metavar="EPOCH", help="decide as at this time (default: now)")
    add("--max-age", type=int, default=DaemonSettings().max_age, metavar="SECONDS", help="accepted age of a packet")
    add("--any-age", action="store_true", help="accept packets of any age, such as a captured one")
    return parser


def _packed(text: str) -> bytes:
    return unmap(ipaddress.ip_address(text).packed)


def describe(configuration: Configuration) -> Iterator[str]:
    """Yield the configuration as it was understood, line by line, keys masked."""
    settings = configuration.settings
    for name in settings.__slots__:
        yield f"{name}: {getattr(settings, name)}"
    for stanza in configuration.access.stanzas:
        yield f"stanza {stanza.number} ({stanza.path}:{stanza.line})"
        yield from _stanza(stanza)


def _stanza(stanza: Stanza) -> Iterator[str]:
    for name in stanza.__slots__:
        value = getattr(stanza, name)
        if isinstance(value, frozenset):
            value = ", ".join(map(str, sorted(value)))
        if name not in {"number", "path", "line"}:
            yield f"    {name}: {value}"
