"""The command line `doorward`: the one place where time, randomness, environment and terminal come in."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward import portable, status_file
from doorward.client import getopt
from doorward.client.options import (
    COMMANDS,
    CONNECT,
    DOCTOR,
    FINGERPRINT,
    FORWARD,
    GENERATE,
    IMPORT,
    KEYS,
    KNOCK,
    LEARN,
    MOSH,
    OTP,
    PIN,
    SHOW,
    SSH_CONFIG,
    STATUS,
)
from doorward.client.surroundings import Outside, UnansweredError
from doorward.errors import ConfigError, DoorwardError, RootError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from types import ModuleType, SimpleNamespace

    from doorward.client.options import Command

    AddMore = Callable[["Subparsers"], None]
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
_SUMMARIES: Final = {
    "knock": "ask a host to open services",
    "connect": "knock and connect: the ProxyCommand for ssh",
    "doctor": "find out why a host does not open",
    "learn": "remember the address at which a host sees this machine",
    "import": "take the keys that `doorward init` made on a host",
    "keys": "make keys, show the public one and its fingerprint, keep a host's",
    "ssh-config": "print the lines that make every ssh knock",
    "forward": "a port of this machine that leads to a hidden service",
    "mosh": "knock for mosh and start it",
}


def main(argv: list[str] | None = None, add_more: AddMore | None = None) -> int:
    """Run one command and return the exit code; `add_more` adds commands that are not the client's."""
    outside = _outside()
    try:
        code = _run(sys.argv[1:] if argv is None else argv, outside, add_more)
        outside.out.flush()  # a full disk must not pass for success
    except SystemExit as end:  # argparse ends --help, --version and usage errors so
        return end.code if isinstance(end.code, int) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _lost_output(error, outside)
    return code


def _run(words: list[str], outside: Outside, add_more: Callable[[Subparsers], None] | None) -> int:
    try:
        return _command(words, outside, add_more)
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


def _command(words: list[str], outside: Outside, add_more: Callable[[Subparsers], None] | None) -> int:
    command = _called(words)
    if command is None:
        return _other(words, add_more)
    try:
        return _carry_out(command, words, outside)
    except getopt.UsageError as error:
        outside.err.write(f"{_usage().line(command)}{command.name}: error: {error}\n")
        if command is CONNECT:
            status_file.leave(words, f"the helper does not take its options: {error}")
        return USAGE


def _called(words: list[str]) -> Command | None:
    """The client's command; options without a command mean knock, and so does fwknop's name for the program."""
    if Path(sys.argv[0]).name == _FWKNOP:
        return KNOCK._replace(name=_FWKNOP)
    if words and words[0].startswith("-") and words[0] not in {"-h", "--help", "-V", "--version"}:
        return KNOCK
    if words[:1] == ["status"]:
        return STATUS if _is_about_me(words) else None
    return COMMANDS.get(words[0]) if words else None


def _is_about_me(words: list[str]) -> bool:
    """Whether `doorward status` is about this user; to root, or with files of a daemon, it is about the host."""
    names_files = any(word.startswith(("-c", "-a", "-r", "--c", "--a", "--ru")) for word in words[1:])
    return not portable.HOSTS_RUN_HERE or "--me" in words or not (portable.user() == 0 or names_files)


def _carry_out(command: Command, words: list[str], outside: Outside) -> int:
    if command.name not in _RUN:
        from doorward.client.command import run as run_knock  # noqa: PLC0415  each command loads only what it needs

        run_knock(words[words[:1] == ["knock"] :], outside, command)
        return DONE
    given = words[1:]
    if words[0] == "keys":
        command, given = _of_keys(given)
    said = getopt.parse(command, given)
    if said.help:
        outside.out.write(_usage().page(command))
        return DONE
    return _RUN[command.name](said, outside) or DONE


def _of_keys(given: list[str]) -> tuple[Command, list[str]]:
    """The command behind `doorward keys`, and the words behind it; help without a command is that of the first."""
    if given[:1] in (["-h"], ["--help"]):
        return GENERATE, given
    if not given or given[0] not in KEYS:
        msg = f"a command is required: {', '.join(KEYS)}"
        raise getopt.UsageError(msg)
    return KEYS[given[0]], given[1:]


def _lost_output(error: OSError, outside: Outside) -> int:
    """Give up on standard output, so that the interpreter does not flush it again at exit."""
    if not isinstance(error, BrokenPipeError):
        outside.warn(str(error))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _outside() -> Outside:
    return Outside(
        clock=time.time,
        monotonic=time.monotonic,
        random_bytes=os.urandom,
        environ=os.environ,
        home=Path(os.environ.get("HOME") or os.environ.get("USERPROFILE") or "/"),
        ask=_ask,
        agree=_agree,
        out=sys.stdout,
        err=sys.stderr,
    )


def _ask(prompt: str) -> str:
    import getpass  # noqa: PLC0415  only where a person is asked

    if not ((sys.stdin is not None and sys.stdin.isatty()) or _has_terminal()):
        msg = "there is no terminal to ask at"
        raise UnansweredError(msg)
    try:
        return getpass.getpass(prompt)
    except EOFError as error:
        msg = "nothing was typed"
        raise UnansweredError(msg) from error


def _has_terminal() -> bool:
    """Whether there is a terminal to ask at, independently of standard input."""
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | portable.flags("O_NOCTTY", "O_CLOEXEC")))
    except OSError:
        return False
    return True


def _agree(question: str) -> bool:
    sys.stdout.write(question)
    sys.stdout.flush()
    return sys.stdin is not None and sys.stdin.readline().startswith("y")


def _connect(said: SimpleNamespace, outside: Outside) -> None:
    more = {}
    if said.follow_ssh:
        from doorward.client.following import follower  # noqa: PLC0415  each command loads only what it needs

        more["prepare"] = follower(os.getppid(), said)  # ssh answers while the rest is loaded
    from doorward.client.proxy import run  # noqa: PLC0415  each command loads only what it needs

    run(said, outside, stdin=0, stdout=1, **more)


def _doctor(said: SimpleNamespace, outside: Outside) -> int:
    from doorward.client import doctor  # noqa: PLC0415  each command loads only what it needs

    return DONE if doctor.run(said, outside) else FAILED


def _learn(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client.learn import run  # noqa: PLC0415  each command loads only what it needs

    run(said, outside, sys.stdin)


def _generate(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client import keys  # noqa: PLC0415  each command loads only what it needs

    if said.public:
        from doorward.client import identity  # noqa: PLC0415  it loads cryptography

        if said.key_len is not None or said.hmac_key_len is not None:
            msg = "the keys of --public have one length: leave --length and --hmac-length out"
            raise getopt.UsageError(msg)
        file = said.output or keys.key_file(outside.environ)
        made = identity.generate(
            file, said.comment, outside.random_bytes, force=bool(said.force), environ=outside.environ
        )
        outside.say(made.line)
        return
    if said.comment is not None:
        msg = "--comment goes with --public"
        raise getopt.UsageError(msg)
    text = keys.new(outside.random_bytes, said.key_len, said.hmac_key_len)
    if said.output is None:
        outside.out.write(text)
    else:
        keys.write(text, said.output, force=bool(said.force))


def _show(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client import identity, keys  # noqa: PLC0415  each command loads only what it needs

    outside.say(identity.load(said.file or keys.key_file(outside.environ)).line)


def _fingerprint(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client import identity, keys  # noqa: PLC0415  each command loads only what it needs
    from doorward.crypto import fingerprint  # noqa: PLC0415  as above

    if said.keys:
        outside.say(identity.words_of(" ".join(said.keys)))
    else:
        pair = identity.load(said.file or keys.key_file(outside.environ))
        outside.say(fingerprint.of_line(pair.public, pair.comment))


def _pin(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client import pin  # noqa: PLC0415  each command loads only what it needs

    pin.run(said, outside)


def _otp(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client import one_time_secret  # noqa: PLC0415  each command loads only what it needs

    one_time_secret.show(said.comment, outside)


def _import(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client.importing import run  # noqa: PLC0415  each command loads only what it needs

    run(said, outside, None if sys.stdin is None else sys.stdin.buffer)


def _status(said: SimpleNamespace, outside: Outside) -> int:
    from doorward.client import me  # noqa: PLC0415  each command loads only what it needs

    return me.report(said, outside)


def _ssh_config(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client import ssh_config  # noqa: PLC0415  each command loads only what it needs

    program = ssh_config.program(sys.orig_argv, sys.argv[1:], sys.executable)
    command = [*program, "connect", *ssh_config.route_words(said), "--follow-ssh"]
    outside.out.write(ssh_config.block(said.hosts, command, fdpass=not said.no_fdpass))


def _forward(said: SimpleNamespace, outside: Outside) -> None:
    from doorward.client.forward import run  # noqa: PLC0415  each command loads only what it needs

    said.status, said.client_first = None, True
    run(said, outside)


def _mosh(said: SimpleNamespace, _outside: Outside) -> None:
    from doorward.client.mosh import run  # noqa: PLC0415  each command loads only what it needs

    run(said)


_RUN: Final[dict[str, Callable[[SimpleNamespace, Outside], int | None]]] = {
    CONNECT.name: _connect,
    DOCTOR.name: _doctor,
    LEARN.name: _learn,
    IMPORT.name: _import,
    STATUS.name: _status,
    GENERATE.name: _generate,
    SHOW.name: _show,
    FINGERPRINT.name: _fingerprint,
    PIN.name: _pin,
    OTP.name: _otp,
    SSH_CONFIG.name: _ssh_config,
    FORWARD.name: _forward,
    MOSH.name: _mosh,
}


def _usage() -> ModuleType:
    from doorward.client import usage  # noqa: PLC0415  only for help, completion and mistakes

    return usage


def _other(words: list[str], add_more: Callable[[Subparsers], None] | None) -> int:
    """Run a command that is not the client's, or list all commands."""
    import argparse  # noqa: PLC0415  10 ms that `doorward connect` need not wait for

    from doorward import __version__  # noqa: PLC0415  each command loads only what it needs

    parser = argparse.ArgumentParser(
        "doorward", description=_TOP, epilog=_EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-V", "--version", action="version", version=f"doorward {__version__}")
    add_commands(parser.add_subparsers(metavar="COMMAND", required=True), add_more)
    arguments = parser.parse_args(words)
    return int(arguments.run(arguments))


def add_commands(commands: Subparsers, add_more: Callable[[Subparsers], None] | None) -> None:
    """Add the client's commands, to be listed, and those that are not the client's."""
    for name, summary in _SUMMARIES.items():
        commands.add_parser(name, help=summary)
    if add_more is not None:
        add_more(commands)
