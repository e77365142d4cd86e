"""The commands that root gives on a host: status, open, close, firewall. They talk to the kernel, not to doorwardd."""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import json
import math
import os
import re
import secrets
import shlex
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward import __version__, cycles, withdrawn
from doorward.config import access, reader
from doorward.config import daemon as daemon_config
from doorward.config.files import Disk
from doorward.cycles import Moment
from doorward.errors import ConfigError, FirewallError, WireError
from doorward.firewall import backends, deadman, ruleset
from doorward.firewall.deadman import DEADLINE_MAX, DeadMansSwitch, SystemdTimer, Timer
from doorward.firewall.libnftables import Libnftables, Output
from doorward.firewall.nftables import ANYONE, Nftables, read_table
from doorward.pidfile import holder, noted, record_in
from doorward.values import GRANT_SECONDS_MAX, FirewallBackend, FirewallMode, Grant, Service, refuse_nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doorward.config.daemon import DaemonSettings
    from doorward.cycles import Cycle
    from doorward.firewall.backends import Backend
    from doorward.pidfile import Running
    from doorward.values import IPAddress, LiveGrant, Nat

DONE: Final = 0
NOT_ROOT: Final = 4

_NOTHING: Final = f"there is neither a table {ruleset.TABLE} nor a chain DOORWARD_INPUT of iptables"
_DURATION: Final = re.compile(r"(\d{1,9})([smh]?)", re.ASCII)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}  # seconds
_EXAMPLES: Final = """\
examples:
  doorward open --for 15m                        what access.conf names, for everybody: the way back in from the console
  doorward open tcp/22 --from 192.0.2.7 --for 1h
  doorward close --from 192.0.2.7
"""


def _new_token() -> str:
    """Return a token that nobody guesses and any shell takes."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Host:
    """Where things are on a host, and what rolls its firewall back."""

    configuration: Path = daemon_config.CONFIG_FOLDER / "doorwardd.conf"
    switch_folder: Path = daemon_config.RUN_FOLDER / "fw"
    timer: Timer = field(default_factory=SystemdTimer)
    new_token: Callable[[], str] = _new_token
    record_folder: Path = daemon_config.RUN_FOLDER

    def settings(self, options: argparse.Namespace) -> DaemonSettings:
        """Return the settings that the options say; without them the running daemon's, else the default file's.

        Raises:
            ConfigError: the file has mistakes.
        """
        running = self._running(options)
        if running is not None:
            file = running.settings or self.configuration
            return _as_it_runs(_read(file, running.overrides, needed=running.settings is not None), running)
        file = options.config_file or self.configuration
        return _as_asked(_read(file, needed=options.config_file is not None), options)

    def settings_or_defaults(self, options: argparse.Namespace) -> DaemonSettings:
        """Return the settings, or the defaults where the file has mistakes: a way in must not hang on a typo.

        Raises:
            ConfigError: -c names no file.
        """
        try:
            return self.settings(options)
        except ConfigError:
            if options.config_file is not None and not options.config_file.exists():
                raise
        defaults, running = daemon_config.DaemonSettings(), self._running(options)
        return _as_asked(defaults, options) if running is None else _as_it_runs(defaults, running)

    def _running(self, options: argparse.Namespace) -> Running | None:
        """Return what the running daemon has noted; whoever names files means those."""
        if options.config_file or options.access_file or options.run_dir:
            return None
        return noted(record_in(self.record_folder))

    def switch(self, nft: Libnftables) -> DeadMansSwitch:
        """Return the dead man's switch of this host."""
        return DeadMansSwitch(self.switch_folder, self.timer, nft, self.new_token)


def _read(file: Path, overrides: Iterable[Path] = (), *, needed: bool) -> DaemonSettings:
    """Return the settings of files; the defaults where the first is not there and need not be."""
    content = reader.content(file, secret=False) if needed or file.exists() else b""
    return daemon_config.parse(file, content, [(one, reader.content(one, secret=False)) for one in overrides]).settings


def _as_it_runs(chosen: DaemonSettings, running: Running) -> DaemonSettings:
    """Return settings with what the running daemon was started with."""
    return replace(
        chosen,
        access_file=running.access_file or chosen.access_file,
        access_folder=running.access_folder or chosen.access_folder,
        run_folder=running.run_folder,
        pid_file=running.pid_file,
        exec_folder=running.exec_folder,
        backend=running.backend,
        firewall_exe=running.firewall_exe,
    )


def _as_asked(chosen: DaemonSettings, options: argparse.Namespace) -> DaemonSettings:
    """Return settings with what the options say."""
    chosen = chosen if options.run_dir is None else daemon_config.in_run_folder(chosen, options.run_dir)
    return chosen if options.access_file is None else replace(chosen, access_file=options.access_file)


def add_commands(
    subparsers: argparse._SubParsersAction[Any],
    host: Host | None = None,
) -> None:
    """Add the host's commands; each sets `run`, which returns the exit code."""
    here = host or Host()
    status = subparsers.add_parser("status", help="on a host: what is open, and what keeps the rest closed")
    _add_json(status)
    _runs(status, here, _status)
    _add_open(subparsers, here)
    close = subparsers.add_parser("close", help="on a host: close grants now; established connections live on")
    close.add_argument("--from", dest="source", type=address, metavar="ADDR", help="only those of this address")
    _runs(close, here, _close)
    firewall = subparsers.add_parser("firewall", help="on a host: the table that keeps it closed")
    _add_firewall(firewall.add_subparsers(metavar="COMMAND", required=True), here)


def _absolute(text: str) -> Path:
    """Return a path as doorwardd reads it."""
    return Path(text).absolute()


def duration(text: str) -> int:
    """Return the seconds of `90s`, `15m`, `1h` or `90`; from 1 to the longest grant."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= GRANT_SECONDS_MAX:
        msg = f"{text[:40]!r} is no duration such as 90s, 15m or 1h, of at most {GRANT_SECONDS_MAX} s"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def deadline(text: str) -> int:
    """Return the seconds of a deadline, at most a day."""
    seconds = duration(text)
    if seconds > DEADLINE_MAX:
        msg = f"a deadline of {seconds} s is longer than {DEADLINE_MAX} s"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def address(text: str) -> IPAddress:
    """Return an address that can be granted to."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        msg = f"{text[:60]!r} is no IPv4 or IPv6 address"
        raise argparse.ArgumentTypeError(msg) from None
    if parsed.is_unspecified:
        msg = f"{text} is the unspecified address; leave out --from to mean everybody"
        raise argparse.ArgumentTypeError(msg)
    try:
        refuse_nobody(parsed)
    except WireError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return parsed


def service(text: str) -> Service:
    """Return the service that `tcp/22` names."""
    try:
        return Service.parse(text)
    except WireError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _add_open(subparsers: argparse._SubParsersAction[Any], host: Host) -> None:
    """Add `open`."""
    parser = subparsers.add_parser(
        "open",
        help="on a host: open services by hand",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("services", nargs="*", type=service, metavar="SERVICE", help="tcp/22; default: access.conf's")
    parser.add_argument("--from", dest="source", type=address, metavar="ADDR", help="for this address; default: all")
    parser.add_argument("--for", dest="seconds", type=duration, required=True, metavar="TIME", help="90s, 15m, 1h")
    _runs(parser, host, _open)


def _add_firewall(commands: argparse._SubParsersAction[Any], host: Host) -> None:
    """Add what stands behind `firewall`."""
    check = commands.add_parser("check", help="say what applying FILE would change; changes nothing")
    apply = commands.add_parser("apply", help="swap to FILE's table until the deadline, or for good once confirmed")
    for parser in (check, apply):
        parser.add_argument("file", type=Path, metavar="FILE", help="a file that defines table inet doorward only")
        _add_json(parser)
    apply.add_argument(
        "--deadline", type=deadline, required=True, metavar="TIME", help="when the old table comes back, e.g. 90s"
    )
    confirm = commands.add_parser("confirm", help="keep the pending table and write it for the next boot")
    confirm.add_argument("token", metavar="TOKEN", help="what apply printed")
    rollback = commands.add_parser("rollback", help="bring the table from before apply back now")
    rollback.add_argument("token", nargs="?", metavar="TOKEN", help="only if this one is pending")
    show = commands.add_parser("show", help="print the table as the kernel has it, without grants")
    stop = commands.add_parser("stop", help="take the table away until the next boot: THE HOST IS OPEN")
    for parser, command in (
        (check, _check),
        (apply, _apply),
        (confirm, _confirm),
        (rollback, _rollback),
        (show, _show),
        (stop, _stop),
    ):
        _runs(parser, host, command)


def _runs(
    parser: argparse.ArgumentParser, host: Host, command: Callable[[Host, argparse.Namespace], str | None]
) -> None:
    """Make `command` what the parser's `run` does, for root alone; its text is printed."""
    add = parser.add_argument_group("whose files; without one of these the running daemon's").add_argument
    add("-c", "--config-file", type=_absolute, metavar="FILE", help="settings of doorwardd, as its option -c")
    add("-a", "--access-file", type=_absolute, metavar="FILE", help="its stanzas, as its option -a")
    add("-r", "--run-dir", type=_absolute, metavar="DIR", help="folder of its PID file, as its option -r")

    def run(arguments: argparse.Namespace) -> int:
        if os.geteuid():
            sys.stderr.write("doorward: must be run as root\n")
            return NOT_ROOT
        if command in _NFTABLES_ONLY and host.settings_or_defaults(arguments).backend is FirewallBackend.IPTABLES:
            msg = (
                "`doorward firewall` works on nftables alone, and this host has FIREWALL_BACKEND iptables: its rules "
                "are yours to keep, doorward's stand in the chain DOORWARD_INPUT (`doorward status`)"
            )
            raise FirewallError(msg)
        text = command(host, arguments)
        sys.stdout.write(f"{text}\n" if text else "")
        return DONE

    parser.set_defaults(run=run)


def _status(host: Host, arguments: argparse.Namespace) -> str:
    """Return what is open and what keeps the rest closed."""
    settings = host.settings_or_defaults(arguments)
    pid = holder(settings.pid_file)
    main, *beside = _looked_at(settings)
    settings = replace(settings, backend=main)
    found = {
        "version": __version__,
        "running": pid is not None,
        "pid": pid,
        "pid_file": str(settings.pid_file),
        "backend": str(settings.backend),
        **_filter_status(host, settings),
        "beside": [
            {"backend": str(other)} | _filter_status(host, replace(settings, backend=other)) for other in beside
        ],
        "cycles": [_cycle_words(cycle) for cycle in cycles.listed(settings.exec_folder)],
    }
    return json.dumps(found) if arguments.json else _status_text(found)


def _looked_at(settings: DaemonSettings) -> tuple[FirewallBackend, ...]:
    """Return the packet filters that hold something of ours, that of the settings first, and it alone where none."""
    there = backends.present()
    return tuple(sorted(there, key=lambda one: one is not settings.backend)) or (settings.backend,)


def _filter_status(host: Host, settings: DaemonSettings) -> dict[str, Any]:
    """Return what the packet filter of the settings does, and what it holds."""
    return (_iptables_status if settings.backend is FirewallBackend.IPTABLES else _nftables_status)(host, settings)


def _nftables_status(host: Host, settings: DaemonSettings) -> dict[str, Any]:
    """Return what the table does, and what it holds."""
    nft = Libnftables()
    table = read_table(nft)
    return {
        "table": table.kind if table else "absent",
        "pending": host.switch(nft).pending() is not None,
        **_held(_firewall(settings, nft)),
    }


def _iptables_status(_: Host, settings: DaemonSettings) -> dict[str, Any]:
    """Return what our chains do, and what their sets hold."""
    with closing(backends.for_console(settings)) as firewall:
        return {"table": firewall.state(), "pending": False, **_held(firewall)}


def _held(firewall: Backend) -> dict[str, Any]:
    return {
        "grants": [_grant_words(grant) for grant in firewall.grants()],
        "foreign_drops": list(firewall.foreign_drops()),
    }


def _status_text(found: dict[str, Any]) -> str:
    """Return the status for people."""
    running = f"running, PID {found['pid']}" if found["running"] else f"NOT RUNNING (by {found['pid_file']})"
    held = [found, *found["beside"]]
    lines = [
        f"doorwardd {found['version']}: {running}",
        *(line for one in held for line in _held_text(one)),
        *map(_cycle_text, found["cycles"]),
    ]
    is_open = found["cycles"] or any(one["grants"] for one in held)
    return "\n".join(lines if is_open else [*lines, "nothing is open"])


def _held_text(found: dict[str, Any]) -> list[str]:
    """Return for people what one packet filter keeps closed and open."""
    return [
        f"{_closing(found['backend'])}: {found['table']}{', waiting to be confirmed' if found['pending'] else ''}",
        *(f"also dropping, so that grants may be void: {line}" for line in found["foreign_drops"]),
        *(f"open: {grant['source']} {_opening(grant)} {_remaining(grant)}" for grant in found["grants"]),
    ]


def _closing(backend: str) -> str:
    """Return what keeps things closed, by the name under which the host's own tools show it."""
    return "iptables chain DOORWARD_INPUT" if backend == FirewallBackend.IPTABLES else f"table {ruleset.TABLE}"


def _grant_words(grant: LiveGrant) -> dict[str, Any]:
    """Return a grant for JSON; `remaining` null stands for one without an end, `service` null for all of them."""
    words: dict[str, Any] = {
        "source": "any" if grant.source == ANYONE else str(grant.source),
        "service": None if grant.service is None else str(grant.service),
        "remaining": None if math.isinf(grant.remaining) else grant.remaining,
    }
    if grant.nat is not None:
        words |= {"nat": _nat_words(grant.nat)}
    if grant.os is not None:
        words |= {"os": grant.os}
    return words | ({} if grant.destination is None else {"destination": str(grant.destination)})


def _nat_words(nat: Nat) -> dict[str, Any]:
    """Return for JSON where a grant leads; `target` null is this host, `port` null all of them."""
    return {
        "target": None if nat.target is None else str(nat.target),
        "port": nat.port,
        "rewrite": nat.rewrite,
        "snat": None if nat.snat is None else str(nat.snat),
        "masquerade": nat.masquerade,
    }


def _opening(grant: dict[str, Any]) -> str:
    """Return for people what is open: `tcp/80 to 10.0.0.5 port 22 under the source 10.0.0.1`."""
    words = [grant["service"] or "everything"]
    words += [f"at {grant['destination']}"] if "destination" in grant else []
    words += [f"from {grant['os']}"] if "os" in grant else []
    if "nat" in grant:
        words += _leading(grant["nat"])
    return " ".join(words)


def _leading(nat: dict[str, Any]) -> list[str]:
    """Return the words for where a grant leads."""
    port = "" if nat["port"] is None else f" port {nat['port']}"
    words = [f"{'to' if nat['rewrite'] else 'through to'} {nat['target'] or 'this host,'}{port}"]
    words += ["masqueraded"] if nat["masquerade"] else []
    return words + ([f"under the source {nat['snat']}"] if nat["snat"] else [])


def _cycle_words(cycle: Cycle) -> dict[str, Any]:
    """Return what a stanza's commands opened, for JSON; `remaining` below 0 is overdue."""
    return {
        "source": cycle.source,
        "stanza": cycle.stanza,
        "close": shlex.join(cycle.close),
        "remaining": cycle.remaining(Moment.now()),
        "failures": cycle.failures,
    }


def _cycle_text(cycle: dict[str, Any]) -> str:
    """Return the same for people."""
    failed = f", CLOSING FAILED {cycle['failures']} times" if cycle["failures"] else ""
    return f"open by command: {cycle['source']} for {cycle['remaining']:.0f} s (stanza {cycle['stanza']}){failed}"


def _remaining(grant: dict[str, Any]) -> str:
    """Return when a grant ends, for people."""
    return "without an end" if grant["remaining"] is None else f"for {grant['remaining']:.0f} s"


def _open(host: Host, arguments: argparse.Namespace) -> str:
    """Open services by hand for one address, or for everybody."""
    settings = host.settings_or_defaults(arguments)
    services = tuple(arguments.services) or _configured_services(host.settings(arguments))
    for backend in _looked_at(settings):  # where both close, either one must let it in
        opener = _open_iptables if backend is FirewallBackend.IPTABLES else _open_nftables
        opener(settings, arguments.source, services, arguments.seconds)
    return f"open to {arguments.source or 'everybody'} for {arguments.seconds} s: {' '.join(map(str, services))}"


def _open_iptables(
    settings: DaemonSettings, source: IPAddress | None, services: tuple[Service, ...], seconds: int
) -> None:
    """Open services by elements that the rules which stand look into."""
    with closing(backends.for_console(settings)) as firewall:
        state = firewall.state()
        if state not in {"guard", "observe"}:
            msg = f"the chain DOORWARD_INPUT of iptables is {state}: doorward keeps nothing closed here"
            raise FirewallError(msg)
        if source is None:
            firewall.open_anyone(services, seconds)
        else:
            firewall.open(Grant(source, services, seconds))


def _open_nftables(
    settings: DaemonSettings, source: IPAddress | None, services: tuple[Service, ...], seconds: int
) -> None:
    """Open services by elements of the table's sets."""
    nft = Libnftables()
    table = read_table(nft)
    if table is None or not table.serves_grants:
        msg = f"there is no table {ruleset.TABLE} that could be opened: doorward keeps nothing closed here"
        raise FirewallError(msg)
    if source is not None:
        _firewall(settings, nft).open(Grant(source, services, seconds))
    elif ruleset.ANYONE_SET in table.sets:
        _firewall(settings, nft).open_anyone(services, seconds)
    else:
        msg = f"this table has no set {ruleset.ANYONE_SET} to open for everybody: name an address with --from"
        raise FirewallError(msg)


def _configured_services(settings: DaemonSettings) -> tuple[Service, ...]:
    """Return the services that access.conf names."""
    named = {port for stanza in access.load_configured(settings, Disk()).stanzas for port in stanza.open_ports or ()}
    if not named:
        msg = f"{settings.access_file} names no service: say which, for example tcp/22"
        raise FirewallError(msg)
    return tuple(sorted(named))


def _close(host: Host, arguments: argparse.Namespace) -> str:
    """Close the grants of one address, or all; noted first, so that a table loaded again does not open them again."""
    settings = host.settings_or_defaults(arguments)
    try:
        withdrawn.record(settings.run_folder, arguments.source, time.monotonic())
        if settings.exec_folder.is_dir():  # doorward-exec closes what its commands opened, within a second
            withdrawn.record(settings.exec_folder, arguments.source, Moment.now().steady)
    except OSError as error:
        msg = f"{settings.run_folder}: {error.strerror}"
        raise FirewallError(msg) from error
    there = backends.present()
    count = sum(_close_in(backend, settings, arguments.source) for backend in there)
    if not there:
        return f"nothing to close: {_NOTHING}"
    return "all grants are closed" if arguments.source is None else f"closed {count} of {arguments.source}"


def _close_in(backend: FirewallBackend, settings: DaemonSettings, source: IPAddress | None) -> int:
    """Close the grants of one address, or all, in one packet filter; return how many the address had."""
    iptables = backend is FirewallBackend.IPTABLES
    with closing(backends.for_console(settings) if iptables else _firewall(settings, Libnftables())) as firewall:
        if source is not None:
            return firewall.withdraw(source)
        firewall.flush()
        return 0


def _check(_: Host, arguments: argparse.Namespace) -> str:
    """Say what a file would change."""
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
    """Return the table, with the elements of its fixed sets and without grants."""
    nft = Libnftables()
    if read_table(nft) is None:
        msg = f"there is no table {ruleset.TABLE}"
        raise FirewallError(msg)
    return _listing(nft).rstrip("\n")


def _stop(host: Host, arguments: argparse.Namespace) -> str:
    """Open the host. A running doorwardd would load the table anew at the next knock: it keeps one that closes nothing.

    A table that waits for its confirmation is rolled back first, else its timer would close the host again.
    """
    settings = host.settings_or_defaults(arguments)
    there = backends.present()
    said = [_stop_iptables(settings)] if FirewallBackend.IPTABLES in there else []
    runs = settings.backend is FirewallBackend.NFTABLES and holder(settings.pid_file) is not None
    if FirewallBackend.NFTABLES in there or runs:
        said.append(_stop_nftables(host, runs=runs))
    return "\n".join(said) or f"doorward kept nothing closed: {_NOTHING}"


def _stop_nftables(host: Host, *, runs: bool) -> str:
    nft = Libnftables()
    with suppress(FirewallError):
        host.switch(nft).rollback()
    if not runs:
        nft.run(ruleset.REMOVE)
        return "THE HOST IS OPEN until the next boot: the table is gone"
    nft.run(ruleset.swap(ruleset.observe()))
    return "THE HOST IS OPEN until the next boot: doorwardd runs on, and only records grants"


def _stop_iptables(settings: DaemonSettings) -> str:
    """Take our rules out of iptables; a running doorwardd would put them back within a second."""
    pid = holder(settings.pid_file)
    if pid is not None and settings.backend is FirewallBackend.IPTABLES:
        msg = f"doorwardd runs (PID {pid}) and would put its rules back: end it first (doorwardd -K)"
        raise FirewallError(msg)
    with closing(backends.for_console(settings)) as firewall:
        firewall.remove()
    return "our chains and sets are gone from iptables: what only doorward kept closed IS OPEN"


def _firewall(settings: DaemonSettings, nft: Libnftables) -> Nftables:
    """Return the packet filter for commands that never make a table."""
    nobody: Callable[[], Iterable[Service]] = tuple
    return Nftables(settings.firewall_file, FirewallMode.OBSERVE, nobody, nft)


def _listing(nft: Libnftables) -> str:
    """Return the table in the kernel, without grants; empty where there is none."""
    if read_table(nft) is None:
        return ""
    return ruleset.normalised(nft.run(f"list table {ruleset.TABLE}", Output.STATELESS))


_NFTABLES_ONLY: Final = frozenset({_check, _apply, _confirm, _rollback, _show})
