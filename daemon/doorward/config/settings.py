"""doorwardd.conf, which is also fwknopd.conf: its lines to settings. Source: fwknop server/config_init.c."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.config import convert, reader
from doorward.config.reader import LINE_MAX, Line, Setting
from doorward.values import (
    MARK,
    NO_PERMISSIONS,
    Carriers,
    FirewallMode,
    ForeignFirewall,
    LogFormat,
    LogStyle,
    Networks,
    Permissions,
    ShareFailure,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from doorward.errors import Problem

CONFIG_FOLDER: Final = Path("/etc/doorward")
STATE_FOLDER: Final = Path("/var/lib/doorward")
EXEC_FOLDER: Final = Path(
    "/var/lib/doorward-exec"
)  # root's alone: the listener could put its own folder in STATE_FOLDER
RUN_FOLDER: Final = Path("/run/doorward")
_MARK_MAX: Final = 1 << 31
_SOCKET_MAX: Final = 107  # bytes of a path: unix(7)
_NUMBER: Final = re.compile(r"0[xX][0-9A-Fa-f]{1,8}|[1-9][0-9]{0,9}", re.ASCII)
AGE_MAX: Final = 100_000  # seconds, fwknopd's RCHK_MAX_SPA_PACKET_AGE
COMMAND_SECONDS_MAX: Final = 3600
KNOCK_PORT: Final = 62201
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,63}(?:@[A-Za-z0-9.-]{1,253})?", re.ASCII)
CARRIERS: Final = Carriers(udp=(range(KNOCK_PORT, KNOCK_PORT + 1),))
NOBODY: Final = Networks(everywhere=False)
HEARING: Final = frozenset(  # fields of settings about how knocks are heard
    {
        *("interfaces", "carriers", "promiscuous", "pcap_file", "icmp"),
        *("udp_server", "udp_server_port", "tcp_server", "tcp_server_port"),
    }
)
FWKNOPD: Final = "fwknopd.conf"  # a file of this name belongs to an installation of fwknop


@dataclass(frozen=True, slots=True)
class Alerts:
    """The verdicts that are mailed, and the addresses. `sender` None is the mailer's default."""

    addresses: tuple[str, ...]
    sender: str | None = None
    granted: bool = True
    denied: bool = True
    sendmail: Path = Path("/usr/sbin/sendmail")
    per_hour: int = 20


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """The settings of doorwardd. `max_age` in seconds, None without ageing; `interfaces` empty means every interface.

    `capture` False means a UDP server instead of passive capture; `udp_server` and `tcp_server` are the servers' ports,
    None without a server; `udp_server_port` and `tcp_server_port` are the written ports. The X-Forwarded-For of
    `proxies` is believed. `command_seconds` is the time limit of a command. `automatic` means that nothing is written
    about how knocks are heard: passive capture may become a UDP server.
    """

    file: Path = field(default=CONFIG_FOLDER / "doorwardd.conf", compare=False)  # for messages
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
    metrics_file: Path | None = None
    replay_share: Path | None = None
    share_failure: ShareFailure = ShareFailure.REFUSE
    permissions: Permissions = NO_PERMISSIONS
    promiscuous: bool = False
    automatic: bool = True
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
    foreign_firewall: ForeignFirewall = ForeignFirewall.REPORT
    mark: int = MARK
    log_style: LogStyle = LogStyle.DOORWARD
    log_format: LogFormat = LogFormat.LINE
    access_folder: Path | None = None
    gpg_home: Path = Path("/root/.gnupg")
    gpg_exe: Path = Path("/usr/bin/gpg")
    sudo_exe: Path = Path("/usr/bin/sudo")
    command_seconds: int = 10
    alerts: Alerts | None = None
    exec_folder: Path = EXEC_FOLDER
    host_key_file: Path = CONFIG_FOLDER / "host.key"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings of a file, the warnings for the log at start, and for each name the line that counts."""

    settings: DaemonSettings
    warnings: tuple[str, ...]
    lines: dict[str, Line] = field(default_factory=dict)


def parse(path: Path, content: bytes, overrides: Sequence[tuple[Path, bytes]] = ()) -> Loaded:
    """The settings in the bytes of a file; `path` names it in problems.

    Lines of `overrides` (path and bytes of further files) override earlier ones.

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
    return Loaded(_settings(path, values), tuple(warnings), where)


def _overridden(lines: list[Line], where: dict[str, Line]) -> Iterator[str]:
    """Yield warnings of names that a file repeats, the last of which counts, as in fwknopd; a file of -O may repeat."""
    for line in lines:
        last = where[line.name]
        if line is not last and line.path == last.path:
            yield line.remark(f"{line.name} is not used: line {last.number} sets it again")


def in_run_folder(chosen: DaemonSettings, folder: Path) -> DaemonSettings:
    """Settings with the run-time files in another folder (option -r)."""
    return replace(
        chosen,
        run_folder=folder,
        pid_file=folder / "doorwardd.pid",
        replay_file=folder / "replay.db",
        exec_folder=folder / "exec",
    )


def _other_backends_last(lines: list[Line], warnings: list[str]) -> list[Line]:
    """The lines without those under firewalld's names that stand there under iptables' names too."""
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
    """Report settings that need another setting."""
    if values.get("forwarded_for") and "proxies" not in values and "TRUSTED_PROXIES" not in where:
        problems.append(
            where["ENABLE_X_FORWARDED_FOR"].problem(
                "ENABLE_X_FORWARDED_FOR needs TRUSTED_PROXIES: which proxies are believed?"
            )
        )
    if "REPLAY_SHARE" in where and values.get("ageing") is False:
        text = "REPLAY_SHARE needs ENABLE_SPA_PACKET_AGING: what is shared has to end"
        problems.append(where["REPLAY_SHARE"].problem(text))
    if "SHARE_FAILURE" in where and "REPLAY_SHARE" not in where:
        problems.append(where["SHARE_FAILURE"].problem("SHARE_FAILURE without REPLAY_SHARE: nothing is shared"))
    if "ACCESS_ALERTS" not in where:
        about_mail = ("ALERT_FROM", "ALERT_EVENTS", "SENDMAIL_EXE", "ALERTS_PER_HOUR")
        problems.extend(
            where[name].problem(f"{name} without ACCESS_ALERTS: nobody gets the mail")
            for name in about_mail
            if name in where
        )


def _settings(path: Path, values: dict[str, Any]) -> DaemonSettings:
    """The settings; defaults that depend on other settings are set here."""
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
    values["automatic"] = HEARING.isdisjoint(values)
    for server in ("udp_server", "tcp_server"):
        values[server] = values.get(f"{server}_port", KNOCK_PORT) if values.get(server) else None
    # fwknopd has either; here a written filter is captured beside the server
    values["capture"] = values["udp_server"] is None or "carriers" in values
    values["alerts"] = _alerts(values)
    permitted = {name: values.pop(name) for name in Permissions.__slots__ if name in values}
    values["permissions"] = Permissions(**permitted)
    if values.pop("on_iptables", False) or path.name == FWKNOPD:
        values.setdefault("foreign_firewall", ForeignFirewall.ADMIT)
    if path.name == FWKNOPD:
        values.setdefault("log_style", LogStyle.BOTH)
        values.setdefault("syslog_identity", "fwknopd")
    return replace(DaemonSettings(), file=path, **values)


def _alerts(values: dict[str, Any]) -> Alerts | None:
    """The settings of mail, taken out of the values; None without an address."""
    about = {name: values.pop("alert_" + name) for name in Alerts.__slots__ if "alert_" + name in values}
    granted, denied = values.pop("alert_events", (True, True))
    return Alerts(**about, granted=granted, denied=denied) if "addresses" in about else None


def _expanded(lines: list[Line], problems: list[Problem]) -> Iterator[Line]:
    """Yield the lines with a leading `$NAME` replaced from the lines above, as fwknopd does."""
    known: dict[str, str] = {}
    for line in lines:
        name, slash, rest = line.value.removeprefix("$").partition("/")
        refers = line.value.startswith("$") and name in known
        value = known[name] + slash + rest if refers else line.value
        if len(value) > LINE_MAX:  # a name that contains itself would grow with every line
            problems.append(line.problem(f"{line.name}: {len(value)} characters are more than {LINE_MAX}"))
            continue
        known[line.name] = value
        yield replace(line, value=value)


def _is_inert(line: Line, warnings: list[str]) -> bool:
    """Whether a name of fwknopd has no effect here; a warning then names it."""
    if line.name in INERT:
        warnings.append(line.remark(f"{line.name} has no effect: {INERT[line.name]}"))
    return line.name in INERT


def _literal(text: str) -> str:
    """Read a text; refuse a variable that no line above sets."""
    if text.startswith("$"):
        msg = f"{text[:60]!r} begins with a variable that no line above sets"
        raise ValueError(msg)
    return convert.text(text)


def interfaces(text: str) -> tuple[str, ...]:
    """Read interface names separated by commas; `any` is every interface."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not 1 <= len(name.encode()) <= 15 or "/" in name or any(char.isspace() for char in name):  # noqa: PLR2004  IFNAMSIZ - 1
            msg = f"{name[:40]!r} is not an interface name"
            raise ValueError(msg)
    return () if "any" in names else names


# Whether the host lives on iptables says how other firewalls are treated.
_on_iptables = convert.one_of({"nftables": False, "iptables": True}, "is neither nftables nor iptables")


def _mark(text: str) -> int:
    """Read one bit of a packet's mark: 0x40000000, or decimal."""
    mark = int(text, 0) if _NUMBER.fullmatch(text) else 0
    if mark.bit_count() != 1 or mark > _MARK_MAX:
        msg = f"{text[:40]!r} is not one bit of a mark, such as 0x40000000"
        raise ValueError(msg)
    return mark


def _proxies(text: str) -> Networks:
    proxies = convert.networks(text)
    if proxies.everywhere:
        msg = "ANY would believe every client's X-Forwarded-For"
        raise ValueError(msg)
    return proxies


def _metrics_file(text: str) -> Path:
    path = convert.path(text)
    if path.suffix != ".prom" or ".." in path.parts:
        msg = f"{text[:60]!r} is not a path without .. to NAME.prom: node_exporter reads no other"
        raise ValueError(msg)
    return path


def _share(text: str) -> Path:
    scheme, _, name = text.partition(":")
    path = Path(name)
    if scheme != "unix" or not path.is_absolute() or len(name.encode()) > _SOCKET_MAX:
        msg = f"{text[:60]!r} is not unix:/PATH of a socket, such as unix:/run/valkey/valkey.sock"
        raise ValueError(msg)
    return path


_mail_address = convert.matching(_ADDRESS, "is not a mail address", 60)


def _mail_addresses(text: str) -> tuple[str, ...]:
    return tuple(_mail_address(address.strip()) for address in text.split(","))


_alert_events = convert.one_of(  # whether granted verdicts are mailed, whether denied ones
    {"granted": (True, False), "denied": (False, True), "both": (True, True)}, "is none of granted, denied, both"
)


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
        "several names, separated by commas; default every interface; waits for a missing one",
    ),
    "PCAP_FILTER": Setting(
        "carriers",
        convert.carriers,
        "terms `udp`, `port N`, `udp port N`, `tcp port N`, `portrange`, `dst`, `icmp`, joined by `or`; "
        "others are refused",
    ),
    "ENABLE_SPA_PACKET_AGING": Setting("ageing", convert.boolean),
    "MAX_SPA_PACKET_AGE": Setting("max_age", convert.number(1, AGE_MAX)),
    "FWKNOP_RUN_DIR": Setting("run_folder", convert.path, "default /run/doorward"),
    "FWKNOP_PID_FILE": Setting("pid_file", convert.path),
    "DIGEST_DB_FILE": Setting("replay_file", convert.path, "doorward's own format; a file of fwknopd is not read"),
    "HOST_KEY_FILE": Setting(
        "host_key_file", convert.path, "default /etc/doorward/host.key; read where a stanza names a CLIENT"
    ),
    "FIREWALL_MODE": Setting("firewall_mode", convert.member(FirewallMode)),
    "FIREWALL_FILE": Setting("firewall_file", convert.path),
    "FLUSH_IPT_AT_INIT": Setting("flush_at_start", convert.boolean, "default N: grants survive a restart"),
    "FLUSH_IPT_AT_EXIT": Setting("flush_at_exit", convert.boolean, "default N: grants survive a restart"),
    "FLUSH_FIREWD_AT_INIT": Setting("flush_at_start", convert.boolean, "default N: grants survive a restart"),
    "FLUSH_FIREWD_AT_EXIT": Setting("flush_at_exit", convert.boolean, "default N: grants survive a restart"),
    "AUDIT_FILE": Setting("audit_file", convert.path),
    "METRICS_FILE": Setting("metrics_file", _metrics_file),
    "REPLAY_SHARE": Setting(
        "replay_share", _share, "`unix:/PATH` of a Valkey or Redis that another gateway shares (two-gateways.md)"
    ),
    "SHARE_FAILURE": Setting(
        "share_failure", convert.member(ShareFailure), "`refuse` or `local`: knocks while REPLAY_SHARE cannot be asked"
    ),
    "VERBOSE": Setting("verbose", convert.number(0, 9), "every number above 0 is the same"),
    "SYSLOG_IDENTITY": Setting(
        "syslog_identity", _literal, "default doorwardd, and fwknopd where the file is named fwknopd.conf"
    ),
    "SYSLOG_FACILITY": Setting("syslog_facility", _facility),
    "ENABLE_PCAP_PROMISC": Setting("promiscuous", convert.boolean),
    "PCAP_FILE": Setting("pcap_file", convert.path, "the daemon ends at the end of the file"),
    "ENABLE_UDP_SERVER": Setting(
        "udp_server", convert.boolean, "not written, it is automatic where no stanza has keys of fwknop's format"
    ),
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
    "FIREWALL_BACKEND": Setting("on_iptables", _on_iptables),
    "FIREWALL_MARK": Setting("mark", _mark),
    "FOREIGN_FIREWALL": Setting("foreign_firewall", convert.member(ForeignFirewall)),
    "ENABLE_IPT_FORWARDING": Setting(
        "forwarding",
        convert.boolean,
        "a stanza may limit the targets (NAT_TARGETS); OPEN_PORTS apply to the inner port",
    ),
    "ENABLE_FIREWD_FORWARDING": Setting("forwarding", convert.boolean),
    "ENABLE_IPT_LOCAL_NAT": Setting("local_nat", convert.boolean),
    "ENABLE_FIREWD_LOCAL_NAT": Setting("local_nat", convert.boolean),
    "ENABLE_IPT_SNAT": Setting("snat", convert.boolean),
    "ENABLE_FIREWD_SNAT": Setting("snat", convert.boolean),
    "SNAT_TRANSLATE_IP": Setting("snat_source", convert.address),
    "ENABLE_DESTINATION_RULE": Setting("destination_rule", convert.boolean),
    "LOG_STYLE": Setting("log_style", convert.member(LogStyle)),
    "LOG_FORMAT": Setting("log_format", convert.member(LogFormat)),
    "ACCESS_FOLDER": Setting("access_folder", convert.path, "sorted by name; only names that end in .conf"),
    "GPG_HOME_DIR": Setting("gpg_home", convert.path, "gpg works on a copy of the keyring; gpg.conf in it is not read"),
    "GPG_EXE": Setting("gpg_exe", convert.path),
    "SUDO_EXE": Setting("sudo_exe", convert.path),
    "EXEC_DIR": Setting("exec_folder", convert.path, "folder of doorward-exec's journal; root alone may write it"),
    "CMD_EXEC_TIMEOUT": Setting(
        "command_seconds",
        convert.number(1, COMMAND_SECONDS_MAX),
        "default 10 seconds; fwknopd reads it and does not use it",
    ),
    "ACCESS_ALERTS": Setting("alert_addresses", _mail_addresses),
    "ALERT_FROM": Setting("alert_sender", _mail_address),
    "ALERT_EVENTS": Setting("alert_events", _alert_events),
    "SENDMAIL_EXE": Setting("alert_sendmail", convert.path),
    "ALERTS_PER_HOUR": Setting("alert_per_hour", convert.number(1, 3600)),
    "FWKNOP_CONF_DIR": Setting("conf_folder", convert.path),
    # a value other than fwknopd's default is a problem
    "ENABLE_NFQ_CAPTURE": Setting("", convert.boolean),
    "ENABLE_DIGEST_PERSISTENCE": Setting("", lambda text: not convert.boolean(text)),
}
REFUSED: Final[dict[str, str]] = {
    "ENABLE_NFQ_CAPTURE": "packets come from interfaces (PCAP_INTF) or servers, never from a queue",
    "ENABLE_DIGEST_PERSISTENCE": "after a restart every packet of the last minutes could be sent again",
}
_NFTABLES: Final = "grants are elements of doorward's own table, not rules in chains"
_KERNEL: Final = "the kernel wakes the daemon for each packet"
_QUEUE: Final = "there is no capture from a netfilter queue"
_IPFW: Final = "ipfw is a packet filter of other systems; a command cycle can drive it"
_PF: Final = "pf is a packet filter of other systems; a command cycle can drive it"
_OUTPUT: Final = "replies need no rule of doorward; a filter that drops replies must let them out itself"
_COMMENT: Final = "grants end by the packet filter's own timeouts, no comments are needed"
INERT: Final[dict[str, str]] = {  # names of fwknopd without effect here, with the reason
    "CONFIG_FILE": "fwknopd's internal name of a file: use the option -c",
    "OVERRIDE_CONFIG": "fwknopd's internal name of a file: use the option -O",
    "PCAP_DISPATCH_COUNT": _KERNEL,
    "PCAP_LOOP_SLEEP": _KERNEL,
    "UDPSERV_SELECT_TIMEOUT": _KERNEL,
    "ENABLE_PCAP_ANY_DIRECTION": "only incoming packets are knocks (fwknopd does not read it from the file either)",
    "EXIT_AT_INTF_DOWN": "doorwardd waits for a missing interface",
    "MAX_SNIFF_BYTES": "packets are always read whole",
    "RULES_CHECK_THRESHOLD": "grants end by the packet filter's own timeouts",
    "NFQ_INTERFACE": _QUEUE,
    "NFQ_PORT": _QUEUE,
    "NFQ_TABLE": _QUEUE,
    "NFQ_CHAIN": _QUEUE,
    "NFQ_QUEUE_NUMBER": _QUEUE,
    "NFQ_LOOP_SLEEP": _QUEUE,
    "SMTP_SERVER": "mail goes through SENDMAIL_EXE (default /usr/sbin/sendmail): install a relay there"
    " (Debian: msmtp-mta, nullmailer), and set this server in its own settings",
    "LOCALE": "logs are in English, times in UTC",
    "ENABLE_RULE_PREPEND": _NFTABLES,
    "ENABLE_NAT_DNS": "names in packets are never looked up; names in NAT_TARGETS are, when the file is read",
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
    "FIREWALL_TYPE": "fwknopd 2.6 does not read it either: nftables holds the grants",
    "FIREWALL_EXE": "nftables holds the grants, and needs no program",
    "BLACKLIST": "fwknopd 2.6 does not read it either: SOURCE says who may knock",
    "DIGEST_FILE": "packets are remembered in DIGEST_DB_FILE, in doorward's own format",
    "AFL_PKT_FILE": "it is for fwknopd's own tests",
    "FAULT_INJECTION_TAG": "it is for fwknopd's own tests",
}
