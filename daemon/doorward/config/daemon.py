"""doorwardd.conf, which is also fwknopd.conf: its lines to settings. Source: fwknop server/config_init.c."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.config import convert, reader
from doorward.config.reader import LINE_MAX, Line, Setting
from doorward.values import FirewallMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.errors import Problem

CONFIG_FOLDER: Final = Path("/etc/doorward")
STATE_FOLDER: Final = Path("/var/lib/doorward")
RUN_FOLDER: Final = Path("/run/doorward")
AGE_MAX: Final = 100_000  # seconds, fwknopd's RCHK_MAX_SPA_PACKET_AGE


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """How doorwardd runs. `max_age` in seconds, None where ageing is off; `interfaces` empty means every one."""

    access_file: Path = CONFIG_FOLDER / "access.conf"
    interfaces: tuple[str, ...] = ()
    ports: range = range(62201, 62202)
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


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings of a file, and what the log at start should say of it."""

    settings: DaemonSettings
    warnings: tuple[str, ...]


def load(path: Path) -> Loaded:
    """Return the settings of a file.

    Raises:
        ConfigError: every problem of the file.
    """
    return parse(path, reader.content(path, secret=False))


def parse(path: Path, content: bytes) -> Loaded:
    """Return the settings in the bytes of a file; `path` names it in problems.

    Raises:
        ConfigError: every problem of the file.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    expanded = _expanded(reader.lines(path, content, problems), problems)
    lines = [line for line in expanded if not _is_inert(line, problems, warnings)]
    values: dict[str, Any] = {}
    for line, field, value in reader.convert(lines, SETTINGS, problems):
        if field:
            values[field] = value
        elif value:
            problems.append(line.problem(f"{line.name} {line.value} is not served by this version"))
    if problems:
        raise reader.failure(problems)
    return Loaded(_settings(path, values), tuple(warnings))


def _settings(path: Path, values: dict[str, Any]) -> DaemonSettings:
    """Return the settings; what hangs on other settings is worked out here, once all of them are known."""
    if not values.pop("ageing", True):
        values["max_age"] = None
    access = values.pop("access_file", None)
    if access is not None:  # fwknopd.conf may name it without a folder
        values["access_file"] = path.parent / access
    run_folder = values.get("run_folder")
    if run_folder is not None:
        values.setdefault("pid_file", run_folder / "doorwardd.pid")
        values.setdefault("replay_file", run_folder / "replay.db")
    return replace(DaemonSettings(), **values)


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


def _is_inert(line: Line, problems: list[Problem], warnings: list[str]) -> bool:
    """Say whether a name of fwknopd has nothing to do here; it is then named in a warning, never passed over."""
    if line.name in INERT:
        warnings.append(f"{line.path}:{line.number}: {line.name} has no meaning for doorwardd and is not used")
    elif line.name in UNSERVED:
        problems.append(line.problem(f"{line.name} is not served by this version"))
    return line.name in INERT or line.name in UNSERVED


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


def _facility(text: str) -> str:
    name = text.removeprefix("LOG_").lower()
    if name not in {"daemon", *(f"local{number}" for number in range(8))}:
        msg = f"{text[:40]!r} is neither LOG_DAEMON nor LOG_LOCAL0 to LOG_LOCAL7"
        raise ValueError(msg)
    return name


SETTINGS: Final[dict[str, Setting[Any]]] = {
    "ACCESS_FILE": Setting("access_file", lambda text: Path(_literal(text))),
    "PCAP_INTF": Setting("interfaces", interfaces),
    "PCAP_FILTER": Setting("ports", convert.capture_ports),
    "ENABLE_SPA_PACKET_AGING": Setting("ageing", convert.boolean),
    "MAX_SPA_PACKET_AGE": Setting("max_age", convert.number(1, AGE_MAX)),
    "FWKNOP_RUN_DIR": Setting("run_folder", _path),
    "FWKNOP_PID_FILE": Setting("pid_file", _path),
    "DIGEST_DB_FILE": Setting("replay_file", _path),
    "FIREWALL_MODE": Setting("firewall_mode", _mode),
    "FIREWALL_FILE": Setting("firewall_file", _path),
    "FLUSH_IPT_AT_INIT": Setting("flush_at_start", convert.boolean),
    "FLUSH_IPT_AT_EXIT": Setting("flush_at_exit", convert.boolean),
    "AUDIT_FILE": Setting("audit_file", _path),
    "VERBOSE": Setting("verbose", convert.number(0, 9)),
    "SYSLOG_IDENTITY": Setting("syslog_identity", _literal),
    "SYSLOG_FACILITY": Setting("syslog_facility", _facility),
    # what is off by default in fwknopd and not served here: N passes, Y is a problem
    "ENABLE_PCAP_PROMISC": Setting("", convert.boolean),
    "ENABLE_UDP_SERVER": Setting("", convert.boolean),
    "ENABLE_TCP_SERVER": Setting("", convert.boolean),
    "ENABLE_NFQ_CAPTURE": Setting("", convert.boolean),
    "ENABLE_SPA_OVER_HTTP": Setting("", convert.boolean),
    "ENABLE_X_FORWARDED_FOR": Setting("", convert.boolean),
    "ENABLE_IPT_FORWARDING": Setting("", convert.boolean),
    "ENABLE_IPT_SNAT": Setting("", convert.boolean),
    "ENABLE_IPT_OUTPUT": Setting("", convert.boolean),
    "ENABLE_DESTINATION_RULE": Setting("", convert.boolean),
    "ENABLE_DIGEST_PERSISTENCE": Setting("", lambda text: not convert.boolean(text)),  # N would forget replays
}
UNSERVED: Final = frozenset({"PCAP_FILE", "ACCESS_FOLDER", "SNAT_TRANSLATE_IP"})
INERT: Final = frozenset(
    {
        "PCAP_DISPATCH_COUNT", "PCAP_LOOP_SLEEP", "ENABLE_PCAP_ANY_DIRECTION", "EXIT_AT_INTF_DOWN", "MAX_SNIFF_BYTES",
        "RULES_CHECK_THRESHOLD", "CMD_EXEC_TIMEOUT", "ALLOW_ANY_USER_AGENT", "TCPSERV_PORT", "UDPSERV_PORT",
        "UDPSERV_SELECT_TIMEOUT", "NFQ_INTERFACE", "NFQ_PORT", "NFQ_TABLE", "NFQ_CHAIN", "NFQ_QUEUE_NUMBER",
        "NFQ_LOOP_SLEEP", "LOCALE", "ENABLE_RULE_PREPEND", "ENABLE_NAT_DNS", "FIREWALL_EXE", "ENABLE_IPT_LOCAL_NAT",
        "ENABLE_IPT_COMMENT_CHECK", "IPT_INPUT_ACCESS", "IPT_OUTPUT_ACCESS", "IPT_FORWARD_ACCESS", "IPT_DNAT_ACCESS",
        "IPT_SNAT_ACCESS", "IPT_MASQUERADE_ACCESS", "FLUSH_FIREWD_AT_INIT", "FLUSH_FIREWD_AT_EXIT",
        "ENABLE_FIREWD_FORWARDING", "ENABLE_FIREWD_LOCAL_NAT", "ENABLE_FIREWD_SNAT", "ENABLE_FIREWD_OUTPUT",
        "FIREWD_INPUT_ACCESS", "FIREWD_OUTPUT_ACCESS", "FIREWD_FORWARD_ACCESS", "FIREWD_DNAT_ACCESS",
        "FIREWD_SNAT_ACCESS", "FIREWD_MASQUERADE_ACCESS", "ENABLE_FIREWD_COMMENT_CHECK", "FLUSH_IPFW_AT_INIT",
        "FLUSH_IPFW_AT_EXIT", "IPFW_START_RULE_NUM", "IPFW_MAX_RULES", "IPFW_ACTIVE_SET_NUM", "IPFW_EXPIRE_SET_NUM",
        "IPFW_EXPIRE_PURGE_INTERVAL", "IPFW_ADD_CHECK_STATE", "PF_ANCHOR_NAME", "PF_EXPIRE_INTERVAL",
        "FWKNOP_CONF_DIR", "DIGEST_FILE", "GPG_HOME_DIR", "GPG_EXE", "SUDO_EXE", "FAULT_INJECTION_TAG",
    }
)  # fmt: skip  # a list of names reads better in lines of many
