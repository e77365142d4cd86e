"""From an execution to an argument list and an account. Nothing is run here."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
from typing import TYPE_CHECKING, Final

from doorward.errors import HelperError
from doorward.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doorward.config.stanza import Commands, Cycle, Stanza
    from doorward.values import Execution

ACCOUNTS: Final = ("doorward-exec", "nobody")  # the first that exists runs the commands without CMD_EXEC_USER
ROOT: Final = "root"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL: Final = "/bin/sh"
_NAME: Final = re.compile(r"\$(PKT_SRC|CLIENT_TIMEOUT|TIMEOUT|PROTO|PORT|SRC|DST|IP)")


@dataclass(frozen=True, slots=True)
class Account:
    """The account that runs a command."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def account(user: str | None, group: str | None = None) -> Account:
    """The account of a user, or the least privileged one; root only by its own name.

    Raises:
        HelperError: there is no such user or group, or it is root under another name.
    """
    entry = _entry(user)
    gid = entry.pw_gid if group is None else _gid(group)
    if entry.pw_uid == 0 and user != ROOT:
        msg = f"user {entry.pw_name} is root by another name: write root where root is meant"
        raise HelperError(msg)
    if gid == 0 and entry.pw_uid and group != ROOT:
        msg = f"the group of user {entry.pw_name} is root's: name another one"
        raise HelperError(msg)
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if user is not None else (gid,)
    return Account(entry.pw_name, entry.pw_uid, gid, groups, entry.pw_dir)


def _entry(user: str | None) -> pwd.struct_passwd:
    for name in ACCOUNTS if user is None else (user,):
        try:
            return pwd.getpwnam(name)
        except KeyError:  # noqa: PERF203  of two names
            continue
    msg = f"there is no user {user or ' or '.join(ACCOUNTS)}"
    raise HelperError(msg)


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        msg = f"there is no group {group}"
        raise HelperError(msg) from None


def _begin(text: str) -> str:
    """The first word of a command, for the log: the others may be secrets."""
    return repr(text[:60].partition(" ")[0])


def words(text: str) -> tuple[str, ...]:
    """Split a command into arguments, with quotes and backslashes as in a shell, and no other syntax.

    Raises:
        HelperError: it has no arguments, a quote without an end, or a zero byte.
    """
    try:
        found = tuple(shlex.split(text))
    except ValueError as error:
        msg = f"{_begin(text)}: {error}"
        raise HelperError(msg) from error
    if not found or not found[0] or "\0" in text:
        msg = f"{_begin(text)} is no command"
        raise HelperError(msg)
    return found


def of_client(commands: Commands, command: str, sudo: Path) -> tuple[str, ...]:
    """The arguments of a client's command.

    Raises:
        HelperError: it is no command.
    """
    chosen = words(command)
    if commands.shell:
        chosen = (_SHELL, "-c", command)
    if not commands.sudo:
        return chosen
    options: list[str] = []
    for letter, name in (("-u", commands.sudo_user), ("-g", commands.sudo_group)):
        options += [] if name is None else [letter, name]
    return (str(sudo), "-n", *options, "--", *chosen)


def of_cycle(command: str, execution: Execution) -> tuple[str, ...]:
    """The arguments of an administrator's command, with the values of an execution substituted.

    It is split first: a value, whatever is in it, stays within one argument. A `$` before any other word stays.

    Raises:
        HelperError: it is no command.
    """
    values = dict(substitutions(execution))
    return tuple(_NAME.sub(lambda found: values[found[1]], word) for word in words(command))


def substitutions(execution: Execution) -> Iterator[tuple[str, str]]:
    """The values of fwknopd's variables in a command cycle; port 0 where no service was requested."""
    service = execution.service
    yield "IP", str(execution.source)
    yield "SRC", str(execution.source)
    yield "PKT_SRC", str(execution.origin)
    yield "DST", str(execution.destination)
    yield "PORT", str(service.port if service else 0)
    yield "PROTO", str(int(service.protocol) if service else 0)
    yield "TIMEOUT", str(execution.made + execution.seconds)
    yield "CLIENT_TIMEOUT", str(execution.seconds)


def environment(execution: Execution, user: Account, action: str) -> dict[str, str]:
    """The whole environment of a command."""
    named = {f"SPA_{name}": value for name, value in substitutions(execution) if name not in {"IP", "SRC"}}
    return clean(user) | named | {
        "SPA_SOURCE": str(execution.source),
        "SPA_STANZA": str(execution.stanza),
        "SPA_ACTION": action,
    }  # fmt: skip


def clean(user: Account) -> dict[str, str]:
    """The variables that every program expects."""
    return {
        "PATH": PATH,
        "HOME": user.home,
        "USER": user.name,
        "LOGNAME": user.name,
        "SHELL": _SHELL,
        "LANG": "C.UTF-8",
    }


def problems(stanza: Stanza) -> Iterator[str]:
    """The faults of a stanza's commands, and their differences from fwknopd."""
    where = f"{stanza.path}:{stanza.line}"
    commands, cycle = stanza.commands, stanza.cycle
    try:
        if commands is not None:
            user = account(commands.user, commands.group)
            if commands.user is None:
                yield f"{where}: without CMD_EXEC_USER commands run as {user.name}, not as root"
        if cycle is not None:
            cycle_account(cycle)
            for text in filter(None, (cycle.open, cycle.close)):
                words(text)
        if stanza.named is not None:
            user = account(stanza.named.user, stanza.named.group)
            if stanza.named.user is None:
                yield f"{where}: without CMD_EXEC_USER the COMMANDS run as {user.name}"
            for _, text in stanza.named.texts:
                words(text)
    except HelperError as error:
        yield f"{where}: {error}: its knocks will fail"


def cycle_account(cycle: Cycle) -> Account:
    """The account of a command cycle: root, as in fwknopd, unless the stanza has a CMD_EXEC_USER."""
    return account(cycle.user or ROOT, cycle.group)
