"""doorward firewall: check, apply, confirm, rollback, show, stop."""

from __future__ import annotations

import difflib
import json
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.errors import FirewallError
from doorward.firewall import deadman, kernel_gate, ruleset, sequences
from doorward.firewall.kernel import is_there
from doorward.firewall.libnftables import Libnftables, Output
from doorward.host.here import Host, add_json, deadline, packet_filter, runs
from doorward.host.running import holder
from doorward.values import ForeignFirewall

if TYPE_CHECKING:
    import argparse


NOTHING: Final = f"there is no table {ruleset.TABLE}"
_KEEPS_RULE: Final = (
    ". Other firewalls stay as they are, and doorwardd keeps its rule in them: stop it first to have the rule removed"
)


def add_firewall(commands: argparse._SubParsersAction[Any], host: Host) -> None:
    """Add the subcommands of `firewall`."""
    check = commands.add_parser("check", help="print the change that applying FILE would make; changes nothing")
    apply = commands.add_parser("apply", help="swap to FILE's table until the deadline, or permanently once confirmed")
    for parser in (check, apply):
        parser.add_argument("file", type=Path, metavar="FILE", help="a file that defines table inet doorward only")
        add_json(parser)
    apply.add_argument(
        "--deadline", type=deadline, required=True, metavar="TIME", help="when the old table comes back, e.g. 90s"
    )
    confirm = commands.add_parser("confirm", help="keep the pending table and write it for the next boot")
    confirm.add_argument("token", metavar="TOKEN", help="the token that apply printed")
    rollback = commands.add_parser("rollback", help="bring the table from before apply back now")
    rollback.add_argument("token", nargs="?", metavar="TOKEN", help="only if this one is pending")
    show = commands.add_parser("show", help="print the table as the kernel has it, without grants")
    stop = commands.add_parser("stop", help="remove the table until the next boot: THE HOST IS OPEN")
    for parser, command in (
        (check, _check),
        (apply, _apply),
        (confirm, _confirm),
        (rollback, _rollback),
        (show, _show),
        (stop, _stop),
    ):
        runs(parser, host, command)


def _check(_: Host, arguments: argparse.Namespace) -> str:
    """The change that a file would make."""
    wanted = deadman.examine(arguments.file).normalised
    live = _listing(Libnftables())
    lines = difflib.unified_diff(live.splitlines(), wanted.splitlines(), "the kernel", str(arguments.file), lineterm="")
    diff = "\n".join(lines)
    if arguments.json:
        return json.dumps({"changed": wanted != live, "diff": diff})
    return diff or "the table is as the file says"


def _apply(host: Host, arguments: argparse.Namespace) -> str:
    """Apply a file under the dead man's switch."""
    candidate = deadman.examine(arguments.file)
    token = host.switch(Libnftables()).apply(candidate, arguments.deadline)
    if arguments.json:
        return json.dumps({"token": token, "deadline": arguments.deadline})
    return f"applied for {arguments.deadline} s; to keep it: doorward firewall confirm {token}"


def _confirm(host: Host, arguments: argparse.Namespace) -> str:
    """Keep the pending table."""
    file = host.settings(arguments).firewall_file
    host.switch(Libnftables()).confirm(arguments.token, file)
    return f"confirmed, and written to {file}"


def _rollback(host: Host, arguments: argparse.Namespace) -> str:
    """Bring the previous table back."""
    said = host.switch(Libnftables()).rollback(arguments.token)
    unchanged = "nothing is pending" if arguments.token is None else "this token is not pending: nothing was changed"
    return said or unchanged


def _show(_: Host, __: argparse.Namespace) -> str:
    """The table, with the elements of its fixed sets and without grants."""
    listing = _listing(Libnftables())
    if not listing:
        raise FirewallError(NOTHING)
    return listing.rstrip("\n")


def _stop(host: Host, arguments: argparse.Namespace) -> str:
    """Open the host. A running doorwardd would load its table at the next knock, so it gets one that closes nothing.

    A pending table is rolled back first, else its timer would close the host again. Our rule is taken out of other
    firewalls too, unless doorwardd runs: it would put the rule back.
    """
    settings = host.settings_or_defaults(arguments)
    nft = Libnftables()
    with suppress(FirewallError):
        host.switch(nft).rollback()
    with closing(packet_filter(settings)) as firewall:
        if holder(settings.pid_file) is not None:
            nft.run(ruleset.swap(ruleset.stopped(settings.mark)))
            opened = "THE HOST IS OPEN until the next boot: doorwardd runs on, and only records grants"
            return f"{opened}{_KEEPS_RULE if settings.foreign_firewall is ForeignFirewall.ADMIT else ''}"
        nft.run(kernel_gate.REMOVE + sequences.REMOVE)
        count = firewall.foreign().remove()
        taken = f", and {count} rules of ours are taken out of other firewalls" if count else ""
        if firewall.table() is None:
            return f"doorward kept nothing closed: {NOTHING}{taken}"
        nft.run(ruleset.REMOVE)
    return f"THE HOST IS OPEN until the next boot: the table is gone{taken}"


def _listing(nft: Libnftables) -> str:
    """The table in the kernel, without grants; empty where there is none."""
    if not is_there():
        return ""
    return ruleset.normalised(nft.run(f"list table {ruleset.TABLE}", Output.STATELESS))
