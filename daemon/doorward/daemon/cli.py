"""The command line of doorwardd: fwknopd's options, and the commands check and explain."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import doorward
from doorward import replay
from doorward.config import access
from doorward.daemon import configuration, explain, processes
from doorward.daemon.detach import detach
from doorward.errors import ConfigError, DoorwardError, FirewallError
from doorward.firewall.nftables import Nftables
from doorward.pidfile import holder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_KILL_SECONDS: Final = 4.0  # fwknopd waits as long before it kills
_EPILOG: Final = """\
commands:
  doorwardd check [-c FILE] [-a FILE]   read both files; print every problem as path:line: problem
  doorwardd explain --origin ADDRESS    say what would become of the packet on standard input, without effect

Without -f the daemon goes to the background and logs to syslog. Signals: HUP reads the files again and keeps
live grants; TERM and INT end it. Grants close by themselves, whether or not the daemon lives.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run doorwardd and return its exit code: 0 done, 1 failed or not running, 2 usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["explain"]:
        return explain.main(arguments[1:])
    options = _parser().parse_args(arguments[1:] if arguments[:1] == ["check"] else arguments)
    options.exit_parse_config |= arguments[:1] == ["check"]
    try:
        return _command(options)(options)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201  the problems, one a line
    except DoorwardError as error:
        print(f"doorwardd: {error}", file=sys.stderr)  # noqa: T201  why the command failed
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="doorwardd",
        description="Open the firewall for whoever knocks right (Single Packet Authorization).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-f", "--foreground", action="store_true", help="stay in the foreground and log to standard error")
    add(
        "-c",
        "--config-file",
        type=_absolute,
        metavar="FILE",
        help=f"settings of the daemon (default {configuration.DEFAULT})",
    )
    add("-a", "--access-file", type=_absolute, metavar="FILE", help="stanzas: who may open what (default: ACCESS_FILE)")
    add("-i", "--interface", metavar="NAME", help="listen on this interface only (default: on every one)")
    add("-r", "--run-dir", type=_absolute, metavar="DIR", help="folder of the PID file and the replay store")
    add("-p", "--pid-file", type=_absolute, metavar="FILE", help="PID file")
    add("-d", "--digest-file", type=_absolute, metavar="FILE", help="replay store")
    add("-C", "--packet-limit", type=int, default=0, metavar="N", help="end after N packets")
    add("-P", "--pcap-filter", metavar="FILTER", help="port to listen on, as 'udp port 62201'")
    add("-t", "--test", action="store_true", help="decide and log, but open nothing")
    add("-v", "--verbose", action="count", default=0, help="log more")
    add("--helper", action="store_true", help=argparse.SUPPRESS)  # for doorward-helper.service
    add("--listener", action="store_true", help=argparse.SUPPRESS)  # for doorwardd.service
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("-D", "--dump-config", action="store_true", help="print the configuration, keys masked")
    mode.add_argument("-K", "--kill", action="store_true", help="end the running daemon")
    mode.add_argument("-R", "--restart", action="store_true", help="make the running daemon read its files again")
    mode.add_argument("-S", "--status", action="store_true", help="print the PID of the running daemon")
    mode.add_argument("--exit-parse-config", action="store_true", help="read both files and exit")
    mode.add_argument("--rotate-digest-cache", action="store_true", help="begin a new replay store, the old one aside")
    mode.add_argument("--fw-list", action="store_true", help="print the live grants")
    mode.add_argument("--fw-flush", action="store_true", help="close every live grant")
    add("-V", "--version", action="version", version=f"doorwardd {doorward.__version__}, firewall: nftables")
    return parser


def _absolute(text: str) -> Path:
    """Return a path that means the same after the daemon has left its folder."""
    return Path(text).absolute()


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """Return what the options ask for."""
    commands = {
        "dump_config": _dump,
        "kill": _kill,
        "restart": _restart,
        "status": _status,
        "exit_parse_config": _check,
        "rotate_digest_cache": _rotate,
        "fw_list": _list_grants,
        "fw_flush": _flush,
    }
    return next((run for name, run in commands.items() if getattr(options, name)), _run)


def _run(options: argparse.Namespace) -> int:
    if options.listener:
        return processes.listener(options)
    if os.geteuid() != 0:
        msg = "must be run as root: it opens a packet socket and changes the firewall"
        raise DoorwardError(msg)
    if options.helper:
        return processes.helper(options)
    settings = configuration.load(options)[0].settings  # mistakes are shown on the terminal, before it is gone
    if options.foreground:
        return processes.both(options, settings, lambda: None)
    return detach(partial(processes.both, options, settings))


def _check(options: argparse.Namespace) -> int:
    """Read both files; -a alone checks only that one, so that a new access.conf can be tested before its time."""
    if options.access_file is not None and options.config_file is None:
        read = access.load(options.access_file)
        warnings, stanzas = read.warnings, read.stanzas
    else:
        loaded, _ = configuration.load(options)
        warnings, stanzas = loaded.warnings, loaded.access.stanzas
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201  the command's output
    print(f"Configs parsed, exiting. {len(stanzas)} stanzas.")  # noqa: T201  the command's output
    return 0


def _dump(options: argparse.Namespace) -> int:
    for line in explain.describe(configuration.load(options)[0]):
        print(line)  # noqa: T201  the command's output
    return 0


def _status(options: argparse.Namespace) -> int:
    pid = holder(configuration.settings(options).pid_file)
    print("No running doorwardd detected." if pid is None else f"Detected doorwardd is running (pid={pid}).")  # noqa: T201
    return 1 if pid is None else 0


def _restart(options: argparse.Namespace) -> int:
    os.kill(_pid(options), signal.SIGHUP)
    return 0


def _kill(options: argparse.Namespace) -> int:
    pid = _pid(options)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _KILL_SECONDS
    while holder(configuration.settings(options).pid_file) == pid:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    return 0


def _pid(options: argparse.Namespace) -> int:
    pid = holder(configuration.settings(options).pid_file)
    if pid is None:
        msg = "no running doorwardd detected"
        raise DoorwardError(msg)
    return pid


def _rotate(options: argparse.Namespace) -> int:
    settings = configuration.settings(options)
    skew = settings.max_age or 0
    old = replay.rotate(settings.replay_file, int(time.time()), skew)
    print(f"{settings.replay_file} is new, the old one is {old}; knocks are refused for {skew} s")  # noqa: T201
    return 0


def _list_grants(options: argparse.Namespace) -> int:
    for grant in _firewall(options).grants():
        print(f"{grant.source} {grant.service} closes in {grant.remaining:.0f} s")  # noqa: T201  the command's output
    return 0


def _flush(options: argparse.Namespace) -> int:
    _firewall(options).flush()
    return 0


def _firewall(options: argparse.Namespace) -> Nftables:
    if os.geteuid() != 0:
        msg = "must be run as root to read the firewall"
        raise FirewallError(msg)
    settings = configuration.settings(options)
    return Nftables(settings.firewall_file, settings.firewall_mode, frozenset)
