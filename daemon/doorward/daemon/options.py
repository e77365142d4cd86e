"""The options of doorwardd, which are fwknopd's. Source: fwknop server/cmd_opts.h."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import doorward
from doorward.config import convert
from doorward.config.daemon import CONFIG_FOLDER
from doorward.crypto.keys import KEY_BYTES
from doorward.values import HMAC_KEY_MAX, KEY_MAX

DEFAULT: Final = CONFIG_FOLDER / "doorwardd.conf"
OURS: Final = frozenset({"--explain-config"})  # what fwknopd does not have
INERT: Final = {  # what does nothing here, and why
    "--pcap-any-direction": "only what comes in is a knock",
    "--locale": "logs are in English, times in UTC",
    "--no-ipt-check-support": "what the packet filter can do is looked up in the kernel",
    "--no-firewd-check-support": "firewalld is not asked",
}
REFUSED: Final = {
    "--nfq-capture": "packets are taken from interfaces (-i) or by a server of ours (-U), not from a queue"
}
DIFFERS: Final = {
    "--interface": "several names, separated by commas; default every interface",
    "--digest-file": "a format of ours; a file of fwknopd's is not taken over",
    "--pcap-file": "the daemon ends at the end of the file",
    "--pcap-filter": "terms `udp port N`, `tcp port N`, `portrange`, `dst`, `icmp`, joined by `or`",
    "--verbose": "once is as good as often",
    "--fw-list-all": "our table as a whole, not those of others",
    "--test": "a command cycle does not run either, and packets are remembered",
    "--dump-serv-err-codes": "the reasons of our verdicts stand behind fwknopd's codes",
    "--rotate-digest-cache": "knocks are refused for as long as one of the old packets would be accepted",
    "--udp-server": "the port is UDPSERV_PORT, as in the file",
}
_DESCRIPTION: Final = "Open the firewall for whoever knocks right (Single Packet Authorization)."
_CHECK: Final = """\
Read all files as doorwardd would at its start, and change nothing. Every problem is printed as path:line: problem, and
the exit code is 1; without one it is 0. -a alone reads only that file; --explain-config prints every stanza in words.
The options are doorwardd's, so that the same ones can be checked that it is started with.
"""
_EPILOG: Final = """\
commands:
  doorwardd check [-c FILE] [-a FILE]   read all files; print every problem as path:line: problem
  doorwardd check --explain-config      and print every stanza in words, keys masked
  doorwardd explain --origin ADDRESS    say what would become of the packet on standard input, without effect

Without -f the daemon goes to the background and logs to syslog. Signals: HUP reads the files again and keeps
live grants; TERM and INT end it. Grants close by themselves, whether or not the daemon lives.
"""


def parser(*, check: bool = False) -> argparse.ArgumentParser:
    """Return the parser of doorwardd's command line; `check` is for what stands behind that command."""
    made = argparse.ArgumentParser(
        prog="doorwardd check" if check else "doorwardd",
        usage="doorwardd check [-c FILE] [-O FILE[,FILE...]] [-a FILE] [--explain-config]" if check else None,
        description=_CHECK if check else _DESCRIPTION,
        epilog=None if check else _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_files(made.add_argument_group("files"))
    _add_capture(made.add_argument_group("where knocks come from"))
    _add_running(made.add_argument_group("how it runs"))
    _add_modes(made.add_mutually_exclusive_group())
    _add_keys(made.add_argument_group("new keys"))
    _add_without_effect(made.add_argument_group("of fwknopd, without effect"))
    made.add_argument("-V", "--version", action="version", version=f"doorwardd {doorward.__version__}")
    return made


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-c", "--config-file", type=_absolute, metavar="FILE", help=f"settings of the daemon (default {DEFAULT})")
    add(
        "-O",
        "--override-config",
        type=_files,
        default=(),
        metavar="FILE[,FILE...]",
        help="further settings, which count more",
    )
    add("-a", "--access-file", type=_absolute, metavar="FILE", help="stanzas: who may open what (default: ACCESS_FILE)")
    add("--access-folder", type=_absolute, metavar="DIR", help="stanzas: every *.conf in this folder (ACCESS_FOLDER)")
    add("-r", "--run-dir", type=_absolute, metavar="DIR", help="folder of the PID file and the replay store")
    add("-p", "--pid-file", type=_absolute, metavar="FILE", help="PID file")
    add("-d", "--digest-file", type=_absolute, metavar="FILE", help="replay store")
    add("--gpg-home-dir", type=_absolute, metavar="DIR", help="keyring of stanzas that name none (GPG_HOME_DIR)")
    add("--gpg-exe", type=_absolute, metavar="FILE", help="gpg (GPG_EXE)")
    add("--sudo-exe", type=_absolute, metavar="FILE", help="sudo (SUDO_EXE)")


def _add_capture(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-i", "--interface", metavar="NAME", help="listen on this interface only (default: on every one)")
    add("-P", "--pcap-filter", metavar="FILTER", help="what to listen to, as 'udp port 62201'")
    add("-U", "--udp-server", action="store_true", help="bind UDPSERV_PORT instead of capturing packets")
    add("--pcap-file", type=_absolute, metavar="FILE", help="read packets from this file, of any age, and end")
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


def _add_modes(group: argparse._MutuallyExclusiveGroup) -> None:
    add = group.add_argument
    add("-D", "--dump-config", action="store_true", help="print all settings and stanzas, keys masked")
    add("--explain-config", action="store_true", help="print every stanza in words, keys masked")
    add("-K", "--kill", action="store_true", help="end the running daemon")
    add("-R", "--restart", action="store_true", help="make the running daemon read its files again")
    add("-S", "--status", action="store_true", help="print the PID of the running daemon")
    add("--exit-parse-config", action="store_true", help="read all files and exit")
    add("--exit-parse-digest-cache", action="store_true", help="read the replay store and exit")
    add("--rotate-digest-cache", action="store_true", help="begin a new replay store, the old one aside")
    add("--dump-serv-err-codes", action="store_true", help="print fwknopd's error codes and our reasons")
    add("--fw-list", action="store_true", help="print the live grants")
    add("--fw-list-all", action="store_true", help="print the live grants and the table that holds them")
    add("--fw-flush", action="store_true", help="close every live grant")


def _add_keys(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-k", "--key-gen", action="store_true", help="print a new pair of keys and exit")
    add("--key-gen-file", type=_absolute, metavar="FILE", help="write a new pair of keys to this file and exit")
    add("--key-len", type=int, default=KEY_BYTES, metavar="N", help=f"bytes of the encryption key, up to {KEY_MAX}")
    add("--hmac-key-len", type=int, metavar="N", help=f"bytes of the HMAC key, up to {HMAC_KEY_MAX}")
    add("--hmac-digest-type", type=convert.digest_type, metavar="NAME", help="what the HMAC key is for (sha256)")


def _add_without_effect(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--pcap-any-direction", action="store_true", help=INERT["--pcap-any-direction"])
    add("-l", "--locale", metavar="NAME", help=INERT["--locale"])
    add("--no-ipt-check-support", action="store_true", help=INERT["--no-ipt-check-support"])
    add("--no-firewd-check-support", action="store_true", help=INERT["--no-firewd-check-support"])
    add("-n", "--nfq-capture", action="store_true", help=f"refused: {REFUSED['--nfq-capture']}")


def _absolute(text: str) -> Path:
    """Return a path that means the same after the daemon has left its folder."""
    return Path(text).absolute()


def _files(text: str) -> tuple[Path, ...]:
    return tuple(map(_absolute, text.split(",")))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        msg = f"{text!r} is not a number"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
