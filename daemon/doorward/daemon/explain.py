"""What would become of a packet, by the production decision, without privileges and without effects."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward import audit
from doorward.config import access
from doorward.config.daemon import CONFIG_FOLDER, STATE_FOLDER, DaemonSettings
from doorward.daemon import configuration
from doorward.daemon.options import parser
from doorward.errors import ConfigError, DoorwardError
from doorward.gate import Gate
from doorward.policy import Abilities
from doorward.privsep import unsealing
from doorward.privsep.unsealer import LocalUnsealer
from doorward.replay import ReplayStore
from doorward.values import Datagram, unmap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doorward.config.access import Access
    from doorward.gate import Memory, Verdict

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
        access_file, abilities, max_age = _decided_by(options)
        memory = _memory(options.digest_file)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  the problems, one a line
        return 1
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why the command failed
        return 1
    datagram = Datagram(payload, options.origin, options.destination, 0, 62201)
    now = time.time() if options.time is None else options.time
    age = None if options.any_age else max_age if options.max_age is None else options.max_age
    with tempfile.TemporaryDirectory(dir=_for_keyrings()) as folder:
        unsealer = LocalUnsealer(access_file.homes, Path(folder))
        doing: dict[str, Any] = {"abilities": abilities, "execute": _do_nothing, "unsealer": unsealer}
        verdict = _verdict(Gate(access_file.stanzas, memory, _do_nothing, age, **doing), unsealer, datagram, now)
    print(audit.line(verdict))  # noqa: T201  the command's output
    return 0 if verdict.granted else 1


def _verdict(gate: Gate, unsealer: LocalUnsealer, datagram: Datagram, now: float) -> Verdict:
    """Return the verdict, after all the waiting for gpg that there is."""
    verdict = gate.take(datagram, now)
    while verdict is None:
        number, outcome = unsealer.receive()
        verdict = gate.resume(number, unsealing.answer(outcome))
    return verdict


def _for_keyrings() -> str | None:
    """Return where copies of keyrings go: into memory, where we may."""
    return "/run" if os.access("/run", os.W_OK) else None


def _decided_by(options: argparse.Namespace) -> tuple[Access, Abilities, int | None]:
    """Return what decides: the stanzas, what the settings let them do, and the accepted age in seconds."""
    if options.config_file is None:
        file = options.access_file or CONFIG_FOLDER / "access.conf"
        return access.load(file), Abilities(), DaemonSettings().max_age
    words = ["-c", str(options.config_file)]
    words += [] if options.access_file is None else ["-a", str(options.access_file)]
    found = configuration.load(parser().parse_args(words))[0]
    return found.access, found.abilities, found.settings.max_age


def _do_nothing(_decided: object) -> None:
    """Stand for the effect of a decision."""


def _memory(path: Path | None) -> Memory:
    return _View(ReplayStore(path, read_only=True)) if path is not None and path.exists() else _Nothing()


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="doorwardd explain", description="Say what would become of the packet on standard input, without effect."
    )
    add = made.add_argument
    add("--origin", type=_packed, required=True, metavar="ADDRESS", help="where the packet comes from")
    add("--destination", type=_packed, default=bytes(4), metavar="ADDRESS", help="where it goes to (default 0.0.0.0)")
    add("-a", "--access-file", type=Path, metavar="FILE", help=f"stanzas (default {CONFIG_FOLDER / 'access.conf'})")
    add("-c", "--config-file", type=Path, metavar="FILE", help="settings: NAT and age (default: none of them is read)")
    add("-d", "--digest-file", type=Path, default=STATE_FOLDER / "replay.db", metavar="FILE", help="replay store")
    add("--time", type=float, metavar="EPOCH", help="decide as at this time (default: now)")
    add("--max-age", type=int, metavar="SECONDS", help="accepted age of a packet (default: the settings')")
    add("--any-age", action="store_true", help="accept packets of any age, such as a captured one")
    return made


def _packed(text: str) -> bytes:
    return unmap(ipaddress.ip_address(text).packed)
