# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a jump host is reached: by its own variables in the inventory; standard library only."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NEST_MAX = 8
_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_USERS = ("ansible_ssh_user", "ansible_user")
_PORTS = ("ansible_ssh_port", "ansible_port")
_KEYS = ("ansible_ssh_private_key_file", "ansible_private_key_file")


class JumpError(ValueError):
    """A jump host cannot be reached as the inventory says."""


class Jump(NamedTuple):
    """A jump host's address, ssh's words for it, and what its knock takes."""

    host: str
    words: list[str]
    variables: Mapping
    before: Jump | None = None


def find(name: str, hostvars: Mapping, depth: int = 0) -> Jump:
    """Return the jump host of a name, with those before it; a host outside the inventory is left to ssh's own files.

    Raises:
        JumpError: the hosts go round in a circle.
    """
    if depth >= NEST_MAX:
        msg = f"ansible_spa_jump goes through more than {NEST_MAX} hosts, or round in a circle, at {name!r}"
        raise JumpError(msg)
    found = hostvars[name] if name in hostvars else {}  # noqa: SIM401  HostVars.get gives an undefined value instead
    before = str(found.get("ansible_spa_jump") or "none")
    words = [word for option in _ARGUMENTS for word in shlex.split(str(found.get(option) or ""))]
    user, port, key = (_first(found, names) for names in (_USERS, _PORTS, _KEYS))
    words += [*(["-l", user] if user else []), *(["-p", port] if port else [])]
    words += ["-o", f'IdentityFile="{key}"'] if key else []
    host = str(found.get("ansible_ssh_host") or found.get("ansible_host") or name)
    return Jump(host, words, found, None if before in {"none", name} else find(before, hostvars, depth + 1))


def options(jump: Jump, helper: Callable[[Jump], list[str] | None], more: list[str]) -> list[str]:
    """Return the options of `doorward connect` that go through a jump host.

    `helper` gives the words of the command that connects to a jump host, None where that is plain ssh; `more` are
    options of ssh for every jump host.
    """
    inner = options(jump.before, helper, more) if jump.before else []
    command = helper(jump)
    proxy = ["ProxyCommand=none"]
    if command is not None:
        line = " ".join(word.replace("%", "%%") for word in map(shlex.quote, [*command, *inner]))
        proxy = ["ProxyUseFdpass=yes", f"ProxyCommand={line} -- '%h' '%p'"]
    flags = [word for option in [*more, *proxy] for word in ("-o", option)]
    return [
        "--jump",
        f"[{jump.host}]" if ":" in jump.host else jump.host,
        "--ssh",
        shlex.join(["ssh", *jump.words, *flags]),
    ]


def _first(found: Mapping, names: tuple[str, ...]) -> str:
    return next((str(found[name]) for name in names if found.get(name)), "")
