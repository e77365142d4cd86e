"""The options of `doorward knock` as a table: fwknop 2.6's, what they are called in fwknop 1.9, and ours.

Parser, help, saved command lines, saved stanzas and the documentation are made from it. Source: client/cmd_opts.h.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from doorward.config import convert, profile
from doorward.crypto.keys import HMAC_KEY_BYTES, KEY_BYTES
from doorward.values import HMAC_KEY_MAX, KEY_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_BYTES_MIN: Final = 16  # a shorter random key is no key any more


class Group(str, enum.Enum):
    """The headings of the help."""

    WHAT = "what to ask for"
    WHERE = "where and how to send it"
    SOURCE = "who is to be let in"
    NAT = "services behind another port or another host"
    KEYS = "keys"
    GPG = "GnuPG"
    FORM = "form of the packet"
    FILE = "saved settings"
    SHOW = "what to show"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `names` are fwknop 2.6's, the last of them is the one that stands for it; `old` are 1.9's.

    It takes a value where it has a `metavar`; else it is a flag, or one that sets `field` to `const`. `lines` are what
    --save-rc-stanza writes for it, with {} for the value; `instead` is what a saved command line says in its place,
    where it carries a key.
    """

    names: tuple[str, ...]
    group: Group
    help: str
    metavar: str | None = None
    read: Callable[[str], Any] | None = None
    field: str | None = None
    const: Any = None
    count: bool = False
    lines: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    instead: str | None = None
    is_ours: bool = False

    @property
    def name(self) -> str:
        """The name that stands for it."""
        return self.names[-1]


def _minus(text: str) -> int:
    return -profile.time_offset(text.removeprefix("-"))


def _plus(text: str) -> int:
    return profile.time_offset(text.removeprefix("-"))


_number = convert.number
_port = convert.port
_seen = "for all users of this machine to see"

OPTIONS: Final = (
    Option(
        ("-A", "--access"),
        Group.WHAT,
        "services to open: tcp/22,udp/53",
        "SERVICES",
        convert.services,
        "access",
        lines=("ACCESS {}",),
        old=("--Access",),
    ),
    Option(
        ("-C", "--server-cmd"),
        Group.WHAT,
        "a command that the host is to run",
        "COMMAND",
        profile.text_line,
        "command",
        old=("--Server-cmd",),
    ),
    Option(
        ("-f", "--fw-timeout"),
        Group.WHAT,
        "how long to open",
        "SECONDS",
        profile.window,
        "timeout",
        lines=("FW_TIMEOUT {}",),
    ),
    Option(
        ("-U", "--spoof-user"),
        Group.WHAT,
        "the user to name",
        "NAME",
        profile.user,
        "user",
        lines=("SPOOF_USER {}",),
        old=("--Spoof-user",),
    ),
    Option(
        ("-D", "--destination"),
        Group.WHERE,
        "where to knock",
        "HOST",
        profile.server,
        "server",
        lines=("SPA_SERVER {}",),
        old=("--Destination", "--knock-dst"),
    ),
    Option(
        ("-p", "--server-port"),
        Group.WHERE,
        "its port (62201, with http too)",
        "PORT",
        _port,
        "port",
        lines=("SPA_SERVER_PORT {}",),
        old=("--Server-port",),
    ),
    Option(
        ("-P", "--server-proto"),
        Group.WHERE,
        "udp (the default), tcp, http, or as root udpraw, tcpraw, icmp",
        "PROTO",
        profile.carrier,
        "carrier",
        lines=("SPA_SERVER_PROTO {}",),
        old=("--Server-proto",),
    ),
    Option(
        ("-r", "--rand-port"),
        Group.WHERE,
        "to a random port from 10000 on; the host must capture there",
        field="rand_port",
        const=True,
        lines=("RAND_PORT Y",),
    ),
    Option(
        ("-S", "--source-port"),
        Group.WHERE,
        "send from this port",
        "PORT",
        _port,
        "source_port",
        lines=("SPA_SOURCE_PORT {}",),
        old=("--Source-port",),
    ),
    Option(
        ("-Q", "--spoof-src", "--spoof-source"),
        Group.WHERE,
        "put this address into the header as the source (raw protocols)",
        "ADDR",
        profile.address,
        "spoofed",
        lines=("SPOOF_SOURCE_IP {}",),
        old=("--Spoof-src",),
    ),
    Option(
        ("--icmp-type",), Group.WHERE, "of -P icmp (0)", "TYPE", profile.icmp_type, "icmp_type", lines=("ICMP_TYPE {}",)
    ),
    Option(
        ("--icmp-code",), Group.WHERE, "of -P icmp (0)", "CODE", profile.icmp_code, "icmp_code", lines=("ICMP_CODE {}",)
    ),
    Option(
        ("-H", "--http-proxy"),
        Group.WHERE,
        "send over HTTP through a proxy: [http://]HOST[:PORT]",
        "PROXY",
        profile.http_proxy,
        "http_proxy",
        lines=("HTTP_PROXY {}", "SPA_SERVER_PROTO http"),
        old=("--HTTP-proxy",),
    ),
    Option(
        ("-u", "--user-agent"),
        Group.WHERE,
        "the User-Agent in HTTP (Fwknop/2.6.11)",
        "TEXT",
        profile.user_agent,
        "user_agent",
        lines=("HTTP_USER_AGENT {}",),
        old=("--User-agent", "--HTTP-user-agent"),
    ),
    Option(
        ("--use-wget-user-agent",),
        Group.WHERE,
        "with -w: wget's own User-Agent",
        field="wget_user_agent",
        const=True,
        lines=("USE_WGET_USER_AGENT Y",),
    ),
    Option(
        ("-4", "--server-resolve-ipv4"),
        Group.WHERE,
        "IPv4 only",
        field="ipv4_only",
        const=True,
        lines=("SERVER_RESOLVE_IPV4 Y",),
    ),
    Option(("-6", "--server-resolve-ipv6"), Group.WHERE, "IPv6 only", field="ipv6_only", const=True, is_ours=True),
    Option(
        ("-a", "--allow-ip"),
        Group.SOURCE,
        "this address (or: auto, source, resolve)",
        "ADDR",
        profile.source_rule,
        "source",
        lines=("ALLOW_IP {}",),
        old=("--allow-IP",),
    ),
    Option(
        ("-s", "--source-ip"),
        Group.SOURCE,
        "whatever address the packet arrives from",
        field="source",
        const=profile.SourceRule.PACKET,
        lines=("ALLOW_IP source",),
        old=("--source-IP",),
    ),
    Option(
        ("-R", "--resolve-ip-http", "--resolve-ip-https"),
        Group.SOURCE,
        "the address that a web site sees (HTTPS)",
        field="resolve",
        const=True,
        lines=("RESOLVE_IP_HTTPS Y",),
        old=("--Resolve-external-IP", "--whatismyip"),
    ),
    Option(
        ("--resolve-url",),
        Group.SOURCE,
        "ask these sites, in this order; may be given several times",
        "URL,…",
        profile.urls,
        "resolve_urls",
        lines=("RESOLVE_URL {}",),
        old=("--URL",),
    ),
    Option(
        ("--resolve-http-only",),
        Group.SOURCE,
        "ask without TLS: whoever is on the way can answer",
        field="resolve_http_only",
        const=True,
        lines=("RESOLVE_HTTP_ONLY Y", "RESOLVE_IP_HTTPS Y"),
    ),
    Option(
        ("--resolve-dns",),
        Group.SOURCE,
        "ask name servers, not web sites; without a name those of a list of ours",
        "NAME@SERVER,…",
        profile.questions,
        "resolve_dns",
        lines=("RESOLVE_DNS {}",),
        is_ours=True,
    ),
    Option(
        ("-w", "--wget-cmd"),
        Group.SOURCE,
        "ask with this wget; without a command it is -R, as in fwknop 1.9",
        "COMMAND",
        profile.text_line,
        "wget",
        lines=("WGET_CMD {}",),
    ),
    Option(
        ("-N", "--nat-access"),
        Group.NAT,
        "lead the service's connections to this inner host (and port)",
        "HOST[:PORT]",
        profile.host_port,
        "nat_access",
        lines=("NAT_ACCESS {}",),
    ),
    Option(
        ("--nat-local",),
        Group.NAT,
        "lead them to another port of the host itself",
        field="nat_local",
        const=True,
        lines=("NAT_LOCAL Y",),
    ),
    Option(
        ("--nat-port",),
        Group.NAT,
        "connect to this port of the host for it",
        "PORT",
        _port,
        "nat_port",
        lines=("NAT_PORT {}",),
    ),
    Option(
        ("--nat-rand-port",),
        Group.NAT,
        "connect to a random port, which is printed",
        field="nat_rand_port",
        const=True,
        lines=("NAT_RAND_PORT Y",),
    ),
    Option(
        ("-G", "--get-key"),
        Group.KEYS,
        "the key from a file of lines HOST: KEY",
        "FILE",
        profile.path,
        "key_file",
        lines=("KEY_FILE {}",),
    ),
    Option(
        ("--get-hmac-key",),
        Group.KEYS,
        "the HMAC's key from such a file",
        "FILE",
        profile.path,
        "hmac_key_file",
        lines=("HMAC_KEY_FILE {}", "USE_HMAC Y"),
    ),
    Option(
        ("--stdin",), Group.KEYS, "read the keys from standard input, a line each: encryption key, HMAC key", const=True
    ),
    Option(("--fd",), Group.KEYS, "read them from this descriptor", "NUMBER", _number(0, 1 << 20)),
    Option(("--ask-key",), Group.KEYS, "ask for the key whatever the file says", const=True, is_ours=True),
    Option(("--ask-hmac-key",), Group.KEYS, "ask for the HMAC's key whatever the file says", const=True, is_ours=True),
    Option(
        ("--use-hmac",),
        Group.KEYS,
        "add an HMAC, and ask for its key if there is none",
        field="use_hmac",
        const=True,
        lines=("USE_HMAC Y",),
    ),
    Option(
        ("--key-rijndael",),
        Group.KEYS,
        f"a key, {_seen}",
        "KEY",
        profile.password_text,
        "key",
        lines=("KEY {}",),
        instead="--ask-key",
    ),
    Option(
        ("--key-base64-rijndael",),
        Group.KEYS,
        "the same in base64",
        "KEY",
        profile.password_base64,
        "key",
        lines=("KEY_BASE64 {}",),
        instead="--ask-key",
    ),
    Option(
        ("--key-hmac",),
        Group.KEYS,
        f"an HMAC key, {_seen}",
        "KEY",
        profile.hmac_key_text,
        "hmac_key",
        lines=("HMAC_KEY {}", "USE_HMAC Y"),
        instead="--ask-hmac-key",
    ),
    Option(
        ("--key-base64-hmac",),
        Group.KEYS,
        "the same in base64",
        "KEY",
        profile.hmac_key_base64,
        "hmac_key",
        lines=("HMAC_KEY_BASE64 {}", "USE_HMAC Y"),
        instead="--ask-hmac-key",
    ),
    Option(("-k", "--key-gen"), Group.KEYS, "print new keys (doorward keys generate)", const=True),
    Option(("-K", "--key-gen-file"), Group.KEYS, "write new keys to a new file", "FILE", profile.path),
    Option(("--key-len",), Group.KEYS, f"of the new key ({KEY_BYTES})", "BYTES", _number(KEY_BYTES_MIN, KEY_MAX)),
    Option(
        ("--hmac-key-len",),
        Group.KEYS,
        f"of the new HMAC key (by the HMAC's digest, {HMAC_KEY_BYTES})",
        "BYTES",
        _number(KEY_BYTES_MIN, HMAC_KEY_MAX),
    ),
    Option(
        ("-g", "--gpg-encryption"), Group.GPG, "encrypt with gpg", field="use_gpg", const=True, lines=("USE_GPG Y",)
    ),
    Option(
        ("--gpg-recipient-key",),
        Group.GPG,
        "the host's public key",
        "KEY",
        profile.text_line,
        "gpg_recipient",
        lines=("GPG_RECIPIENT {}", "USE_GPG Y"),
        old=("--gpg-recip", "--gpg-recipient"),
    ),
    Option(
        ("--gpg-signer-key",),
        Group.GPG,
        "the key to sign with",
        "KEY",
        profile.text_line,
        "gpg_signer",
        lines=("GPG_SIGNER {}", "USE_GPG Y"),
        old=("--gpg-sign", "--gpg-signing-key"),
    ),
    Option(
        ("--gpg-home-dir",),
        Group.GPG,
        "the folder of the keyring",
        "FOLDER",
        profile.path,
        "gpg_home",
        lines=("GPG_HOMEDIR {}", "USE_GPG Y"),
    ),
    Option(
        ("--gpg-exe",),
        Group.GPG,
        "the program",
        "FILE",
        profile.path,
        "gpg_exe",
        lines=("GPG_EXE {}", "USE_GPG Y"),
        old=("--gpg-path",),
    ),
    Option(
        ("--gpg-agent",),
        Group.GPG,
        "gpg-agent knows the passphrase, or asks for it",
        field="gpg_agent",
        const=True,
        lines=("USE_GPG_AGENT Y", "USE_GPG Y"),
    ),
    Option(
        ("--gpg-no-signing-pw",),
        Group.GPG,
        "the key has no passphrase",
        field="gpg_no_password",
        const=True,
        lines=("GPG_NO_SIGNING_PW Y", "USE_GPG Y"),
    ),
    Option(
        ("-m", "--digest-type"),
        Group.FORM,
        "of the digest inside (sha256)",
        "HASH",
        convert.digest_type,
        "digest",
        lines=("DIGEST_TYPE {}",),
        old=("--digest-alg",),
    ),
    Option(
        ("--hmac-digest-type",),
        Group.FORM,
        "of the HMAC (sha256)",
        "HASH",
        convert.digest_type,
        "hmac_digest",
        lines=("HMAC_DIGEST_TYPE {}", "USE_HMAC Y"),
    ),
    Option(
        ("-M", "--encryption-mode"),
        Group.FORM,
        "cbc (the default), ctr, cfb, ofb, ecb, legacy",
        "MODE",
        profile.encryption_mode,
        "mode",
        lines=("ENCRYPTION_MODE {}",),
    ),
    Option(
        ("--time-offset-plus",),
        Group.FORM,
        "the host's clock is ahead: 30, 5m, 2h, 1d",
        "TIME",
        _plus,
        "time_offset",
        lines=("TIME_OFFSET {}",),
    ),
    Option(
        ("--time-offset-minus",),
        Group.FORM,
        "it is behind",
        "TIME",
        _minus,
        "time_offset",
        lines=("TIME_OFFSET -{}",),
    ),
    Option(("-n", "--named-config"), Group.FILE, "the stanza of the file to use", "STANZA"),
    Option(("--rc-file",), Group.FILE, "this file, not ~/.fwknoprc", "FILE", profile.path),
    Option(("--no-rc-file",), Group.FILE, "no file", const=True),
    Option(("--no-home-dir",), Group.FILE, "nothing from the home directory, nothing into it", const=True),
    Option(("--stanza-list",), Group.FILE, "print the names of the file's stanzas", const=True),
    Option(
        ("--save-rc-stanza",),
        Group.FILE,
        "save what this command line says as the stanza -n, or one named like the host; with -k the new keys too",
        const=True,
    ),
    Option(("--force-stanza",), Group.FILE, "and replace keys in it without asking", const=True),
    Option(
        ("-E", "--save-args-file"), Group.FILE, "where this command line is kept (~/.fwknop.run)", "FILE", profile.path
    ),
    Option(
        ("--no-save-args",),
        Group.FILE,
        "do not keep it; keys are never kept",
        field="no_save_args",
        const=True,
        lines=("NO_SAVE_ARGS Y",),
    ),
    Option(("-l", "--last-cmd"), Group.FILE, "do again what was done last", const=True),
    Option(("--show-last",), Group.FILE, "show what was done last", const=True, old=("--Show-last-cmd",)),
    Option(("-B", "--save-packet"), Group.SHOW, "write the packet to a file", "FILE", profile.path),
    Option(("-b", "--save-packet-append"), Group.SHOW, "append it there", const=True, old=("--Save-packet-append",)),
    Option(("-T", "--test"), Group.SHOW, "make the packet, show it, send nothing", const=True, old=("--Test-mode",)),
    Option(
        ("-v", "--verbose"),
        Group.SHOW,
        "show the packet that is sent",
        field="verbose",
        count=True,
        lines=("VERBOSE Y",),
        old=("--debug",),
    ),
    Option(("-V", "--version"), Group.SHOW, "show the version", const=True, old=("--Version",)),
)
