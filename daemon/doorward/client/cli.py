"""The command line `doorward`: the one place where time, randomness, environment and terminal come in."""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward import __version__
from doorward.client import options
from doorward.client.outside import Outside, UnansweredError
from doorward.errors import ConfigError, DoorwardError, RootError

if TYPE_CHECKING:
    from collections.abc import Callable

    Subparsers = argparse._SubParsersAction[Any]  # noqa: SLF001  argparse gives this type no public name

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
BAD_CONFIGURATION: Final = 3
NOT_ROOT: Final = 4
INTERRUPTED: Final = 130  # what a shell reports after SIGINT

TERMINAL: Final = "/dev/tty"
_FWKNOP: Final = "fwknop"
_TOP: Final = """\
Single Packet Authorization: ask a hidden host to open a service for a while.
`doorward -A tcp/22 -D HOST …`, without a command, is `doorward knock` with fwknop's options.
"""
_EXIT_CODES: Final = """\
exit codes: 0 done, 1 failed, 2 usage, 3 mistake in a configuration file, 4 root is needed
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    outside = _outside()
    try:
        code = _run(sys.argv[1:] if argv is None else argv, outside)
        outside.out.flush()  # a full disk must not pass for success
    except SystemExit as end:  # argparse ends --help, --version and usage errors so
        return end.code if isinstance(end.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _lost_output(error, outside)
    return code


def _run(words: list[str], outside: Outside) -> int:
    try:
        knock = _knock_words(words)
        if knock is not None:
            from doorward.client import command  # noqa: PLC0415  each command loads only what it needs

            return command.run(knock, outside, _FWKNOP if _is_fwknop() else "doorward knock")
        arguments = _parse(words, outside)
        return int(arguments.run(arguments))
    except RootError as error:
        outside.warn(str(error))
        return NOT_ROOT
    except ConfigError as error:
        for problem in error.problems:
            outside.warn(str(problem))
        return BAD_CONFIGURATION
    except DoorwardError as error:
        outside.warn(str(error))
        return FAILED


def _is_fwknop() -> bool:
    """Say whether the program was called by fwknop's name."""
    return Path(sys.argv[0]).name == _FWKNOP


def _knock_words(words: list[str]) -> list[str] | None:
    """Return the words behind `knock`, which is also what fwknop's options without a command mean; None is another."""
    if _is_fwknop():
        return words
    if words and words[0] == "knock":
        return words[1:]
    is_option = bool(words) and words[0].startswith("-") and words[0] not in {"-h", "--help", "-V", "--version"}
    return words if is_option else None


def _lost_output(error: OSError, outside: Outside) -> int:
    """Give up on standard output, so that the interpreter does not try once more at its end."""
    if not isinstance(error, BrokenPipeError):
        outside.warn(str(error))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _outside() -> Outside:
    return Outside(
        clock=time.time,
        monotonic=time.monotonic,
        random_bytes=secrets.token_bytes,
        environ=os.environ,
        home=Path(os.environ.get("HOME") or "/"),
        ask=_ask,
        agree=_agree,
        out=sys.stdout,
        err=sys.stderr,
    )


def _ask(prompt: str) -> str:
    if not (sys.stdin.isatty() or _has_terminal()):
        msg = "there is no terminal to ask at"
        raise UnansweredError(msg)
    try:
        return getpass.getpass(prompt)
    except EOFError as error:
        msg = "nothing was typed"
        raise UnansweredError(msg) from error


def _has_terminal() -> bool:
    """Say whether there is a terminal to ask at, whatever standard input is."""
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _agree(question: str) -> bool:
    sys.stdout.write(question)
    sys.stdout.flush()
    return sys.stdin.readline().startswith("y")


def _parse(words: list[str], outside: Outside) -> argparse.Namespace:
    """Return the arguments with `run` set. Only the parser of the named command is made: ssh waits for this."""
    parser = argparse.ArgumentParser(
        "doorward", description=_TOP, epilog=_EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-V", "--version", action="version", version=f"doorward {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    adders = _adders(outside)
    if words and words[0] in adders:
        adders[words[0]](commands)
    else:
        for add in adders.values():
            add(commands)
        _add_host_commands(commands)
    return parser.parse_args(words)


def _adders(outside: Outside) -> dict[str, Callable[[Subparsers], None]]:
    return {
        "knock": lambda commands: commands.add_parser("knock", help="ask a host to open services"),
        "connect": lambda commands: _add_connect(commands, outside),
        "keys": lambda commands: _add_keys(commands, outside),
        "ssh-config": lambda commands: _add_ssh_config(commands, outside),
    }


def _add_host_commands(commands: Subparsers) -> None:
    from doorward.client import audit_file, host  # noqa: PLC0415  what runs before every ssh must not load these

    host.add_commands(commands)
    audit_file.add_commands(commands)


def _add_connect(commands: Subparsers, outside: Outside) -> None:
    parser = commands.add_parser("connect", help="knock and connect: the ProxyCommand for ssh")
    options.add_connect(parser)
    parser.set_defaults(run=lambda arguments: _connect(arguments, outside))


def _connect(arguments: argparse.Namespace, outside: Outside) -> int:
    from doorward.client.proxy import Order, run  # noqa: PLC0415

    order = Order(
        host=arguments.host,
        port=arguments.dial_port,
        timeout=arguments.seconds,
        said=options.profile(arguments),
        rc_file=arguments.rc_file,
        stanza=arguments.stanza,
        status=arguments.status,
    )
    run(order, outside, stdin=0, stdout=1)
    return DONE


def _add_keys(commands: Subparsers, outside: Outside) -> None:
    parser = commands.add_parser("keys", help="make keys")
    inner = parser.add_subparsers(metavar="COMMAND", required=True)
    generate = inner.add_parser("generate", help="make a new pair of keys")
    options.add_generate(generate)
    generate.set_defaults(run=lambda arguments: _generate(arguments, outside, arguments.output))


def _generate(arguments: argparse.Namespace, outside: Outside, output: Path | None) -> int:
    from doorward.client import keys  # noqa: PLC0415

    text = keys.new(outside.random_bytes, arguments.key_len, arguments.hmac_key_len)
    if output is None:
        outside.out.write(text)
    else:
        keys.write(text, output, force=arguments.force)
    return DONE


def _add_ssh_config(commands: Subparsers, outside: Outside) -> None:
    parser = commands.add_parser("ssh-config", help="print the lines that make every ssh knock")
    options.add_route(parser)
    parser.add_argument("hosts", nargs="+", metavar="HOST", help="names or patterns as ssh_config takes them")
    parser.set_defaults(run=lambda arguments: _ssh_config(arguments, outside))


def _ssh_config(arguments: argparse.Namespace, outside: Outside) -> int:
    from doorward.client.ssh_config import stanza  # noqa: PLC0415

    outside.out.write(stanza(arguments.hosts, ["doorward", "connect", *options.route_words(arguments)]))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
