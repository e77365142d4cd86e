"""The command `doorward`: the client's commands, and root's commands on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward import portable
from doorward.client import cli

if TYPE_CHECKING:
    from doorward.client.cli import Subparsers
    from doorward.client.usage import Offers


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return cli.main(argv, add_commands)


def add_commands(commands: Subparsers) -> None:
    """Add the commands that are not the client's."""
    from doorward.client.usage import SHELLS  # noqa: PLC0415  `doorward connect`, before every ssh, must not load these

    if portable.HOSTS_RUN_HERE:
        from doorward.host import audit  # noqa: PLC0415  `doorward connect`, before every ssh, must not load these
        from doorward.host import commands as host_commands  # noqa: PLC0415  `doorward connect`, before every ssh, must not load these

        host_commands.add_commands(commands)
        audit.add_commands(commands)
    else:
        commands.add_parser("status", help="who I am, and for which hosts I have keys")
    complete = commands.add_parser("completion", help="print a shell's completion of doorward and doorwardd")
    complete.add_argument("shell", choices=SHELLS)
    complete.set_defaults(run=lambda said: _print_completion(said.shell, commands))


def _print_completion(shell: str, commands: Subparsers) -> int:
    from doorward.client import usage  # noqa: PLC0415  only for completion

    programs = {"doorward": usage.commands(commands)}
    if portable.HOSTS_RUN_HERE:
        programs["doorwardd"] = _of_the_daemon()
    print(usage.completion(shell, programs), end="")  # noqa: T201  the command's output
    return 0


def _of_the_daemon() -> Offers:
    from doorward.client import usage  # noqa: PLC0415  only for completion
    from doorward.daemon import explain, host_key, import_knockd  # noqa: PLC0415  only for completion
    from doorward.processes import options  # noqa: PLC0415  only for completion

    return {
        "": [*usage.offers(options.parser()), *map(usage.Offer.command, ("check", "explain", "keys", "import-knockd"))],
        "check": usage.offers(options.parser(check=True)),
        "explain": usage.offers(explain.command_line()),
        "keys": usage.offers(host_key.command_line()),
        "import-knockd": usage.offers(import_knockd.command_line()),
    }
