"""The lab's command line: ``python -m lab up [HOST…]``, ``down``, ``exec HOST COMMAND…``, ``restart HOST``."""

from __future__ import annotations

import argparse
import os
import sys

from lab import hosts
from lab.plan import DEMO, HOSTS
from lab.run import LabError, say


def main() -> int:
    """The exit code of one command."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start hosts (default: those of the demo)")
    up.add_argument("host", nargs="*", choices=[*HOSTS, []], default=[])
    commands.add_parser("down", help="remove everything the lab made")
    for name, explanation in (("restart", "stop and start a host"), ("remove", "remove one host")):
        commands.add_parser(name, help=explanation).add_argument("host", choices=HOSTS)
    execute = commands.add_parser("exec", help="run a command on a host's console")
    execute.add_argument("host", choices=HOSTS)
    execute.add_argument("words", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("lab: needs root: it makes network namespaces and system containers\n")
        return 4
    try:
        _run(chosen)
    except LabError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    return 0


def _run(chosen: argparse.Namespace) -> None:
    match chosen.command:
        case "up":
            hosts.up(chosen.host or DEMO)
            say("lab: up")
        case "down":
            hosts.down()
            say("lab: removed")
        case "restart":
            hosts.restart(HOSTS[chosen.host])
        case "remove":
            hosts.remove(HOSTS[chosen.host])
        case _:
            say(hosts.inside(HOSTS[chosen.host], *chosen.words).rstrip())


if __name__ == "__main__":
    sys.exit(main())
