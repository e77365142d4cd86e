"""doorwardd.conf, which is also fwknopd.conf: its lines to settings. Source: fwknop server/config_init.c."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.config import convert, reader
from doorward.config.reader import LINE_MAX, Line, Setting
from doorward.values import Carriers, FirewallBackend, FirewallMode, LogStyle, Networks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from doorward.errors import Problem
    from doorward.values import IPAddress

CONFIG_FOLDER: Final = Path("/etc/doorward")
STATE_FOLDER: Final = Path("/var/lib/doorward")
EXEC_FOLDER: Final = Path(
    "/var/lib/doorward-exec"
)  # root's alone: the listener could put its own folder in STATE_FOLDER
RUN_FOLDER: Final = Path("/run/doorward")
AGE_MAX: Final = 100_000  # seconds, fwknopd's RCHK_MAX_SPA_PACKET_AGE
COMMAND_SECONDS_MAX: Final = 3600
KNOCK_PORT: Final = 62201
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,63}(?:@[A-Za-z0-9.-]{1,253})?", re.ASCII)
_SERVER: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]{1,253})(?::(\d{1,5}))?", re.ASCII)
CARRIERS: Final = Carriers(udp=(range(KNOCK_PORT, KNOCK_PORT + 1),))
NOBODY: Final = Networks(everywhere=False)
FWKNOPD: Final = "fwknopd.conf"  # a file of this name comes from an installation of fwknop


@dataclass(frozen=True, slots=True)
class Alerts:
    """Which verdicts are mailed to whom. `sender` None is the mailer's own choice; `smtp_server` None is `sendmail`."""

    addresses: tuple[str, ...]
    sender: str | None = None
    granted: bool = True
    denied: bool = True
    smtp_server: str | None = None  # host, host:port or [address]:port
    sendmail: Path = Path("/usr/sbin/sendmail")
    per_hour: int = 20


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """How doorwardd runs. `max_age` in seconds, None where ageing is off; `interfaces` empty means every one.

    `capture` False is a UDP server in the place of passive capture; `udp_server` and `tcp_server` are ports, None where
    there is none; `udp_server_port` and `tcp_server_port` are what they would be. `proxies` are believed about who
    speaks through them. `command_seconds` is how long a command may run.
    """

    access_file: Path = CONFIG_FOLDER / "access.conf"
    interfaces: tuple[str, ...] = ()
    carriers: Carriers = CARRIERS
    max_age: int | None = 120
    run_folder: Path = RUN_FOLDER
    pid_file: Path = RUN_FOLDER / "doorwardd.pid"
    replay_file: Path = STATE_FOLDER / "replay.db"
    firewall_mode: FirewallMode = FirewallMode.GUARD
    firewall_file: Path = CONFIG_FOLDER / "firewall.nft"
    flush_at_start: bool = False
    flush_at_exit: bool = False
    verbose: int = 0
    syslog_identity: str = "doorwardd"
    syslog_facility: str = "daemon"
    audit_file: Path | None = None
    forwarding: bool = False
    local_nat: bool = False
    snat: bool = False
    snat_source: IPAddress | None = None
    destination_rule: bool = False
    promiscuous: bool = False
    capture: bool = True
    udp_server: int | None = None
    udp_server_port: int = KNOCK_PORT
    tcp_server: int | None = None
    tcp_server_port: int = KNOCK_PORT
    http: bool = False
    http_any_agent: bool = False
    forwarded_for: bool = False
    proxies: Networks = NOBODY
    icmp: bool = False
    pcap_file: Path | None = None
    backend: FirewallBackend = FirewallBackend.NFTABLES
    firewall_exe: Path | None = None
    firewall_exe_line: tuple[str, int] | None = None  # where it is written, for what is wrong with it
    log_style: LogStyle = LogStyle.DOORWARD
    access_folder: Path | None = None
    gpg_home: Path = Path("/root/.gnupg")
    gpg_exe: Path = Path("/usr/bin/gpg")
    sudo_exe: Path = Path("/usr/bin/sudo")
    command_seconds: int = 10
    alerts: Alerts | None = None
    exec_folder: Path = EXEC_FOLDER


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings of a file, what the log at start should say of it, and for each name the line that counts."""

    settings: DaemonSettings
    warnings: tuple[str, ...]
    lines: dict[str, Line] = field(default_factory=dict)


def load(path: Path) -> Loaded:
    """Return the settings of a file.

    Raises:
        ConfigError: every problem of the file.
    """
    return parse(path, reader.content(path, secret=False))


def parse(path: Path, content: bytes, overrides: Sequence[tuple[Path, bytes]] = ()) -> Loaded:
    """Return the settings in the bytes of a file; `path` names it in problems.

    What `overrides` (path and bytes of further files) say counts more, the last of them most.

    Raises:
        ConfigError: every problem of the files.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    lines = [line for file, read in ((path, content), *overrides) for line in reader.lines(file, read, problems)]
    lines = [line for line in _expanded(lines, problems) if not _is_inert(line, warnings)]
    where = {line.name: line for line in lines}
    warnings.extend(_overridden(lines, where))
    values: dict[str, Any] = {}
    for line, name, value in reader.convert(_other_backends_last(lines, warnings), SETTINGS, problems):
        warnings.extend(filter(None, [line.remark_on_comment()]))
        if name:
            values[name] = value
        elif value:
            problems.append(line.problem(f"{line.name} {line.value} is refused: {REFUSED[line.name]}"))
    _compare(values, where, problems)
    if problems:
        raise reader.failure(problems)
    chosen = _settings(path, values)
    if "firewall_exe" in values:
        written = where["FIREWALL_EXE"]
        chosen = replace(chosen, firewall_exe_line=(written.path, written.number))
        if chosen.backend is not FirewallBackend.IPTABLES:
            warnings.append(written.remark("FIREWALL_EXE has no effect: nftables needs no program"))
    return Loaded(chosen, tuple(warnings), where)


def _overridden(lines: list[Line], where: dict[str, Line]) -> Iterator[str]:
    """Yield what the same file says again further down, as fwknopd takes it; a file of -O is there to say it again."""
    for line in lines:
        last = where[line.name]
        if line is not last and line.path == last.path:
            yield line.remark(f"{line.name} does not count: line {last.number} says it again")


def in_run_folder(chosen: DaemonSettings, folder: Path) -> DaemonSettings:
    """Return settings with what the daemon keeps while it runs in another folder, as its option -r says."""
    return replace(
        chosen,
        run_folder=folder,
        pid_file=folder / "doorwardd.pid",
        replay_file=folder / "replay.db",
        exec_folder=folder / "exec",
    )


def _other_backends_last(lines: list[Line], warnings: list[str]) -> list[Line]:
    """Return the lines without those under firewalld's name whose twin under iptables' name is there as well."""
    named = {line.name for line in lines}
    kept = []
    for line in lines:
        twin = line.name.replace("FIREWD", "IPT")
        if twin != line.name and twin in named and line.name in SETTINGS:
            warnings.append(line.remark(f"{line.name} is not used beside {twin}"))
        else:
            kept.append(line)
    return kept


def _compare(values: dict[str, Any], where: dict[str, Line], problems: list[Problem]) -> None:
    """Name what makes sense only together with another line."""
    if values.get("forwarded_for") and "proxies" not in values and "TRUSTED_PROXIES" not in where:
        problems.append(
            where["ENABLE_X_FORWARDED_FOR"].problem(
                "ENABLE_X_FORWARDED_FOR needs TRUSTED_PROXIES: whose word is taken for who speaks?"
            )
        )
    if "ACCESS_ALERTS" not in where:
        about_mail = ("ALERT_FROM", "ALERT_EVENTS", "SMTP_SERVER", "SENDMAIL_EXE", "ALERTS_PER_HOUR")
        problems.extend(
            where[name].problem(f"{name} without ACCESS_ALERTS: nobody gets the mail")
            for name in about_mail
            if name in where
        )


def _settings(path: Path, values: dict[str, Any]) -> DaemonSettings:
    """Return the settings; what hangs on other settings is worked out here, once all of them are known."""
    if not values.pop("ageing", True):
        values["max_age"] = None
    folder = values.pop("conf_folder", path.parent if path.name == FWKNOPD else None)
    if folder is not None:
        values.setdefault("access_file", folder / "access.conf")
    if "access_file" in values:  # fwknopd.conf may name it without a folder
        values["access_file"] = path.parent / values["access_file"]
    run_folder = values.get("run_folder")
    if run_folder is not None:
        values.setdefault("pid_file", run_folder / "doorwardd.pid")
        values.setdefault("replay_file", run_folder / "replay.db")
    for server in ("udp_server", "tcp_server"):
        values[server] = values.get(f"{server}_port", KNOCK_PORT) if values.get(server) else None
    # fwknopd has either; here a filter that is written says what else is listened to
    values["capture"] = values["udp_server"] is None or "carriers" in values
    values["alerts"] = _alerts(values)
    if path.name == FWKNOPD:
        values.setdefault("log_style", LogStyle.BOTH)
        values.setdefault("syslog_identity", "fwknopd")
    return replace(DaemonSettings(), **values)


def _alerts(values: dict[str, Any]) -> Alerts | None:
    """Take what is about mail out of the values; without an address there is none."""
    about = {name: values.pop("alert_" + name) for name in Alerts.__slots__ if "alert_" + name in values}
    granted, denied = values.pop("alert_events", (True, True))
    return Alerts(**about, granted=granted, denied=denied) if "addresses" in about else None


def _expanded(lines: list[Line], problems: list[Problem]) -> Iterator[Line]:
    """Yield the lines with one leading `$NAME` put in from the lines above, as fwknopd does."""
    known: dict[str, str] = {}
    for line in lines:
        name, slash, rest = line.value.removeprefix("$").partition("/")
        refers = line.value.startswith("$") and name in known
        value = known[name] + slash + rest if refers else line.value
        if len(value) > LINE_MAX:  # a name that is put into itself would grow with every line
            problems.append(line.problem(f"{line.name}: {len(value)} characters are more than {LINE_MAX}"))
            continue
        known[line.name] = value
        yield replace(line, value=value)


def _is_inert(line: Line, warnings: list[str]) -> bool:
    """Say whether a name of fwknopd has nothing to do here; it is then named in a warning, never passed over."""
    if line.name in INERT:
        warnings.append(line.remark(f"{line.name} has no effect: {INERT[line.name]}"))
    return line.name in INERT


def _literal(text: str) -> str:
    """Read a text; a variable that no line above sets would pass for a part of it."""
    if text.startswith("$"):
        msg = f"{text[:60]!r} begins with a variable that no line above sets"
        raise ValueError(msg)
    return convert.text(text)


def _path(text: str) -> Path:
    path = Path(convert.text(text))
    if not path.is_absolute():
        msg = f"{text[:60]!r} is not an absolute path"
        raise ValueError(msg)
    return path


def interfaces(text: str) -> tuple[str, ...]:
    """Read interface names separated by commas; `any` is every interface."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not 1 <= len(name.encode()) <= 15 or "/" in name or any(char.isspace() for char in name):  # noqa: PLR2004  IFNAMSIZ - 1
            msg = f"{name[:40]!r} is not an interface name"
            raise ValueError(msg)
    return () if "any" in names else names


def _mode(text: str) -> FirewallMode:
    try:
        return FirewallMode(text.lower())
    except ValueError:
        msg = f"{text[:40]!r} is none of {', '.join(mode.value for mode in FirewallMode)}"
        raise ValueError(msg) from None


def _backend(text: str) -> FirewallBackend:
    try:
        return FirewallBackend(text.lower())
    except ValueError:
        msg = f"{text[:40]!r} is none of {', '.join(map(str, FirewallBackend))}"
        raise ValueError(msg) from None


def _log_style(text: str) -> LogStyle:
    try:
        return LogStyle(text.lower())
    except ValueError:
        msg = f"{text[:40]!r} is none of {', '.join(map(str, LogStyle))}"
        raise ValueError(msg) from None


def _proxies(text: str) -> Networks:
    proxies = convert.networks(text)
    if proxies.everywhere:
        msg = "ANY would believe everybody about who they are"
        raise ValueError(msg)
    return proxies


def _mail_address(text: str) -> str:
    if _ADDRESS.fullmatch(text) is None:
        msg = f"{text[:60]!r} is not a mail address"
        raise ValueError(msg)
    return text


def _mail_addresses(text: str) -> tuple[str, ...]:
    return tuple(_mail_address(address.strip()) for address in text.split(","))


def _alert_events(text: str) -> tuple[bool, bool]:
    """Read which verdicts are mailed: granted ones, denied ones."""
    try:
        return {"granted": (True, False), "denied": (False, True), "both": (True, True)}[text.lower()]
    except KeyError:
        msg = f"{text[:40]!r} is none of granted, denied, both"
        raise ValueError(msg) from None


def _mail_server(text: str) -> str:
    """Read host, host:port or [address]:port."""
    match = _SERVER.fullmatch(text)
    if match is None:
        msg = f"{text[:60]!r} is not HOST, HOST:PORT or [ADDRESS]:PORT"
        raise ValueError(msg)
    if match[1] is not None:
        convert.port(match[1])
    return text


def _facility(text: str) -> str:
    name = text.removeprefix("LOG_").lower()
    if name not in {"daemon", *(f"local{number}" for number in range(8))}:
        msg = f"{text[:40]!r} is neither LOG_DAEMON nor LOG_LOCAL0 to LOG_LOCAL7"
        raise ValueError(msg)
    return name


SETTINGS: Final[dict[str, Setting[Any]]] = {
    "ACCESS_FILE": Setting("access_file", lambda text: Path(_literal(text))),
    "PCAP_INTF": Setting(
        "interfaces",
        interfaces,
        "several names, separated by commas; default every interface; one that is away is waited for",
    ),
    "PCAP_FILTER": Setting(
        "carriers",
        convert.carriers,
        "terms `udp port N`, `tcp port N`, `portrange`, `dst`, `icmp`, joined by `or`; others are refused",
    ),
    "ENABLE_SPA_PACKET_AGING": Setting("ageing", convert.boolean),
    "MAX_SPA_PACKET_AGE": Setting("max_age", convert.number(1, AGE_MAX)),
    "FWKNOP_RUN_DIR": Setting("run_folder", _path, "default /run/doorward"),
    "FWKNOP_PID_FILE": Setting("pid_file", _path),
    "DIGEST_DB_FILE": Setting("replay_file", _path, "a format of ours; a file of fwknopd's is not taken over"),
    "FIREWALL_MODE": Setting("firewall_mode", _mode),
    "FIREWALL_FILE": Setting("firewall_file", _path),
    "FLUSH_IPT_AT_INIT": Setting("flush_at_start", convert.boolean, "default N: grants survive a restart"),
    "FLUSH_IPT_AT_EXIT": Setting("flush_at_exit", convert.boolean, "default N: grants survive a restart"),
    "FLUSH_FIREWD_AT_INIT": Setting("flush_at_start", convert.boolean, "default N: grants survive a restart"),
    "FLUSH_FIREWD_AT_EXIT": Setting("flush_at_exit", convert.boolean, "default N: grants survive a restart"),
    "AUDIT_FILE": Setting("audit_file", _path),
    "VERBOSE": Setting("verbose", convert.number(0, 9), "every number above 0 is the same"),
    "SYSLOG_IDENTITY": Setting(
        "syslog_identity", _literal, "default doorwardd, and fwknopd where the file is named fwknopd.conf"
    ),
    "SYSLOG_FACILITY": Setting("syslog_facility", _facility),
    "ENABLE_PCAP_PROMISC": Setting("promiscuous", convert.boolean),
    "PCAP_FILE": Setting("pcap_file", _path, "the daemon ends at the end of the file"),
    "ENABLE_UDP_SERVER": Setting("udp_server", convert.boolean),
    "UDPSERV_PORT": Setting("udp_server_port", convert.port),
    "ENABLE_TCP_SERVER": Setting("tcp_server", convert.boolean, "the connection is read, not only accepted"),
    "TCPSERV_PORT": Setting("tcp_server_port", convert.port),
    "ENABLE_SPA_OVER_HTTP": Setting("http", convert.boolean),
    "ALLOW_ANY_USER_AGENT": Setting("http_any_agent", convert.boolean),
    "ENABLE_X_FORWARDED_FOR": Setting(
        "forwarded_for", convert.boolean, "only from TRUSTED_PROXIES, without which it is refused"
    ),
    "TRUSTED_PROXIES": Setting("proxies", _proxies),
    "ENABLE_SPA_OVER_ICMP": Setting("icmp", convert.boolean),
    "FIREWALL_BACKEND": Setting("backend", _backend),
    "FIREWALL_EXE": Setting("firewall_exe", _path, "with `FIREWALL_BACKEND iptables`: which iptables, by its name"),
    "ENABLE_IPT_FORWARDING": Setting(
        "forwarding",
        convert.boolean,
        "a stanza may limit the targets (NAT_TARGETS), OPEN_PORTS hold for the inner port",
    ),
    "ENABLE_FIREWD_FORWARDING": Setting("forwarding", convert.boolean),
    "ENABLE_IPT_LOCAL_NAT": Setting("local_nat", convert.boolean),
    "ENABLE_FIREWD_LOCAL_NAT": Setting("local_nat", convert.boolean),
    "ENABLE_IPT_SNAT": Setting("snat", convert.boolean),
    "ENABLE_FIREWD_SNAT": Setting("snat", convert.boolean),
    "SNAT_TRANSLATE_IP": Setting("snat_source", convert.address),
    "ENABLE_DESTINATION_RULE": Setting("destination_rule", convert.boolean),
    "LOG_STYLE": Setting("log_style", _log_style),
    "ACCESS_FOLDER": Setting("access_folder", _path, "sorted by name; only names that end in .conf"),
    "GPG_HOME_DIR": Setting("gpg_home", _path, "gpg works on a copy of the keyring; gpg.conf in it is not read"),
    "GPG_EXE": Setting("gpg_exe", _path),
    "SUDO_EXE": Setting("sudo_exe", _path),
    "EXEC_DIR": Setting("exec_folder", _path, "where doorward-exec notes what it has to close; root's alone"),
    "CMD_EXEC_TIMEOUT": Setting(
        "command_seconds",
        convert.number(1, COMMAND_SECONDS_MAX),
        "default 10 seconds; fwknopd reads it and does not use it",
    ),
    "ACCESS_ALERTS": Setting("alert_addresses", _mail_addresses),
    "ALERT_FROM": Setting("alert_sender", _mail_address),
    "ALERT_EVENTS": Setting("alert_events", _alert_events),
    "SMTP_SERVER": Setting("alert_smtp_server", _mail_server),
    "SENDMAIL_EXE": Setting("alert_sendmail", _path),
    "ALERTS_PER_HOUR": Setting("alert_per_hour", convert.number(1, 3600)),
    "FWKNOP_CONF_DIR": Setting("conf_folder", _path),
    # a value other than fwknopd's default is a problem
    "ENABLE_NFQ_CAPTURE": Setting("", convert.boolean),
    "ENABLE_DIGEST_PERSISTENCE": Setting("", lambda text: not convert.boolean(text)),
}
REFUSED: Final[dict[str, str]] = {
    "ENABLE_NFQ_CAPTURE": "packets are taken from interfaces (PCAP_INTF) or by a server of ours, never from a queue",
    "ENABLE_DIGEST_PERSISTENCE": "after a restart every packet of the last minutes could be sent again",
}
_NFTABLES: Final = "grants are elements of one table of ours, not rules in chains"
_KERNEL: Final = "the kernel wakes the daemon for each packet"
_QUEUE: Final = "there is no capture from a netfilter queue"
_IPFW: Final = "ipfw is a packet filter of other systems; a command cycle can drive it"
_PF: Final = "pf is a packet filter of other systems; a command cycle can drive it"
_OUTPUT: Final = (
    "what was let in is answered without a rule of ours; a filter that drops replies must let them out itself"
)
_COMMENT: Final = "grants end by the packet filter's own timeouts, no comments are needed"
INERT: Final[dict[str, str]] = {  # names of fwknopd that do nothing here, and why
    "CONFIG_FILE": "it is a file's name for fwknopd's own use: the option -c says it",
    "OVERRIDE_CONFIG": "it is a file's name for fwknopd's own use: the option -O says it",
    "PCAP_DISPATCH_COUNT": _KERNEL,
    "PCAP_LOOP_SLEEP": _KERNEL,
    "UDPSERV_SELECT_TIMEOUT": _KERNEL,
    "ENABLE_PCAP_ANY_DIRECTION": "only what comes in is a knock (fwknopd does not read it from the file either)",
    "EXIT_AT_INTF_DOWN": "an interface that is away is waited for",
    "MAX_SNIFF_BYTES": "a packet is taken whole or not at all",
    "RULES_CHECK_THRESHOLD": "grants end by the packet filter's own timeouts, nothing has to look for them",
    "NFQ_INTERFACE": _QUEUE,
    "NFQ_PORT": _QUEUE,
    "NFQ_TABLE": _QUEUE,
    "NFQ_CHAIN": _QUEUE,
    "NFQ_QUEUE_NUMBER": _QUEUE,
    "NFQ_LOOP_SLEEP": _QUEUE,
    "LOCALE": "logs are in English, times in UTC",
    "ENABLE_RULE_PREPEND": _NFTABLES,
    "ENABLE_NAT_DNS": "names within packets are never looked up: those in NAT_TARGETS are, when the file is read",
    "ENABLE_IPT_OUTPUT": _OUTPUT,
    "ENABLE_FIREWD_OUTPUT": _OUTPUT,
    "ENABLE_IPT_COMMENT_CHECK": _COMMENT,
    "ENABLE_FIREWD_COMMENT_CHECK": _COMMENT,
    **dict.fromkeys(
        (
            f"{kind}_{chain}_ACCESS"
            for kind in ("IPT", "FIREWD")
            for chain in ("INPUT", "OUTPUT", "FORWARD", "DNAT", "SNAT", "MASQUERADE")
        ),
        _NFTABLES,
    ),
    "FLUSH_IPFW_AT_INIT": _IPFW,
    "FLUSH_IPFW_AT_EXIT": _IPFW,
    "IPFW_START_RULE_NUM": _IPFW,
    "IPFW_MAX_RULES": _IPFW,
    "IPFW_ACTIVE_SET_NUM": _IPFW,
    "IPFW_EXPIRE_SET_NUM": _IPFW,
    "IPFW_EXPIRE_PURGE_INTERVAL": _IPFW,
    "IPFW_ADD_CHECK_STATE": _IPFW,
    "PF_ANCHOR_NAME": _PF,
    "PF_EXPIRE_INTERVAL": _PF,
    **dict.fromkeys(
        (
            "ENABLE_EXTERNAL_CMDS",
            "EXTERNAL_CMD_OPEN",
            "EXTERNAL_CMD_CLOSE",
            "EXTERNAL_CMD_ALARM",
            "ENABLE_EXT_CMD_PREFIX",
            "EXT_CMD_PREFIX",
        ),
        "fwknopd 2.6 does not read it either: write CMD_CYCLE_OPEN in access.conf",
    ),
    "FIREWALL_TYPE": "fwknopd 2.6 does not read it either: FIREWALL_BACKEND says what holds the grants",
    "BLACKLIST": "fwknopd 2.6 does not read it either: SOURCE says who may knock",
    "DIGEST_FILE": "packets are remembered in DIGEST_DB_FILE, in a format of ours",
    "AFL_PKT_FILE": "it is for fwknopd's own tests",
    "FAULT_INJECTION_TAG": "it is for fwknopd's own tests",
}
OURS: Final = frozenset(
    {
        "FIREWALL_MODE", "FIREWALL_FILE", "FIREWALL_BACKEND", "AUDIT_FILE", "LOG_STYLE", "TRUSTED_PROXIES",
        "ENABLE_SPA_OVER_ICMP", "ACCESS_ALERTS", "ALERT_FROM", "ALERT_EVENTS", "SMTP_SERVER", "SENDMAIL_EXE",
        "ALERTS_PER_HOUR", "EXEC_DIR",
    }
)  # fmt: skip  # names that fwknopd does not have; a list reads better in lines of many
