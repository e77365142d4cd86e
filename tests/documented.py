"""The tables of docs/configuration.md, generated from the tables of the code by `make docs`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from doorward.client import fwknoprc
from doorward.client.options import KNOCK
from doorward.config import access
from doorward.config import settings as config_settings
from doorward.processes import options
from markdown import formatted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from doorward.config.reader import Setting

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN: Final = "<!-- made by `make docs` from here on -->\n"
WORKS, OURS, OLD = "works", "works; doorward's own", "works; of fwknop 1.9"
DIFFERS, INERT, REFUSED = "works differently: ", "no effect, warns: ", "refused: "
# Names that fwknop does not have, and names of fwknop 1.9.
ACCESS_OURS: Final = frozenset(
    {
        "SEQUENCE", "SEQUENCE_FILE", "SEQUENCE_TIMEOUT", "SEQUENCE_FLAGS", "MAGIC",
        "CLIENT", "PSK_BASE64", "ONE_TIME_CODE", "COMMANDS", "MAX_PREFIX4", "MAX_PREFIX6", "NAME", "NAT_TARGETS",
        "CMD_EXEC_SHELL", "SESSION_MAX", "KEEP_WHILE_USED",
    }
)  # fmt: skip  # a list reads better in lines of many
ACCESS_OLD: Final = frozenset({"PERMIT_CLIENT_PORTS", "ENABLE_FORWARD_ACCESS", "DATA_COLLECT_MODE", "REQUIRE_OS"})
DAEMON_OURS: Final = frozenset(
    {
        "FIREWALL_MODE", "FIREWALL_FILE", "FIREWALL_BACKEND", "FIREWALL_MARK", "FOREIGN_FIREWALL", "AUDIT_FILE",
        "LOG_STYLE", "TRUSTED_PROXIES", "ENABLE_SPA_OVER_ICMP", "ACCESS_ALERTS", "ALERT_FROM", "ALERT_EVENTS",
        "SENDMAIL_EXE", "ALERTS_PER_HOUR", "EXEC_DIR", "HOST_KEY_FILE", "METRICS_FILE", "LOG_FORMAT",
        "REPLAY_SHARE", "SHARE_FAILURE",
    }
)  # fmt: skip  # a list reads better in lines of many
OPTIONS_OURS: Final = frozenset({"--explain-config", "--report"})
CLIENT_OURS: Final = frozenset(
    {
        "CLIENT_KEY_FILE",
        "HMAC_KEY_COMMAND",
        "HOST_KEY",
        "HTTP_PROXY",
        "ICMP_CODE",
        "ICMP_TYPE",
        "KEY_COMMAND",
        "ONE_TIME_CODE",
        "PREFIX",
        "PSK_BASE64",
        "RESOLVE_DNS",
        "SEQUENCE",
    }
)
CLIENT_OPTIONS_OURS: Final = frozenset(
    {
        "--server-resolve-ipv6",
        "--resolve-dns",
        "--ask-key",
        "--ask-hmac-key",
        "--jump",
        "--ssh",
        "--host-key",
        "--client-key",
        "--otp",
        "--prefix",
        "--sequence",
    }
)

CLIENT_DIFFERS: Final = {
    "ALLOW_IP": "auto, packet and IPv6 too",
    "GPG_EXE": "refused in a file that others can write",
    "HMAC_KEY_FILE": "the HMAC's key; fwknop fills the encryption key from it",
    **dict.fromkeys(("KEY", "KEY_BASE64"), "more than 32 bytes are refused: no server takes them"),
    **dict.fromkeys(("NAT_ACCESS", "SPA_SERVER", "SPOOF_SOURCE_IP"), "IPv6 too"),
    "RESOLVE_URL": "several, separated by commas; asked without wget",
    "SPOOF_USER": "more than 48 bytes are refused: no server takes them",
    "TIME_OFFSET": "an unknown unit is refused",
    "WGET_CMD": "gets -4 or -6; refused in a file that others can write",
}

DIRECTIVES: Final = {
    "%include": "relative to the including file; a loop is refused",
    "%include_folder": "sorted by name; only names that end in .conf",
    "%include_keys": "only KEY*, HMAC_KEY* and GPG_*: anything else, and a file that cannot be used, is refused",
}
OPTIONS_DIFFER: Final = {
    "--interface": "several names, separated by commas; default every interface",
    "--digest-file": "doorward's own format; a file of fwknopd is not read",
    "--pcap-file": "the daemon ends at the end of the file",
    "--pcap-filter": "terms `udp`, `port N`, `udp port N`, `tcp port N`, `portrange`, `dst`, `icmp`, joined by `or`",
    "--verbose": "more than once changes nothing",
    "--fw-list-all": "the whole table of doorward, no other tables",
    "--test": "command cycles do not run either, and packets are remembered",
    "--dump-serv-err-codes": "fwknopd's codes, then the reasons of our verdicts",
    "--rotate-digest-cache": "knocks are refused for as long as one of the old packets would be accepted",
    "--udp-server": "the port is UDPSERV_PORT, as in the file",
}


def document(before: str) -> str:
    """The document with its tables generated again behind the mark."""
    prose, mark, _ = before.partition(BEGIN)
    if not mark:
        msg = f"{DOCUMENT} has no line {BEGIN!r}"
        raise ValueError(msg)
    return formatted(prose + BEGIN + "\n" + "\n".join(_tables()))


def _tables() -> Iterator[str]:
    yield from _table("Every name of access.conf", "name", access_states())
    yield from _table("Every name of doorwardd.conf and fwknopd.conf", "name", daemon_states())
    yield from _table("Every option of doorwardd", "option", _daemon_options())
    yield from _table("Every name of ~/.fwknoprc", "name", _client())
    yield from _table("Every option of the client", "option", _client_options())


def _table(title: str, what: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"| {what} | state |\n|---|---|"
    yield "".join(f"| {name} | {_cell(state)} |\n" for name, state in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _settings(settings: Mapping[str, Setting[Any]], ours: frozenset[str], old: frozenset[str]) -> dict[str, str]:
    """The state of each name."""
    states = {}
    for name, setting in settings.items():
        state = OURS if name in ours else OLD if name in old else WORKS
        if setting.differs:
            state = f"{state}: {setting.differs}" if state != WORKS else DIFFERS + setting.differs
        states[name] = state
    return states


def access_states() -> Iterator[tuple[str, str]]:
    states = _settings(access.SETTINGS, ACCESS_OURS, ACCESS_OLD)
    states |= {name: DIFFERS + text for name, text in DIRECTIVES.items()}
    states |= {name: f"{REFUSED}{text} (of fwknop 1.9)" for name, text in access.REFUSED.items()}
    yield from ((f"`{name}`", state) for name, state in states.items())


def daemon_states() -> Iterator[tuple[str, str]]:
    states = _settings(config_settings.SETTINGS, DAEMON_OURS, frozenset())
    states["ENABLE_NFQ_CAPTURE"] = "N works, Y " + REFUSED + config_settings.REFUSED["ENABLE_NFQ_CAPTURE"]
    states["ENABLE_DIGEST_PERSISTENCE"] = "Y works, N " + REFUSED + config_settings.REFUSED["ENABLE_DIGEST_PERSISTENCE"]
    states |= {name: INERT + text for name, text in config_settings.INERT.items()}
    yield from ((f"`{name}`", state) for name, state in states.items())


def _daemon_options() -> Iterator[tuple[str, str]]:
    for action in options.parser()._actions:  # noqa: SLF001  argparse has no other list of them
        if action.help == argparse.SUPPRESS:
            continue
        name = action.option_strings[-1]
        state = WORKS
        if name in OPTIONS_OURS:
            state = OURS
        elif name in options.INERT:
            state = INERT + options.INERT[name]
        elif name in options.REFUSED:
            state = REFUSED + options.REFUSED[name]
        elif name in OPTIONS_DIFFER:
            state = DIFFERS + OPTIONS_DIFFER[name]
        yield ", ".join(f"`{one}`" for one in action.option_strings), state
    yield (
        "`-A`, `--afl-fuzzing`, `--afl-pkt-file`, `--fault-injection-tag`",
        REFUSED + "they are for fwknopd's own tests",
    )


def _client() -> Iterator[tuple[str, str]]:
    states = _settings(fwknoprc.SETTINGS, CLIENT_OURS, frozenset())
    states |= {name: DIFFERS + text for name, text in CLIENT_DIFFERS.items()}
    yield from ((f"`{name}`", state) for name, state in states.items())


def _client_options() -> Iterator[tuple[str, str]]:
    for option in (row for row in KNOCK.rows if row.spelling):
        names = ", ".join(f"`{one}`" for one in option.names)
        old = f"; 1.9's {', '.join(f'`{one}`' for one in option.old_names)}" if option.old_names else ""
        yield names, (OURS if option.name in CLIENT_OPTIONS_OURS else WORKS) + old + f": {option.help}"


def main() -> int:
    """Write the document; with an argument only say whether it is up to date."""
    before = DOCUMENT.read_text("utf-8")
    after = document(before)
    if len(sys.argv) > 1:
        return int(before != after)
    DOCUMENT.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
