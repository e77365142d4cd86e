"""The options of doorwardd, which are fwknopd's. Source: fwknop server/cmd_opts.h."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import doorward
from doorward.config import convert
from doorward.config.settings import CONFIG_FOLDER
from doorward.crypto.keys import KEY_BYTES
from doorward.values import HMAC_KEY_MAX, KEY_MAX

DEFAULT: Final = CONFIG_FOLDER / "doorwardd.conf"
INERT: Final = {  # options without effect here, with the reason
    "--pcap-any-direction": "only incoming packets are knocks",
    "--locale": "logs are in English, times in UTC",
    "--no-ipt-check-support": "the kernel says what the packet filter can do",
    "--no-firewd-check-support": "firewalld is not asked",
}
REFUSED: Final = {"--nfq-capture": "packets come from interfaces (-i) or a server (-U), not from a queue"}
_DESCRIPTION: Final = "Open the firewall for authentic knocks (Single Packet Authorization)."
_CHECK: Final = """\
Read all files as doorwardd would at its start, and change nothing. Every problem is printed as path:line: problem, and
the exit code is 1; without problems it is 0. -a alone reads only that file; --explain-config prints every stanza in
words. The options are those of doorwardd: check with the options that it is started with.

--report also looks at this host: a line each for the daemon, the table, other firewalls, sshd's port, the clock and the
keys. `ok` holds, `no` does not (exit code 1), `?` cannot be known here. Keys are shown as fingerprints, which
`doorward doctor` shows at the client: keep them among those who may read the keys.
"""
_EPILOG: Final = """\
commands:
  doorwardd check [-c FILE] [-a FILE]   read all files; print every problem as path:line: problem
  doorwardd check --explain-config      and print every stanza in words, keys masked
  doorwardd check --report              and what knocks need of this host, with fingerprints of the keys
  doorwardd explain --origin ADDRESS    print the verdict on the packet on standard input, without effect
  doorwardd import-knockd [FILE]        print stanzas that do what a knockd.conf says

Without -f the daemon goes to the background and logs to syslog. Signals: HUP reads the files again and keeps
live grants; TERM and INT end it. Grants end by themselves, also when the daemon is gone.
"""


def parser(*, check: bool = False) -> argparse.ArgumentParser:
    """The parser of doorwardd's command line, or with `check` of `doorwardd check`."""
    made = argparse.ArgumentParser(
        prog="doorwardd check" if check else "doorwardd",
        usage="doorwardd check [-c FILE] [-O FILE[,FILE...]] [-a FILE] [--explain-config|--report]" if check else None,
        description=_CHECK if check else _DESCRIPTION,
        epilog=None if check else _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_files(made.add_argument_group("files"))
    _add_capture(made.add_argument_group("where knocks come from"))
    _add_running(made.add_argument_group("how it runs"))
    _add_modes(made)
    _add_keys(made.add_argument_group("new keys"))
    _add_without_effect(made.add_argument_group("of fwknopd, without effect"))
    made.add_argument("-V", "--version", action="version", version=f"doorwardd {doorward.__version__}")
    return made


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-c", "--config-file", type=absolute, metavar="FILE", help=f"settings of the daemon (default {DEFAULT})")
    add(
        "-O",
        "--override-config",
        type=_files,
        default=(),
        metavar="FILE[,FILE...]",
        help="further settings, which override the first file",
    )
    add("-a", "--access-file", type=absolute, metavar="FILE", help="stanzas of clients (default: ACCESS_FILE)")
    add("--access-folder", type=absolute, metavar="DIR", help="stanzas: every *.conf in this folder (ACCESS_FOLDER)")
    add("-r", "--run-dir", type=absolute, metavar="DIR", help="folder of the PID file and the replay store")
    add("-p", "--pid-file", type=absolute, metavar="FILE", help="PID file")
    add("-d", "--digest-file", type=absolute, metavar="FILE", help="replay store")
    add("--gpg-home-dir", type=absolute, metavar="DIR", help="keyring of stanzas that name none (GPG_HOME_DIR)")
    add("--gpg-exe", type=absolute, metavar="FILE", help="gpg (GPG_EXE)")
    add("--sudo-exe", type=absolute, metavar="FILE", help="sudo (SUDO_EXE)")


def _add_capture(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-i", "--interface", metavar="NAME", help="listen on this interface only (default: on every one)")
    add("-P", "--pcap-filter", metavar="FILTER", help="packets to listen for, such as 'udp port 62201'")
    add("-U", "--udp-server", action="store_true", help="bind UDPSERV_PORT instead of capturing packets")
    add("--pcap-file", type=absolute, metavar="FILE", help="read packets from this file, of any age, and end")
    add("-C", "--packet-limit", type=_count, default=0, metavar="N", help="end after N packets")


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-f", "--foreground", action="store_true", help="stay in the foreground and log to standard error")
    add("--syslog-enable", action="store_true", help="log to syslog in the foreground too")
    add("-t", "--test", action="store_true", help="decide and log, but open nothing")
    add("-v", "--verbose", action="count", default=0, help="log more")
    add("--helper", action="store_true", help=argparse.SUPPRESS)  # for doorward-helper.service
    add("--exec", action="store_true", help=argparse.SUPPRESS)  # for doorward-exec.service
    add("--listener", action="store_true", help=argparse.SUPPRESS)  # for doorwardd.service


def _add_modes(made: argparse.ArgumentParser) -> None:
    """Add the options that do something else than run; fwknopd too refuses two of the first ones, and no others."""
    add = made.add_mutually_exclusive_group().add_argument
    add("-D", "--dump-config", action="store_true", help="print all settings and stanzas, keys masked")
    add("--explain-config", action="store_true", help="print every stanza in words, keys masked")
    add("-K", "--kill", action="store_true", help="end the running daemon")
    add("-R", "--restart", action="store_true", help="make the running daemon read its files again")
    add("-S", "--status", action="store_true", help="print the PID of the running daemon")
    add = made.add_argument
    add("--report", action="store_true", help="with check: also firewall, sshd, clock and fingerprints of keys")
    add("--exit-parse-config", action="store_true", help="read all files and exit")
    add("--exit-parse-digest-cache", action="store_true", help="read the replay store and exit")
    add("--rotate-digest-cache", action="store_true", help="put the replay store aside, and go on with a new one")
    add("--dump-serv-err-codes", action="store_true", help="print fwknopd's error codes and our reasons")
    add("--fw-list", action="store_true", help="print the live grants")
    add("--fw-list-all", action="store_true", help="print the live grants and the table that holds them")
    add("--fw-flush", action="store_true", help="close every live grant")


def _add_keys(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-k", "--key-gen", action="store_true", help="print a new pair of keys and exit")
    add("--key-gen-file", type=absolute, metavar="FILE", help="write a new pair of keys to this file and exit")
    add("--key-len", type=int, default=KEY_BYTES, metavar="N", help=f"bytes of the encryption key, up to {KEY_MAX}")
    add("--hmac-key-len", type=int, metavar="N", help=f"bytes of the HMAC key, up to {HMAC_KEY_MAX}")
    add("--hmac-digest-type", type=convert.digest_type, metavar="NAME", help="digest of the HMAC (sha256)")


def _add_without_effect(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--pcap-any-direction", action="store_true", help=INERT["--pcap-any-direction"])
    add("-l", "--locale", metavar="NAME", help=INERT["--locale"])
    add("--no-ipt-check-support", action="store_true", help=INERT["--no-ipt-check-support"])
    add("--no-firewd-check-support", action="store_true", help=INERT["--no-firewd-check-support"])
    add("-n", "--nfq-capture", action="store_true", help=f"refused: {REFUSED['--nfq-capture']}")


def absolute(text: str) -> Path:
    """An absolute path, which stays valid after the daemon has changed its folder."""
    return Path(text).absolute()


def _files(text: str) -> tuple[Path, ...]:
    return tuple(map(absolute, text.split(",")))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        msg = f"{text!r} is not a number"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
