"""Both files and the command line as one configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from doorward.capture.bpf import Formats
from doorward.config import access, convert
from doorward.config import settings as daemon_config
from doorward.config.files import Recorder
from doorward.errors import ConfigError, DoorwardError, Problem
from doorward.frozen import dataclass
from doorward.processes.options import DEFAULT, INERT, REFUSED
from doorward.values import Carriers, Protocol, Service

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from doorward.config.access import Access
    from doorward.config.files import Answers, Files
    from doorward.config.reader import Line
    from doorward.config.sequence import Sequence
    from doorward.config.settings import DaemonSettings
    from doorward.config.stanza import Stanza

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings and stanzas of one reading; `warnings` are for the log."""

    settings: DaemonSettings
    access: Access
    warnings: tuple[str, ...]

    @property
    def guarded(self) -> frozenset[Service]:
        """The services that a guard table closes: those of stanzas, the knock port and the servers' ports.

        No socket is bound to the knock port, so without a drop the kernel would answer every knock with port
        unreachable. A range of knock ports is left alone, since other programs may use some of them; so are captured
        TCP ports, on which another program accepts.
        """
        named = map(_closed, self.access.stanzas)
        magic = {Service(Protocol.UDP, ports.start) for ports in self.magic.udp}
        silent = magic | {Service(Protocol.UDP, ports.start) for ports in self.settings.carriers.udp if len(ports) == 1}
        return frozenset().union(*named, silent, self.served)

    @property
    def served(self) -> frozenset[Service]:
        """The ports of our own servers, which are open to everybody while the daemon lives.

        Where the settings leave it open whether there is a UDP server, its port is one of them.
        """
        udp, tcp = self.settings.udp_server, self.settings.tcp_server
        udp = daemon_config.KNOCK_PORT if self.settings.automatic else udp
        pairs = ((Protocol.UDP, udp), (Protocol.TCP, tcp))
        return frozenset(Service(protocol, port) for protocol, port in pairs if port is not None)

    def heard(self, *, server: bool) -> Configuration:
        """The configuration with what its settings leave open: knocks are heard by a UDP server, or passively.

        Passively also where the settings want a server that cannot be had: on the port of that server.
        """
        if not self.settings.automatic:
            wanted = self.settings.udp_server
            return self if server or wanted is None else replace(self, settings=_captured(self.settings, wanted))
        port = daemon_config.KNOCK_PORT if server else None
        return replace(self, settings=replace(self.settings, automatic=False, udp_server=port, capture=not server))

    @property
    def formats(self) -> Formats:
        """The formats of the packets that stanzas have keys for."""
        stanzas = self.access.stanzas
        keyed = any(stanza.keys is not None or stanza.openpgp is not None for stanza in stanzas)
        return Formats(fwknop=keyed, doorward=any(stanza.clients for stanza in stanzas))

    @property
    def magic(self) -> Carriers:
        """The carriers of magic packets: UDP ports, and echo requests and replies."""
        wanted = {stanza.magic.port for stanza in self.access.stanzas if stanza.magic is not None}
        ports = sorted(port for port in wanted if port is not None)
        return Carriers(udp=tuple(range(port, port + 1) for port in ports), echo=None in wanted)

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        """The sequences of ports of all stanzas."""
        return tuple(sequence for stanza in self.access.stanzas for sequence in stanza.sequences)

    @property
    def clients(self) -> int:
        """How many lines of CLIENT there are: it bounds the tags that are live at once."""
        return sum(len(stanza.clients) for stanza in self.access.stanzas)

    @property
    def for_exec(self) -> tuple[str, ...]:
        """The reasons for doorward-exec: stanzas that run commands, and mail."""
        stanzas = (one.label for one in self.access.stanzas if one.commands or one.cycle or one.named)
        return (*stanzas, *(("ACCESS_ALERTS",) if self.settings.alerts else ()))


def _captured(chosen: DaemonSettings, port: int) -> DaemonSettings:
    """The settings with passive capture of a port in place of the UDP server that they want."""
    written = chosen.carriers if chosen.capture else Carriers()
    more = () if any(port in span for span in written.udp) else (range(port, port + 1),)
    return replace(chosen, udp_server=None, capture=True, carriers=replace(written, udp=(*written.udp, *more)))


def _closed(stanza: Stanza) -> frozenset[Service]:
    """The services of a stanza that are closed to others.

    With FORCE_NAT the ports of OPEN_PORTS are outer ports, where everyone else keeps seeing what is bound there. The
    inner port is closed if it is on this host.
    """
    named, force = stanza.open_ports or frozenset(), stanza.forwarding.force
    if force is None:
        return named
    target, port = force
    return frozenset(Service(service.protocol, port) for service in named if target.is_loopback)


def load(options: argparse.Namespace) -> tuple[Configuration, Files]:
    """Read all files that the options name; return the configuration and the recorded files.

    Raises:
        ConfigError: every problem.
    """
    recorder = Recorder()
    return parse(options, recorder), recorder.files


def parse(options: argparse.Namespace, files: Answers) -> Configuration:
    """The configuration of the files; `files` are those that load() has recorded, or another source of answers.

    Raises:
        ConfigError: every problem.
    """
    loaded = _settings(options, files)
    stanzas = access.load_configured(loaded.settings, files)
    warnings = (*loaded.warnings, *stanzas.warnings)
    return Configuration(loaded.settings, stanzas, warnings)


def settings(options: argparse.Namespace) -> DaemonSettings:
    """The settings alone, for commands that need no keys.

    Raises:
        ConfigError: every problem of the file.
    """
    return _settings(options, Recorder()).settings


def _settings(options: argparse.Namespace, files: Answers) -> daemon_config.Loaded:
    """The settings of the files with the command line's on top; the default file need not be there."""
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
    automatic = chosen.automatic and not options.udp_server and daemon_config.HEARING.isdisjoint(given)
    chosen = replace(chosen, automatic=automatic, **given)
    if chosen.pcap_file is not None:  # its packets are as old as they are
        chosen = replace(chosen, max_age=None)
    return replace(
        loaded, settings=chosen, warnings=(*loaded.warnings, *_without_effect(options, chosen, loaded.lines))
    )


def _without_effect(options: argparse.Namespace, chosen: DaemonSettings, written: Mapping[str, Line]) -> Iterator[str]:
    """Yield warnings of settings and options without effect; `written` are the lines of the settings."""
    for option, why in INERT.items():
        if getattr(options, option.removeprefix("--").replace("-", "_")):
            yield f"{option} has no effect: {why}"
    if chosen.http and chosen.tcp_server is None and not chosen.carriers.tcp:
        text = "ENABLE_SPA_OVER_HTTP has no effect without ENABLE_TCP_SERVER or a tcp port in PCAP_FILTER"
        yield written["ENABLE_SPA_OVER_HTTP"].remark(text)
    if chosen.forwarded_for and not chosen.http:
        text = "ENABLE_X_FORWARDED_FOR has no effect without ENABLE_SPA_OVER_HTTP"
        yield written["ENABLE_X_FORWARDED_FOR"].remark(text)
    if chosen.replay_share is not None and (options.test or chosen.pcap_file is not None):
        text = "REPLAY_SHARE is not asked by a daemon that opens nothing (-t) or reads packets from a file"
        yield written["REPLAY_SHARE"].remark(text)
    if options.access_file is not None and chosen.access_folder is not None:
        yield f"{options.access_file} is not read: the stanzas are in {chosen.access_folder} (ACCESS_FOLDER)"


def _option(name: str, converter: Callable[[str], T], text: str | None) -> T | None:
    try:
        return None if text is None else converter(text)
    except (ValueError, DoorwardError) as error:
        raise ConfigError([Problem(name, 0, str(error))]) from error
