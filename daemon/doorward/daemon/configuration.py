"""Both files and the command line as one configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from doorward.config import access, convert, reader
from doorward.config import daemon as daemon_config
from doorward.config.daemon import CONFIG_FOLDER, DaemonSettings
from doorward.errors import ConfigError, DoorwardError, Problem
from doorward.privsep.helper import Files
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from doorward.config.access import Access

T = TypeVar("T")

DEFAULT: Final = CONFIG_FOLDER / "doorwardd.conf"


@dataclass(frozen=True, slots=True)
class Configuration:
    """Both files as they were read together; `warnings` are for the log."""

    settings: DaemonSettings
    access: Access
    warnings: tuple[str, ...]

    @property
    def guarded(self) -> frozenset[Service]:
        """What a guard table closes: the services that stanzas name, and the knock port.

        Nothing listens on the knock port, and without a drop the kernel would answer every knock with port unreachable.
        A range of knock ports stays as it is: other programs may use some of them.
        """
        named = (stanza.open_ports or frozenset() for stanza in self.access.stanzas)
        ports = self.settings.ports
        silent = {Service(Protocol.UDP, ports.start)} if len(ports) == 1 else set()
        return frozenset().union(*named, silent)


def load(options: argparse.Namespace) -> tuple[Configuration, Files]:
    """Read both files where the options say, and return them understood and as bytes.

    Raises:
        ConfigError: every problem of both.
    """
    content = _content(options)
    chosen = _settings(options, content).settings
    files = Files(content, reader.content(chosen.access_file, secret=True))
    return parse(options, files), files


def parse(options: argparse.Namespace, files: Files) -> Configuration:
    """Return the configuration that the bytes of both files say.

    Raises:
        ConfigError: every problem of both.
    """
    loaded = _settings(options, files.settings)
    stanzas = access.parse(loaded.settings.access_file, files.access)
    warnings = (*loaded.warnings, *stanzas.warnings)
    return Configuration(loaded.settings, stanzas, warnings)


def settings(options: argparse.Namespace) -> DaemonSettings:
    """Return the settings alone, for commands that need no keys.

    Raises:
        ConfigError: every problem of the file.
    """
    return _settings(options, _content(options)).settings


def _content(options: argparse.Namespace) -> bytes:
    """Return the bytes of the settings' file; the default one need not be there."""
    if options.config_file is None and not DEFAULT.exists():
        return b""
    return reader.content(options.config_file or DEFAULT, secret=False)


def _settings(options: argparse.Namespace, content: bytes) -> daemon_config.Loaded:
    """Return the settings of the file with the command line's on top."""
    loaded = daemon_config.parse(options.config_file or DEFAULT, content)
    chosen = loaded.settings
    if options.run_dir is not None:
        run = options.run_dir
        chosen = replace(chosen, run_folder=run, pid_file=run / "doorwardd.pid", replay_file=run / "replay.db")
    wishes: dict[str, Any] = {
        "access_file": options.access_file,
        "pid_file": options.pid_file,
        "replay_file": options.digest_file,
        "interfaces": _option("-i", daemon_config.interfaces, options.interface),
        "ports": _option("-P", convert.capture_ports, options.pcap_filter),
    }
    given = {name: value for name, value in wishes.items() if value is not None}
    return replace(loaded, settings=replace(chosen, **given))


def _option(name: str, converter: Callable[[str], T], text: str | None) -> T | None:
    try:
        return None if text is None else converter(text)
    except (ValueError, DoorwardError) as error:
        raise ConfigError([Problem(name, 0, str(error))]) from error
