"""The verdict on a packet by the production decision, without privileges and without effects."""

from __future__ import annotations

import argparse
import binascii
import contextlib
import ipaddress
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.config import access, private_key, reader
from doorward.config.settings import CONFIG_FOLDER, KNOCK_PORT, STATE_FOLDER, DaemonSettings
from doorward.crypto import magic, openpgp
from doorward.errors import ConfigError, DoorwardError, WireError
from doorward.gate import Gate
from doorward.gnupg import messages
from doorward.gnupg.worker import LocalUnsealer, workspace
from doorward.linux import privileges
from doorward.processes import configuration
from doorward.processes.options import parser
from doorward.record import line as record_line
from doorward.replay import ReplayView
from doorward.values import Datagram, Permissions, Protocol, unmap
from doorward.wire import magic as wire_magic
from doorward.wire.doorward import PACKET
from doorward.wire.fwknop import PAYLOAD_MAX

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Sequence

    from doorward.config.access import Access
    from doorward.gate import Memory, Verdict

_ICMP, _ECHO_REQUEST = 1, 0x0800
_PACKET_TEXT = 220  # characters of base64
_DecidedBy = tuple["Access", Permissions, "int | None"]


class _Nothing:
    """A memory that has seen nothing."""

    def remember(self, packet: bytes, made: int, until: int, *, client: bytes = b"") -> bool:  # noqa: ARG002  the interface of Memory
        """Every packet is new."""
        return True

    def use_step(self, name: bytes, step: int) -> bool:  # noqa: ARG002  the interface of Memory
        """Every one-time code is new."""
        return True


def main(argv: Sequence[str]) -> int:
    """Explain the payload on standard input: 0 it would be granted, 1 it would not, 2 usage."""
    options = command_line().parse_args(argv)
    payload = _payload(sys.stdin.buffer.read(PAYLOAD_MAX + 1))
    try:
        decided_by = _decided_by(options)
        user = privileges.account() if os.geteuid() == 0 else None
        if any(stanza.openpgp for stanza in decided_by[0].stanzas):
            openpgp.load()  # the other user may not be able to read our own files
        with workspace() as folder:
            if user is None:
                return _explain(options, payload, decided_by, folder, None)
            os.chown(folder, user.pw_uid, user.pw_gid)
            return _apart(lambda: _explain(options, payload, decided_by, folder, user))
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  the problems, one a line
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why the command failed
    return 1


def _payload(read: bytes) -> bytes:
    """The packet in what was read: as it is, as a line, or one of doorward 1 as a line of base64 with its padding."""
    line = read.strip()
    if len(read) == PACKET:
        return read
    if len(line) == _PACKET_TEXT and line.endswith(b"="):
        with contextlib.suppress(binascii.Error):
            return binascii.a2b_base64(line)
    return line


def _apart(explain: Callable[[], int]) -> int:
    """The exit code of a child, which gives up its rights for good."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        code = explain()
        sys.stdout.flush()
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why the command failed
    except Exception:  # noqa: BLE001  a child that ends without a word
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)  # never into the parent's code


def _explain(
    options: argparse.Namespace, payload: bytes, decided_by: _DecidedBy, folder: Path, user: pwd.struct_passwd | None
) -> int:
    """Print the verdict; copies of keyrings lie in `folder`. It is decided as `user`."""
    memory = _memory(options.digest_file)
    if user is not None:
        privileges.become(user)
    access_file, permissions, max_age = decided_by
    datagram = Datagram(payload, options.origin, options.destination, 0, *_place(access_file, payload))
    now = time.time() if options.time is None else options.time
    age = None if options.any_age else max_age if options.max_age is None else options.max_age
    unsealer = LocalUnsealer(access_file.homes, folder)
    doing: dict[str, Any] = {"permissions": permissions, "execute": _do_nothing, "unsealer": unsealer}
    gate = Gate(access_file.stanzas, memory, _do_nothing, age, host_key=access_file.host_key, **doing)
    verdict = _verdict(gate, unsealer, datagram, now)
    print(record_line.line(verdict))  # noqa: T201  the command's output
    return 0 if verdict.granted else 1


def _place(access_file: Access, payload: bytes) -> tuple[int, int]:
    """The port, or type and code, to which a packet comes, and the protocol: where its stanza waits for it."""
    waiting = [one.magic for one in access_file.stanzas if one.magic is not None]
    with contextlib.suppress(WireError):
        message = wire_magic.parse(payload)
        for one in sorted(waiting, key=lambda each: not magic.is_of(message, each.password)):
            return (_ECHO_REQUEST, _ICMP) if one.port is None else (one.port, Protocol.UDP)
    return KNOCK_PORT, Protocol.UDP


def _verdict(gate: Gate, unsealer: LocalUnsealer, datagram: Datagram, now: float) -> Verdict:
    """The verdict, after all the waiting for gpg that there is."""
    verdict = gate.take(datagram, now)
    while verdict is None:
        number, outcome = unsealer.receive()
        verdict = gate.resume(number, messages.answer(outcome))
    return verdict


def _decided_by(options: argparse.Namespace) -> _DecidedBy:
    """The inputs of the decision: the stanzas, their permissions by the settings, and the accepted age in seconds."""
    if options.config_file is None:
        file = options.access_file or CONFIG_FOLDER / "access.conf"
        alone = access.load(file)
        key = options.host_key or DaemonSettings().host_key_file
        if any(stanza.clients for stanza in alone.stanzas):
            alone = replace(alone, host_key=private_key.parse(str(key), reader.content(key, secret=True)).private)
        return alone, Permissions(), DaemonSettings().max_age
    words = ["-c", str(options.config_file)]
    words += [] if options.access_file is None else ["-a", str(options.access_file)]
    found = configuration.load(parser().parse_args(words))[0]
    return found.access, found.settings.permissions, found.settings.max_age


def _do_nothing(_decided: object) -> None:
    """Stand for the effect of a decision."""


def _memory(path: Path | None) -> Memory:
    return ReplayView(path) if path is not None and path.exists() else _Nothing()


def command_line() -> argparse.ArgumentParser:
    """The parser of `doorwardd explain`."""
    made = argparse.ArgumentParser(
        prog="doorwardd explain", description="Say what would become of the packet on standard input, without effect."
    )
    add = made.add_argument
    add("--origin", type=_packed, required=True, metavar="ADDRESS", help="where the packet comes from")
    add("--destination", type=_packed, default=bytes(4), metavar="ADDRESS", help="where it goes to (default 0.0.0.0)")
    add("-a", "--access-file", type=Path, metavar="FILE", help=f"stanzas (default {CONFIG_FOLDER / 'access.conf'})")
    add("-c", "--config-file", type=Path, metavar="FILE", help="settings: NAT and age (default: none of them is read)")
    add("--host-key", type=Path, metavar="FILE", help="without -c: the host's key pair (default: as the settings')")
    add("-d", "--digest-file", type=Path, default=STATE_FOLDER / "replay.db", metavar="FILE", help="replay store")
    add("--time", type=float, metavar="EPOCH", help="decide as at this time (default: now)")
    add("--max-age", type=int, metavar="SECONDS", help="accepted age of a packet (default: the settings')")
    add("--any-age", action="store_true", help="accept packets of any age, such as a captured one")
    return made


def _packed(text: str) -> bytes:
    return unmap(ipaddress.ip_address(text).packed)
