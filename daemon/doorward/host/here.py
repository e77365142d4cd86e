"""Paths on a host, and helpers of its commands."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.config import access, reader
from doorward.config import settings as daemon_config
from doorward.config.access import Access
from doorward.config.files import Disk
from doorward.errors import ConfigError, DoorwardError, FirewallError
from doorward.firewall.deadman import DEADLINE_MAX, DeadMansSwitch, SystemdTimer, Timer
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Nftables
from doorward.firewall.wanted import SWITCH_FOLDER
from doorward.host.running import noted, record_in
from doorward.host.swap import FOLDER, WAITS, Swap
from doorward.processes.configuration import Configuration
from doorward.processes.options import absolute
from doorward.values import GRANT_SECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doorward.config.settings import DaemonSettings
    from doorward.config.stanza import Stanza
    from doorward.firewall.libnftables import Libnftables
    from doorward.host.running import Running
    from doorward.values import Service


DONE: Final = 0
FAILED: Final = 1
NOT_ROOT: Final = 4
_DURATION: Final = re.compile(r"(\d{1,9})([smh]?)", re.ASCII)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}  # seconds


def _new_token() -> str:
    """An unguessable token without special characters."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Host:
    """Paths on a host, and the timer that rolls its firewall back."""

    configuration: Path = daemon_config.CONFIG_FOLDER / "doorwardd.conf"
    switch_folder: Path = SWITCH_FOLDER
    timer: Timer = field(default_factory=SystemdTimer)
    new_token: Callable[[], str] = _new_token
    record_folder: Path = daemon_config.RUN_FOLDER

    def settings(self, options: argparse.Namespace) -> DaemonSettings:
        """The settings of the options; without them those of the running daemon, else of the default file.

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
        """The settings, or the defaults where the file has mistakes: a typo must not lock anybody out.

        Raises:
            ConfigError: the file of -c does not exist.
        """
        try:
            return self.settings(options)
        except ConfigError:
            if options.config_file is not None and not options.config_file.exists():
                raise
        defaults, running = daemon_config.DaemonSettings(), self._running(options)
        return _as_asked(defaults, options) if running is None else _as_it_runs(defaults, running)

    def _running(self, options: argparse.Namespace) -> Running | None:
        """The record of the running daemon, unless the options name files."""
        if options.config_file or options.access_file or options.run_dir:
            return None
        return noted(record_in(self.record_folder))

    def switch(self, nft: Libnftables) -> DeadMansSwitch:
        """The dead man's switch of this host."""
        return DeadMansSwitch(self.switch_folder, self.timer, nft, self.new_token)

    def swap(self) -> Swap:
        """The dead man's switch of the daemon's files on this host."""
        return Swap(SystemdTimer(Path("/") / FOLDER, WAITS), self.new_token)


def _read(file: Path, overrides: Iterable[Path] = (), *, needed: bool) -> DaemonSettings:
    """The settings of files; the defaults where the first is missing and not `needed`."""
    content = reader.content(file, secret=False) if needed or file.exists() else b""
    return daemon_config.parse(file, content, [(one, reader.content(one, secret=False)) for one in overrides]).settings


def _as_it_runs(chosen: DaemonSettings, running: Running) -> DaemonSettings:
    """Settings with the paths of the running daemon."""
    return replace(
        chosen,
        access_file=running.access_file or chosen.access_file,
        access_folder=running.access_folder or chosen.access_folder,
        run_folder=running.run_folder,
        pid_file=running.pid_file,
        exec_folder=running.exec_folder,
        replay_file=running.replay_file,
    )


def _as_asked(chosen: DaemonSettings, options: argparse.Namespace) -> DaemonSettings:
    """Settings with the paths of the options."""
    chosen = chosen if options.run_dir is None else daemon_config.in_run_folder(chosen, options.run_dir)
    return chosen if options.access_file is None else replace(chosen, access_file=options.access_file)


def duration(text: str) -> int:
    """The seconds of `90s`, `15m`, `1h` or `90`; from 1 to the longest grant."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= GRANT_SECONDS_MAX:
        msg = f"{text[:40]!r} is not a duration such as 90s, 15m or 1h, of at most {GRANT_SECONDS_MAX} s"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def deadline(text: str) -> int:
    """The seconds of a deadline, at most a day."""
    seconds = duration(text)
    if seconds > DEADLINE_MAX:
        msg = f"a deadline of {seconds} s is longer than {DEADLINE_MAX} s"
        raise argparse.ArgumentTypeError(msg)
    return seconds


class Answer(NamedTuple):
    """What a command prints, and its exit code."""

    text: str
    code: int = DONE


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def runs(
    parser: argparse.ArgumentParser,
    host: Host,
    command: Callable[[Host, argparse.Namespace], Answer | str],
) -> None:
    """Set the parser's `run` to `command`, for root alone; its text is printed."""
    add = parser.add_argument_group("files; without one of these the running daemon's").add_argument
    add("-c", "--config-file", type=absolute, metavar="FILE", help="settings of doorwardd, as its option -c")
    add("-a", "--access-file", type=absolute, metavar="FILE", help="its stanzas, as its option -a")
    add("-r", "--run-dir", type=absolute, metavar="DIR", help="folder of its PID file, as its option -r")

    def run(arguments: argparse.Namespace) -> int:
        if os.geteuid():
            sys.stderr.write("doorward: must be run as root\n")
            return NOT_ROOT
        answer = command(host, arguments)
        text, code = answer if isinstance(answer, Answer) else Answer(answer)
        sys.stdout.write(f"{text}\n" if text else "")
        return code

    parser.set_defaults(run=run)


def packet_filter(settings: DaemonSettings, switch: Path = SWITCH_FOLDER) -> Nftables:
    """The packet filter for commands that never make a table."""
    stanzas: tuple[Stanza, ...] = ()
    problem = ""
    try:
        stanzas = access.load_configured(settings, Disk()).stanzas
    except DoorwardError as error:  # a typo must not lock anybody out
        problem = str(error)

    def guarded() -> Iterable[Service]:
        if problem:
            raise FirewallError(problem)
        return Configuration(settings, Access(stanzas, ()), ()).guarded

    needs = Needs.of(stanzas, settings.permissions)
    chosen = settings.firewall_file, settings.firewall_mode, guarded
    return Nftables(*chosen, needs=needs, mark=settings.mark, switch=switch)
