"""`doorward ssh-config`: the lines that make every ssh, git and rsync knock."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace

    from doorward.client.profile import HostPort

_PATTERN: Final = re.compile(r"[A-Za-z0-9*?!_.:][A-Za-z0-9*?!_.:-]{0,252}", re.ASCII)
_ALONE: Final = 2  # words: an interpreter and its script


def block(hosts: list[str], command: list[str], *, fdpass: bool = True) -> str:
    """An ssh_config block for the host patterns; `command` is `doorward connect` with its options.

    `Host` and not `Match host`, which is compared with what HostName made of the name.

    Raises:
        ClientError: a pattern has a character with another meaning in ssh_config.
    """
    for host in hosts:
        if _PATTERN.fullmatch(host) is None:
            msg = f"{host[:80]!r} is no host name or pattern for ssh_config"
            raise ClientError(msg)
    passing = "yes" if fdpass else "no"
    return f"Host {' '.join(hosts)}\n    ProxyCommand {proxy_command(command)}\n    ProxyUseFdpass {passing}\n"


def proxy_command(command: Sequence[str], *more: str) -> str:
    """A ProxyCommand that appends ssh's host and port to a command; a shell reads it after ssh has expanded it.

    `more` are options that ssh is to expand too.
    """
    words = (shlex.quote(word).replace("%", "%%") for word in command)
    return " ".join([*words, *more, "--", "'%h'", "'%p'"])


def program(original: Sequence[str], arguments: Sequence[str], executable: str) -> list[str]:
    """The words that run this program from any folder, without its arguments.

    `original` are all words of the process, and `executable` is the interpreter.
    """
    words = list(original[: len(original) - len(arguments)])
    if "-m" in words:
        return [executable, *words[1:]]
    words = [_absolute(word) for word in words]
    if len(words) == _ALONE and os.access(words[1], os.X_OK):
        return words[1:]
    return [executable, *words[1:]]


def _absolute(word: str) -> str:
    return str(Path(word).absolute()) if Path(word).is_file() else word


def _place(place: HostPort | None) -> str | None:
    if place is None:
        return None
    host = f"[{place.host}]" if ":" in place.host else place.host
    return host if place.port is None else f"{host}:{place.port}"


def route_words(said: SimpleNamespace) -> list[str]:
    """The options of the knock and of the way as words of a command line."""
    given = {
        "--rc-file": said.rc_file.absolute() if said.rc_file else None,  # ssh runs it from any folder
        "-n": said.section,
        "--spa-server": said.server,
        "--spa-port": said.port,
        "--service": ",".join(map(str, said.access)) if said.access else None,
        "--source": getattr(said.source, "value", said.source),
        "--prefix": ",".join(map(str, said.prefixes)) if said.prefixes else None,
        "--nat-access": _place(said.nat_access),
        "--jump": ",".join(map(str, said.jump)) if said.jump else None,
        "--ssh": shlex.join(said.ssh) if said.ssh else None,
        "-b": said.bind_address,
        "-B": said.bind_interface,
    }
    flags = [option for option, is_set in (("-4", said.ipv4_only), ("-6", said.ipv6_only)) if is_set]
    return [*flags, *(word for option, value in given.items() if value is not None for word in (option, str(value)))]
