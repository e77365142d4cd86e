"""`doorwardd keys`: the host's key pair of the format doorward 1.

Beside its file is FILE.pub with the public half alone, which every user of the host can read: a client asks for it over
ssh, and needs no root for that.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from doorward.config import convert, private_key, reader
from doorward.config.private_key import KeyPair
from doorward.config.settings import DaemonSettings
from doorward.crypto import doorward, fingerprint
from doorward.errors import ConfigError, DoorwardError, WireError
from doorward.linux import files
from doorward.processes import configuration
from doorward.processes.options import parser
from doorward.values import check_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doorward.values import PublicKey


def main(argv: Sequence[str]) -> int:
    """Make the host's key pair, or show its public half: 0 done, 1 failed, 2 usage."""
    options = command_line().parse_args(argv)
    try:
        path = _path(options)
        key, comment = _generate(path, options.comment) if options.command == "generate" else _public(path)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  the problems, one a line
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why the command failed
    else:
        shown = fingerprint.of_line(key, comment) if options.command == "fingerprint" else _line(key, comment)
        print(shown)  # noqa: T201  the command's output
        return 0
    return 1


def command_line() -> argparse.ArgumentParser:
    """The parser of `doorwardd keys`."""
    made = argparse.ArgumentParser(
        prog="doorwardd keys",
        description="The host's key pair of the format doorward 1: make it once, show its public half to clients.",
    )
    add = made.add_argument
    add("command", choices=("generate", "show", "fingerprint"), help="what to do")
    add("-c", "--config-file", type=Path, metavar="FILE", help="settings, which name the file (HOST_KEY_FILE)")
    add("--file", type=Path, metavar="FILE", help="the file of the pair (default: the settings')")
    add("--comment", metavar="NAME", help="with generate: the name behind the public key (default: the host's)")
    return made


def _path(options: argparse.Namespace) -> Path:
    file: Path | None = options.file
    if file is not None:
        return file
    if options.config_file is None:
        return DaemonSettings().host_key_file
    return configuration.settings(parser().parse_args(["-c", str(options.config_file)])).host_key_file


def _generate(path: Path, comment: str | None) -> tuple[PublicKey, str | None]:
    """The public half of a new pair in a new file; an old one is never replaced, since all clients name it."""
    private = doorward.generate(secrets.token_bytes)
    try:
        name = check_name(comment or socket.gethostname())
    except WireError as error:
        msg = f"--comment: {error}"
        raise DoorwardError(msg) from error
    pair = KeyPair(private, doorward.public_key(private), name)
    try:
        files.create(path, private_key.text(pair).encode("ascii"))
        beside = _public_file(path)
        files.replace_file(beside, f"{pair.line}\n".encode("ascii"))
        beside.chmod(0o644)
    except FileExistsError as error:
        msg = f"{path}: exists, and all clients name its public half: move it away first"
        raise DoorwardError(msg) from error
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise DoorwardError(msg) from error
    return pair.public, pair.comment


def _public(path: Path) -> tuple[PublicKey, str | None]:
    """The public half and its comment; those who must not read the pair read the file beside it."""
    beside = _public_file(path)
    if os.access(path, os.F_OK) and not os.access(path, os.R_OK) and os.access(beside, os.F_OK):
        return _read_public(beside)
    pair = doorward.whole(path, private_key.parse(str(path), reader.content(path, secret=True)))
    if os.access(beside, os.F_OK) and beside.read_bytes().split()[:2] != str(pair.public).encode().split():
        told = f"{beside} is not the public half of {path}: `doorwardd keys show > {beside}` writes it"
        print(f"doorwardd: {told}", file=sys.stderr)  # noqa: T201  a warning
    return pair.public, pair.comment


def _read_public(file: Path) -> tuple[PublicKey, str | None]:
    try:
        return convert.public_line(reader.content(file, secret=False).decode("utf-8", "replace"))
    except (ValueError, WireError) as error:
        raise reader.refusal(file, f"is no public key: {error}") from None


def _public_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")


def _line(key: PublicKey, comment: str | None) -> str:
    return f"{key} {comment or ''}".rstrip()
