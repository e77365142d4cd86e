"""doorward change: apply, confirm, rollback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doorward.host.here import Host, add_json, deadline, runs

if TYPE_CHECKING:
    import argparse


def add_change(commands: argparse._SubParsersAction[Any], host: Host) -> None:
    """Add the subcommands of `change`."""
    apply = commands.add_parser(
        "apply", help="put a folder's new files into force until the deadline, or once confirmed"
    )
    apply.add_argument("folder", type=Path, metavar="FOLDER", help="with base/, the files as they are, and new/")
    apply.add_argument(
        "--deadline", type=deadline, required=True, metavar="TIME", help="when the old files come back, e.g. 90s"
    )
    add_json(apply)
    confirm = commands.add_parser("confirm", help="keep the new files")
    confirm.add_argument("token", metavar="TOKEN", help="the token that apply printed")
    rollback = commands.add_parser("rollback", help="put the files from before apply back now")
    for parser, command in ((apply, _apply), (confirm, _confirm), (rollback, _rollback)):
        runs(parser, host, command)


def _apply(host: Host, arguments: argparse.Namespace) -> str:
    """Apply a folder under the dead man's switch."""
    applied = host.swap().apply(arguments.folder, arguments.deadline)
    paths = [f"/{path}" for path in applied.paths]
    if arguments.json:
        return json.dumps({"token": applied.token, "paths": paths, "deadline": arguments.deadline})
    if not applied.token:
        return "the host is as the folder says"
    return (
        f"applied for {arguments.deadline} s ({', '.join(paths)}); to keep it: doorward change confirm {applied.token}"
    )


def _confirm(host: Host, arguments: argparse.Namespace) -> str:
    """Keep the new files."""
    host.swap().confirm(arguments.token)
    return "confirmed"


def _rollback(host: Host, _: argparse.Namespace) -> str:
    """Put the old files back."""
    return host.swap().rollback() or "nothing is pending"
