"""Both files and the command line as one configuration."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from doorward.config import access, convert, reader
from doorward.config import daemon as daemon_config
from doorward.config.files import Recorder
from doorward.daemon.options import DEFAULT, INERT, REFUSED
from doorward.errors import ConfigError, DoorwardError, FirewallError, Problem, WireError
from doorward.firewall.abilities import Asked, lacking, ways
from doorward.firewall.xtables import find
from doorward.policy import Abilities, forwarded
from doorward.values import FirewallBackend, Nat, Protocol, Service

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from doorward.config.access import Access
    from doorward.config.daemon import DaemonSettings
    from doorward.config.files import Files, Source
    from doorward.config.reader import Line
    from doorward.config.stanza import Stanza

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Configuration:
    """All files as they were read together; `warnings` are for the log."""

    settings: DaemonSettings
    access: Access
    warnings: tuple[str, ...]

    @property
    def guarded(self) -> frozenset[Service]:
        """What a guard table closes: the services that stanzas name, the knock port and the servers' ports.

        Nothing listens on the knock port, and without a drop the kernel would answer every knock with port unreachable.
        A range of knock ports stays as it is: other programs may use some of them. So do TCP ports that are only
        listened to: somebody else has to accept there.
        """
        named = map(_closed, self.access.stanzas)
        silent = {Service(Protocol.UDP, ports.start) for ports in self.settings.carriers.udp if len(ports) == 1}
        return frozenset().union(*named, silent, self.served)

    @property
    def served(self) -> frozenset[Service]:
        """The ports of our own servers, which are open to everybody for as long as the daemon lives."""
        udp, tcp = self.settings.udp_server, self.settings.tcp_server
        pairs = ((Protocol.UDP, udp), (Protocol.TCP, tcp))
        return frozenset(Service(protocol, port) for protocol, port in pairs if port is not None)

    @property
    def abilities(self) -> Abilities:
        """What the settings let stanzas do."""
        chosen = self.settings
        return Abilities(
            forwarding=chosen.forwarding,
            local_nat=chosen.local_nat,
            snat=chosen.snat,
            snat_source=chosen.snat_source,
            destination_rule=chosen.destination_rule,
        )

    @property
    def nats(self) -> tuple[Nat, ...]:
        """Every way that a grant may lead, as far as they can be counted: iptables needs rules for each."""
        asked = _asked(self.settings)
        found: dict[Nat, None] = {}
        for stanza in self.access.stanzas:
            for target, port in sorted(ways(stanza, asked), key=str):
                with suppress(WireError):  # a source of another family than the target: policy refuses it too
                    nat = Nat(None, port) if target is None else forwarded(stanza, self.abilities, target, port)
                    found[nat] = None
        return tuple(found)

    @property
    def for_exec(self) -> tuple[str, ...]:
        """What needs doorward-exec: stanzas that run commands, and mail."""
        stanzas = (f"stanza {one.number}" for one in self.access.stanzas if one.commands or one.cycle)
        return (*stanzas, *(("ACCESS_ALERTS",) if self.settings.alerts else ()))


def _asked(chosen: DaemonSettings) -> Asked:
    """Return what the settings let packets ask of the packet filter."""
    return Asked(
        forwarding=chosen.forwarding,
        local_nat=chosen.local_nat,
        snat=chosen.snat,
        destination=chosen.destination_rule,
    )


def _closed(stanza: Stanza) -> frozenset[Service]:
    """Return what a stanza wants closed to others: what it opens.

    With FORCE_NAT the numbers of OPEN_PORTS only stand for another place. Closed is that place where it is on this
    host, and everyone else keeps seeing what is bound at those numbers.
    """
    named, force = stanza.open_ports or frozenset(), stanza.forwarding.force
    if force is None:
        return named
    target, port = force
    return frozenset(Service(service.protocol, port) for service in named if target.is_loopback)


def load(options: argparse.Namespace) -> tuple[Configuration, Files]:
    """Read all files where the options say, and return them understood and as they were read.

    Raises:
        ConfigError: every problem.
    """
    recorder = Recorder()
    read = parse(options, recorder)
    _look_for_program(read.settings)
    return read, recorder.files


def _look_for_program(chosen: DaemonSettings) -> None:
    """Refuse a FIREWALL_EXE that is not there or is no iptables, with its line."""
    if chosen.backend is not FirewallBackend.IPTABLES or chosen.firewall_exe_line is None:
        return
    try:
        find(chosen.firewall_exe)
    except FirewallError as error:
        path, number = chosen.firewall_exe_line
        raise reader.failure([Problem(path, number, str(error))]) from error


def parse(options: argparse.Namespace, files: Source) -> Configuration:
    """Return the configuration that the files say; `files` are those that load() has read, or a reader of its own.

    Raises:
        ConfigError: every problem.
    """
    loaded = _settings(options, files)
    stanzas = access.load_configured(loaded.settings, files)
    problems = lacking(stanzas.stanzas, _asked(loaded.settings), loaded.settings.backend)
    if problems:
        raise reader.failure(problems)
    warnings = (*loaded.warnings, *stanzas.warnings)
    return Configuration(loaded.settings, stanzas, warnings)


def settings(options: argparse.Namespace) -> DaemonSettings:
    """Return the settings alone, for commands that need no keys.

    Raises:
        ConfigError: every problem of the file.
    """
    return _settings(options, Recorder()).settings


def _settings(options: argparse.Namespace, files: Source) -> daemon_config.Loaded:
    """Return the settings of the files with the command line's on top; the default file need not be there."""
    if options.nfq_capture:
        raise ConfigError([Problem("--nfq-capture", 0, REFUSED["--nfq-capture"])])
    path = options.config_file or DEFAULT
    content = files.content_if_any(path) if options.config_file is None else files.content(path, secret=False)
    overrides = [(one, files.content(one, secret=False)) for one in options.override_config]
    loaded = daemon_config.parse(path, content, overrides)
    chosen = loaded.settings
    if options.run_dir is not None:
        chosen = daemon_config.in_run_folder(chosen, options.run_dir)
    if options.udp_server and chosen.udp_server is None:
        chosen = replace(chosen, udp_server=chosen.udp_server_port, capture=options.pcap_filter is not None)
    wishes: dict[str, Any] = {
        "access_file": options.access_file,
        "access_folder": options.access_folder,
        "pcap_file": options.pcap_file,
        "gpg_home": options.gpg_home_dir,
        "gpg_exe": options.gpg_exe,
        "sudo_exe": options.sudo_exe,
        "pid_file": options.pid_file,
        "replay_file": options.digest_file,
        "interfaces": _option("-i", daemon_config.interfaces, options.interface),
        "carriers": _option("-P", convert.carriers, options.pcap_filter),
    }
    given = {name: value for name, value in wishes.items() if value is not None}
    chosen = replace(chosen, **given)
    if chosen.pcap_file is not None:  # its packets are as old as they are
        chosen = replace(chosen, max_age=None)
    return replace(
        loaded, settings=chosen, warnings=(*loaded.warnings, *_without_effect(options, chosen, loaded.lines))
    )


def _without_effect(options: argparse.Namespace, chosen: DaemonSettings, written: Mapping[str, Line]) -> Iterator[str]:
    """Yield what was asked for and changes nothing; `written` are the lines that said it."""
    for option, why in INERT.items():
        if getattr(options, option.removeprefix("--").replace("-", "_")):
            yield f"{option} has no effect: {why}"
    if chosen.http and chosen.tcp_server is None and not chosen.carriers.tcp:
        text = "ENABLE_SPA_OVER_HTTP has no effect without ENABLE_TCP_SERVER or a tcp port in PCAP_FILTER"
        yield written["ENABLE_SPA_OVER_HTTP"].remark(text)
    if chosen.forwarded_for and not chosen.http:
        text = "ENABLE_X_FORWARDED_FOR has no effect without ENABLE_SPA_OVER_HTTP"
        yield written["ENABLE_X_FORWARDED_FOR"].remark(text)
    if options.access_file is not None and chosen.access_folder is not None:
        yield f"{options.access_file} is not read: the stanzas are in {chosen.access_folder} (ACCESS_FOLDER)"


def _option(name: str, converter: Callable[[str], T], text: str | None) -> T | None:
    try:
        return None if text is None else converter(text)
    except (ValueError, DoorwardError) as error:
        raise ConfigError([Problem(name, 0, str(error))]) from error
