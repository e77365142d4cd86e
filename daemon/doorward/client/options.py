"""The client's options, one row an option: fwknop 2.6's, their names in fwknop 1.9, and doorward's own.

The parser, the reader and the writer of ~/.fwknoprc, help, documentation and shell completion are made from these rows.
Source: client/cmd_opts.h, client/config_init.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from doorward.client import profile
from doorward.config import convert
from doorward.crypto.keys import HMAC_KEY_BYTES, KEY_BYTES, SHORT_KEY
from doorward.values import HMAC_KEY_MAX, KEY_MAX, check_name

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_DEFAULT: Final = 10.0
_TIMEOUT_MAX: Final = 3600.0
_FD_MAX: Final = 1 << 20
_SEEN: Final = "visible to all users of this machine"


class Row(NamedTuple):
    """One option: `-A --access=SERVICES | --Access` is fwknop 2.6's spellings, its value, and 1.9's spellings.

    The last spelling of 2.6 is the canonical name; a row without any is read in the file only. An option without a
    value is a flag, which stands for the text `flag`. `read` turns the text into the value, wherever it stands.
    """

    spelling: str
    help: str
    read: Callable[[str], Any] = convert.boolean
    field: str = ""  # of the profile or of the command; else the name in snake case
    rc: str = ""  # names in the file; the first one is written
    flag: str = "Y"
    implies: str = ""  # a line of the file that this option means too, where nothing else is said
    is_weak: bool = False  # another option for the same field wins
    repeats: str = (
        ""  # "list": the texts are joined by commas; "any": operands, or none; "count": the occurrences are counted
    )
    spell: Callable[[str], str] = str  # the text as the file has it
    instead: str = ""  # the option that replaces this one, which carries a key, in a saved command line
    read_file: Callable[[str], Any] | None = None  # where the file is read otherwise

    @property
    def names(self) -> list[str]:
        """The spellings of fwknop 2.6."""
        return self.spelling.partition(" | ")[0].partition("=")[0].split()

    @property
    def old_names(self) -> list[str]:
        """The spellings that only fwknop 1.9 has."""
        return self.spelling.partition(" | ")[2].split()

    @property
    def metavar(self) -> str:
        """The name of the value; empty for a flag."""
        return self.spelling.partition(" | ")[0].partition("=")[2]

    @property
    def name(self) -> str:
        """The canonical name."""
        names = self.names or self.old_names[:1]
        return names[-1] if names else ""

    @property
    def dest(self) -> str:
        """The field that the value goes to."""
        return self.field or self.name.lstrip("-").replace("-", "_")


class Command(NamedTuple):
    """One command: its name, its rows by group, its operands and the texts of its help."""

    name: str
    groups: dict[str, tuple[Row, ...]]
    operands: tuple[Row, ...] = ()
    usage: str = "[options]"
    about: str = ""
    examples: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All options."""
        return tuple(row for rows in self.groups.values() for row in rows)


def _minus(text: str) -> str:
    return f"-{_plus(text)}"


def _plus(text: str) -> str:
    return text.removeprefix("-").removeprefix("+")


def _resolving(text: str) -> profile.SourceRule | None:
    return profile.SourceRule.RESOLVE if convert.boolean(text) else None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _TIMEOUT_MAX:
        msg = f"{text[:20]!r} is not a number of seconds up to {_TIMEOUT_MAX:g}"
        raise ValueError(msg)
    return seconds


_key_bytes = convert.number(SHORT_KEY, KEY_MAX)
_hmac_key_bytes = convert.number(SHORT_KEY, HMAC_KEY_MAX)
_port = convert.port
_text = profile.text_line
_HMAC: Final = "USE_HMAC Y"
_GPG: Final = "USE_GPG Y"
_RESOLVE: Final = "RESOLVE_IP_HTTPS Y"
_HELP: Final = Row("-h --help", "show this help")

# A table: spellings and help on a row's first line, how the value is read on its second.
# fmt: off
GROUPS: Final = {
    "what to ask for": (
        Row("-A --access=SERVICES | --Access", "services to open: tcp/22,udp/53", convert.services, rc="ACCESS"),
        Row("-C --command --server-cmd=COMMAND | --Server-cmd", "a command for the host to run; with HOST_KEY its name",
            profile.command, "command"),
        Row("--sequence=PORTS", 'no packet, but these ports in their order: "tcp/7000 udp/8000 tcp/9000"',
            profile.sequence, rc="SEQUENCE"),
        Row("-f --fw-timeout=SECONDS", "seconds to keep them open", profile.window, "timeout", "FW_TIMEOUT"),
        Row("-U --spoof-user=NAME | --Spoof-user", "the user name to send", profile.user, "user", "SPOOF_USER"),
    ),
    "where and how to send it": (
        Row("-D --destination=HOST | --Destination --knock-dst", "the host to knock at",
            profile.server, "server", "SPA_SERVER"),
        Row("-p --server-port=PORT | --Server-port", "its port (62201, with http too)",
            _port, "port", "SPA_SERVER_PORT"),
        Row("-P --server-proto=PROTO | --Server-proto", "udp (the default), tcp, http, or as root udpraw, tcpraw, icmp",
            profile.carrier, "carrier", "SPA_SERVER_PROTO"),
        Row("-r --rand-port", "to a random port from 10000 on; the host must capture there", rc="RAND_PORT"),
        Row("-S --source-port=PORT | --Source-port", "send from this port", _port, rc="SPA_SOURCE_PORT"),
        Row("-Q --spoof-src --spoof-source=ADDR | --Spoof-src", "the source address in the header (raw protocols)",
            convert.address, "spoofed", "SPOOF_SOURCE_IP"),
        Row("--icmp-type=TYPE", "of -P icmp (0)", profile.icmp_type, rc="ICMP_TYPE"),
        Row("--icmp-code=CODE", "of -P icmp (0)", profile.icmp_code, rc="ICMP_CODE"),
        Row("-H --http-proxy=PROXY | --HTTP-proxy", "send over HTTP through a proxy: [http://]HOST[:PORT]",
            profile.http_proxy, rc="HTTP_PROXY", implies="SPA_SERVER_PROTO http"),
        Row("-u --user-agent=TEXT | --User-agent --HTTP-user-agent", "the User-Agent in HTTP (Fwknop/2.6.11)",
            profile.user_agent, rc="HTTP_USER_AGENT"),
        Row("--use-wget-user-agent", "with -w: wget's own User-Agent",
            field="wget_user_agent", rc="USE_WGET_USER_AGENT"),
        Row("--jump=[USER@]HOST[:PORT],…", "from the last of these hosts, over ssh", profile.hops),
        Row("--ssh=COMMAND", "reach them by this command, not by `ssh`", profile.words),
        Row("-4 --server-resolve-ipv4", "IPv4 only", field="ipv4_only", rc="SERVER_RESOLVE_IPV4"),
        Row("-6 --server-resolve-ipv6", "IPv6 only", field="ipv6_only"),
    ),
    "the source to let in": (
        Row("-a --allow-ip=ADDR | --allow-IP", "this address (or: auto, named, source, resolve)",
            profile.source_rule, "source", "ALLOW_IP"),
        Row("-s --source-ip | --source-IP", "the address that the packet arrives from",
            profile.source_rule, "source", "ALLOW_IP", "source"),
        Row("-R --resolve-ip-http --resolve-ip-https | --Resolve-external-IP --whatismyip",
            "the address that a web site sees (HTTPS)",
            _resolving, "source", "RESOLVE_IP_HTTPS RESOLVE_IP_HTTP", is_weak=True),
        Row("--resolve-url=URL,… | --URL", "ask these sites, in this order; may be given several times",
            profile.urls, "resolve_urls", "RESOLVE_URL", implies=_RESOLVE, repeats="list"),
        Row("--resolve-http-only", "ask without TLS: an attacker on the path can answer",
            rc="RESOLVE_HTTP_ONLY", implies=_RESOLVE),
        Row("--resolve-dns=NAME@SERVER,…", "ask name servers, not web sites; without a name those of a built-in list",
            profile.questions, rc="RESOLVE_DNS", implies=_RESOLVE, repeats="list"),
        Row("-w --wget-cmd=COMMAND", "ask with this wget; without a command it is -R, as in fwknop 1.9",
            _text, "wget", "WGET_CMD"),
        Row("--prefix=LENGTH", "of the network around the source to let in, where the host allows it: 24 or 24,64",
            profile.prefixes, "prefixes", "PREFIX"),
    ),
    "services behind another port or another host": (
        Row("-N --nat-access=HOST[:PORT]", "forward the service's connections to this inner host (and port)",
            profile.host_port, rc="NAT_ACCESS"),
        Row("--nat-local", "forward them to another port of the host itself", rc="NAT_LOCAL"),
        Row("--nat-port=PORT", "connect to this port of the host for it", _port, rc="NAT_PORT"),
        Row("--nat-rand-port", "connect to a random port, which is printed", rc="NAT_RAND_PORT"),
    ),
    "keys": (
        Row("-G --get-key=FILE", "the key from a file of lines HOST: KEY", profile.path, "key_file", "KEY_FILE"),
        Row("--get-hmac-key=FILE", "the HMAC's key from such a file",
            profile.path, "hmac_key_file", "HMAC_KEY_FILE", implies=_HMAC),
        Row("--stdin", "read the keys from standard input, a line each: encryption key, HMAC key"),
        Row("--fd=NUMBER", "read them from this descriptor", convert.number(0, _FD_MAX)),
        Row("--ask-key", "ask for the key, even where the file has one"),
        Row("--ask-hmac-key", "ask for the HMAC's key, even where the file has one"),
        Row("--use-hmac", "add an HMAC, and ask for its key if there is none", rc="USE_HMAC"),
        Row("--key-rijndael=KEY", f"a key, {_SEEN}",
            profile.password_text, "key", "KEY", instead="--ask-key", read_file=profile.encryption_key_text),
        Row("--key-base64-rijndael=KEY", "the same in base64",
            profile.password_base64, "key", "KEY_BASE64", instead="--ask-key", read_file=profile.encryption_key_base64),
        Row("--key-hmac=KEY", f"an HMAC key, {_SEEN}",
            profile.hmac_key_text, "hmac_key", "HMAC_KEY", implies=_HMAC, instead="--ask-hmac-key"),
        Row("--key-base64-hmac=KEY", "the same in base64",
            profile.hmac_key_base64, "hmac_key", "HMAC_KEY_BASE64", implies=_HMAC, instead="--ask-hmac-key"),
        Row("", "a program that prints the key", profile.program, "key_command", "KEY_COMMAND"),
        Row("", "a program that prints the HMAC's key", profile.program, "hmac_key_command", "HMAC_KEY_COMMAND"),
        Row("--host-key=PUBLIC", "the host's public key, `doorward1 BASE64`: knock in the format doorward 1",
            profile.host_key, rc="HOST_KEY"),
        Row("--client-key=FILE", "the key pair for it (~/.config/doorward/client.key)",
            profile.path, "client_key_file", "CLIENT_KEY_FILE"),
        Row("", "a pre-shared key for it, in base64", convert.psk_base64, "psk", "PSK_BASE64"),
        Row("--otp=CODE", "a one-time code of an authenticator app, or: ask",
            profile.one_time_code, "one_time_code", "ONE_TIME_CODE",
            instead="--otp=ask", read_file=profile.code_rule),
        Row("-k --key-gen", "print new keys (doorward keys generate)"),
        Row("-K --key-gen-file=FILE", "write new keys to a new file", profile.path),
        Row("--key-len=BYTES", f"of the new key ({KEY_BYTES})", convert.number(1, KEY_MAX)),
        Row("--hmac-key-len=BYTES", f"of the new HMAC key (by the HMAC's digest, {HMAC_KEY_BYTES})",
            convert.number(1, HMAC_KEY_MAX)),
    ),
    "GnuPG": (
        Row("-g --gpg-encryption", "encrypt with gpg", field="use_gpg", rc="USE_GPG"),
        Row("--gpg-recipient-key=KEY | --gpg-recip --gpg-recipient", "the host's public key",
            _text, "gpg_recipient", "GPG_RECIPIENT", implies=_GPG),
        Row("--gpg-signer-key=KEY | --gpg-sign --gpg-signing-key", "the key to sign with",
            _text, "gpg_signer", "GPG_SIGNER", implies=_GPG),
        Row("--gpg-home-dir=FOLDER", "the folder of the keyring",
            profile.path, "gpg_home", "GPG_HOMEDIR", implies=_GPG),
        Row("--gpg-exe=FILE | --gpg-path", "the program", profile.path, rc="GPG_EXE", implies=_GPG),
        Row("--gpg-agent", "gpg-agent knows the passphrase, or asks for it", rc="USE_GPG_AGENT", implies=_GPG),
        Row("--gpg-no-signing-pw", "the key has no passphrase",
            field="gpg_no_password", rc="GPG_NO_SIGNING_PW", implies=_GPG),
        Row("", "the passphrase", profile.password_text, "gpg_password", "GPG_SIGNING_PW"),
        Row("", "the passphrase in base64", profile.password_base64, "gpg_password", "GPG_SIGNING_PW_BASE64"),
    ),
    "form of the packet": (
        Row("-m --digest-type=HASH | --digest-alg", "of the digest inside (sha256)",
            convert.digest_type, "digest", "DIGEST_TYPE"),
        Row("--hmac-digest-type=HASH", "of the HMAC (sha256)",
            convert.digest_type, "hmac_digest", "HMAC_DIGEST_TYPE", implies=_HMAC),
        Row("-M --encryption-mode=MODE", "cbc (the default), ctr, cfb, ofb, ecb, legacy",
            profile.encryption_mode, "mode", "ENCRYPTION_MODE"),
        Row("--time-offset-plus=TIME", "the host's clock is ahead: 30, 5m, 2h, 1d",
            profile.time_offset, "time_offset", "TIME_OFFSET", spell=_plus),
        Row("--time-offset-minus=TIME", "it is behind",
            profile.time_offset, "time_offset", "TIME_OFFSET", spell=_minus),
    ),
    "saved settings": (
        Row("-n --named-config=SECTION", "the section of the file to use", str, "section"),
        Row("--rc-file=FILE", "this file, not ~/.fwknoprc", profile.path),
        Row("--no-rc-file", "no file"),
        Row("--no-home-dir", "read nothing from the home directory, write nothing into it"),
        Row("--stanza-list", "print the names of the file's sections"),
        Row("--save-rc-stanza",
            "save this command line as the section -n, or one named like the host; with -k the new keys too"),
        Row("--force-stanza", "replace keys in it without asking, and drop its other old lines"),
        Row("-E --save-args-file=FILE", "where this command line is kept (~/.fwknop.run)", profile.path),
        Row("--no-save-args", "do not keep it; keys are never kept", rc="NO_SAVE_ARGS"),
        Row("-l --last-cmd", "run the last command line again"),
        Row("--show-last | --Show-last-cmd", "show the last command line"),
    ),
    "what to show": (
        Row("-B --save-packet=FILE", "write the packet to a file", profile.path),
        Row("-b --save-packet-append | --Save-packet-append", "append it there"),
        Row("-T --test | --Test-mode", "make the packet, show it, send nothing"),
        Row("-v --verbose | --debug", "show the packet that is sent", profile.verbosity, rc="VERBOSE", repeats="count"),
        Row("-V --version | --Version", "show the version"),
        _HELP,
    ),
}
# fmt: on
# only in fwknop 1.9; getopt.py has their meaning
OLD: Final = (
    Row("=HOST:PORT | --NAT-access --Forward-access -F", "the inner host and the outer port", str),
    Row(" | --NAT-rand-port", "", instead="--nat-rand-port"),
    Row(" | --HTTP", "", instead="--server-proto=http"),
    Row(" | --TCP-sock", "", instead="--server-proto=tcp"),
    *(Row(f" | {name}", "") for name in ("--NAT-local", "--quiet")),
)
KNOCK: Final = Command(
    "doorward knock",
    GROUPS,
    usage="-A SERVICES -D HOST [options]",
    about="""\
Ask a host to open services for a while: one encrypted packet, no answer.
The options are fwknop's; ~/.fwknoprc is read as fwknop reads it: [default], then the section of -n, then these options.
""",
    examples="""\
examples:
  doorward -n web1                              all from the section [web1] of ~/.fwknoprc
  doorward -A tcp/22 -D web1.example.org        the key from [default], or asked for
  doorward -A tcp/22,tcp/443 -D 192.0.2.7 -f 60 -a 198.51.100.4
  doorward -A tcp/22 -D web1 --test -v          show the packet, send nothing
  doorward -A tcp/22 -N 10.0.0.5:22 --nat-port 2222 -D gw
                                                forward gw's port 2222 to the inner host's port 22
  doorward -A tcp/22 -R -D web1 --gpg-recipient-key HOST --gpg-signer-key ME

Without -a or -s the source to let in is this machine's own address towards the host. Behind NAT it is the address at
which the host has seen it before (`doorward learn`), and the one that the packet arrives from (-s).

exit codes: 0 sent, 1 not sent, 2 usage, 3 mistake in a configuration file, 4 root is needed
""",
)

_ROUTE: Final = (
    Row("--rc-file=FILE", "read FILE, not ~/.fwknoprc", profile.path),
    Row("-n --named-config=SECTION", "the section of the file to use", str, "section"),
    Row("--spa-server=HOST", "knock here, not at HOST", profile.server, "server"),
    Row("--spa-port=PORT", "the UDP port to knock at (62201)", _port, "port"),
    Row("--service=SERVICES", "ask for these services, not for tcp/PORT", convert.services, "access"),
    Row("--source=auto|named|packet|ADDR", "the source to let in (auto)", profile.source_rule),
    Row(
        "--prefix=LENGTH",
        "of the network around the source to let in, where the host allows it: 24 or 24,64",
        profile.prefixes,
        "prefixes",
    ),
    Row("-N --nat-access=HOST[:PORT]", "have the host forward to this inner host (and port)", profile.host_port),
    Row(
        "-J --jump=[USER@]HOST[:PORT],…",
        "through these hosts, as ssh's -J; the knock is sent from the last of them",
        profile.hops,
    ),
    Row("--ssh=COMMAND", "reach the jump hosts by this command, not by `ssh`", profile.words),
    Row("-4", "IPv4 only", field="ipv4_only"),
    Row("-6", "IPv6 only", field="ipv6_only"),
    Row("-b --bind-address=ADDR", "from this address of this machine, as ssh's -b", profile.server),
    Row("-B --bind-interface=NAME", "from this interface, as ssh's -B", profile.interface),
)
CONNECT: Final = Command(
    "doorward connect",
    {
        "options": (
            *_ROUTE,
            Row(
                "--otp=CODE",
                "a one-time code of an authenticator app, or: ask",
                profile.one_time_code,
                "one_time_code",
            ),
            Row("--timeout=SECONDS", f"give up after this time ({TIMEOUT_DEFAULT:g})", _seconds, "patience"),
            Row("--status=FILE", "write the reason of a failure to FILE", profile.path),
            Row("--follow-ssh", "take -4, -6, -b, -B and a jump from the ssh that runs this (Linux)"),
            Row("-v --verbose", "report each step on standard error", read=profile.verbosity, repeats="count"),
            _HELP,
        )
    },
    (Row("HOST", "", profile.server, "host"), Row("PORT", "", _port, "dial_port")),
    "[options] HOST PORT",
    """\
Knock, connect, and hand the connection over: the ProxyCommand for ssh. With ProxyUseFdpass ssh takes the open
connection itself; otherwise standard input and output are connected to it.
A host without a key in the file is dialled without a knock.
""",
    """\
examples:
  ssh -o ProxyUseFdpass=yes -o 'ProxyCommand=doorward connect %h %p' web1.example.org
  doorward connect --spa-server gw.example.org --service tcp/2201 gw.example.org 2201
  doorward ssh-config '*.example.org' >> ~/.ssh/config

The section is that of -n, else the one named like HOST or with HOST as its SPA_SERVER, else [default].
exit codes: 0 connected, 1 not connected (the reason is on standard error), 2 usage, 3 mistake in a configuration file
""",
)
DOCTOR: Final = Command(
    "doorward doctor",
    {
        "options": (
            *_ROUTE,
            Row("--port=PORT", "the TCP port, not the one of ssh_config (22)", _port, "dial_port"),
            Row("-F --ssh-config=FILE", "read FILE, not ~/.ssh/config", profile.path),
            Row("--timeout=SECONDS", "knock and dial for this time (6)", _seconds, "patience"),
            Row("--no-knock", "send nothing but the question for the time"),
            Row("--json", "one JSON object on standard output"),
            _HELP,
        )
    },
    (Row("HOST", "", profile.server, "host"),),
    "[options] HOST",
    """\
Find out why a host does not open: what a connection needs, one line each, and a command that mends or proves it.
`ok` holds, `no` does not, `?` cannot be known from here. HOST is the name behind ssh. It knocks as a connection does,
and asks the host's NTP for the time. Of the keys it shows a fingerprint, which the host's
`doorwardd check --report` shows too.
""",
    """\
examples:
  doorward doctor web1
  doorward doctor --no-knock -n web1 192.0.2.10

exit codes: 0 all of it holds, 1 something does not, 2 usage
""",
)
LEARN: Final = Command(
    "doorward learn",
    {
        "options": (
            Row(
                "--address=ADDR",
                "the address; without it standard input has the host's SSH_CONNECTION",
                convert.address,
            ),
            _HELP,
        )
    },
    (Row("HOST", "", profile.server, "host"),),
    "[options] HOST",
    """\
Remember the address at which a host sees this machine, so that knocks at this host ask for it from this network.
Only behind NAT is it another than this machine's own.
""",
    """\
examples:
  ssh web1 'echo $SSH_CONNECTION' | doorward learn web1
  doorward learn web1 --address 198.51.100.7
""",
)
SSH_CONFIG: Final = Command(
    "doorward ssh-config",
    {"options": (*_ROUTE, Row("--no-fdpass", "for programs that take no descriptor: carry the bytes"), _HELP)},
    (Row("HOST", "names or patterns as ssh_config takes them", str, "hosts", repeats="list"),),
    "[options] HOST…",
    "Print the lines that make every ssh knock.\n",
)
FORWARD: Final = Command(
    "doorward forward",
    {
        "options": (
            *_ROUTE,
            Row(
                "--timeout=SECONDS", f"give a connection up after this time ({TIMEOUT_DEFAULT:g})", _seconds, "patience"
            ),
            Row("-v --verbose", "report each step on standard error", read=profile.verbosity, repeats="count"),
            _HELP,
        )
    },
    (
        Row("LOCAL", "a port of this machine, or ADDRESS:PORT of its loopback", profile.local, "local"),
        Row("HOST:PORT", "the service", profile.target, "target"),
    ),
    "[options] LOCAL HOST:PORT",
    """\
Listen on a port of this machine, and connect each of its connections to the service, with a knock.
For programs that know no ProxyCommand: databases, RDP, browsers. Every user of this machine can use the port.
""",
    """\
examples:
  doorward forward 5432 db.example.org:5432     then: psql -h 127.0.0.1
  doorward forward '[::1]:3389' desk:3389
""",
)
MOSH: Final = Command(
    "doorward mosh",
    {
        "options": (
            *_ROUTE,
            Row("--ports=SERVICES", "the UDP ports that mosh may take (udp/60000-60010)", convert.services, "udp"),
            _HELP,
        )
    },
    (
        Row("HOST", "", profile.destination, "destination"),
        Row("COMMAND", "what to run there", str, "command", repeats="any"),
    ),
    "[options] [USER@]HOST [-- COMMAND…]",
    """\
Start mosh to a hidden host: one knock opens ssh's port and the ports that mosh may take.
The host's stanza must allow both: OPEN_PORTS tcp/22, udp/60000-60010.
""",
    """\
examples:
  doorward mosh web1.example.org
  doorward mosh --ports udp/60001 alice@web1 -- tmux attach

A grant is for one address. After a change of this machine's address mosh comes back when you knock again:
  doorward knock -A udp/60000-60010 -D web1.example.org
""",
)
IMPORT: Final = Command(
    "doorward import",
    {
        "options": (
            Row("-n --named-config=SECTION", "put it into this section (the line names one)", str, "section"),
            Row("--force", "replace a section that has other keys"),
            Row("--rc-file=FILE", "write to FILE, not to ~/.fwknoprc", profile.path),
            _HELP,
        )
    },
    (Row("FILE|-", "", str, "place"),),
    "[options] FILE|-",
    """\
Put the client's half of a host's keys, as `doorward init` prints it there, into ~/.fwknoprc.
The line is secret: whoever has it can open the host. - reads it from standard input, or asks for it at a terminal.
""",
    """\
examples:
  doorward import -                             paste the line; it is not shown
  ssh web1 cat web1.half | doorward import -    while web1 is still open
  doorward import web1.half -n web              a file of `doorward init --output`, under another name

exit codes: 0 done, 1 nothing was written (the reason is on standard error), 2 usage, 3 mistake in ~/.fwknoprc
""",
)
STATUS: Final = Command(  # not in COMMANDS: the host has a command of this name, whose help names --me
    "doorward status",
    {
        "options": (
            Row("--me", "as root: about this user, not about this host"),
            Row("--json", "one JSON object on standard output"),
            Row("--rc-file=FILE", "read FILE, not ~/.fwknoprc", profile.path),
            _HELP,
        )
    },
    about="""\
Who am I to the hosts that I knock at: my user name, the hosts that I have keys for, the addresses at which they have
seen this machine, and whether its clock is right. Nothing is sent to anybody, and no key is shown.
As root on a host it is about the host: see `sudo doorward status --help`.
""",
    examples="""\
exit codes: 0 all is well, 1 something is not (a line NOT WELL says what), 2 usage, 3 mistake in ~/.fwknoprc,
4 this machine is a host too, about which only root is told
""",
)
GENERATE: Final = Command(
    "doorward keys generate",
    {
        "options": (
            Row("--length=BYTES", f"of the key ({KEY_BYTES})", _key_bytes, "key_len"),
            Row("--hmac-length=BYTES", f"of the HMAC key ({HMAC_KEY_BYTES})", _hmac_key_bytes, "hmac_key_len"),
            Row("--public", "a key pair of the format doorward 1, for all hosts; its public half is printed"),
            Row("--comment=NAME", "with --public: the name behind the public key (USER@MACHINE)", check_name),
            Row("--output=FILE", "a new file, mode 0600 (with --public ~/.config/doorward/client.key)", profile.path),
            Row("--force", "replace the file if it exists"),
            _HELP,
        )
    },
    about="Make new keys: two secrets that go to a host, or with --public a pair of which only the public half does.\n",
    examples="""\
examples:
  doorward keys generate                        print the two lines for access.conf and for ~/.fwknoprc
  doorward keys generate --output web1.key      into a new file of mode 0600
  doorward keys generate --public               this machine's pair; print the line for CLIENT in access.conf
""",
)
_KEY_FILE: Final = Row("--client-key=FILE", "this file, not ~/.config/doorward/client.key", profile.path, "file")
SHOW: Final = Command(
    "doorward keys show",
    {"options": (_KEY_FILE, _HELP)},
    about="Print the public half of this machine's key pair of the format doorward 1: CLIENT in access.conf has it.\n",
)
FINGERPRINT: Final = Command(
    "doorward keys fingerprint",
    {"options": (_KEY_FILE, _HELP)},
    (Row("KEY", "", str, "keys", repeats="any"),),
    "[options] [doorward1 BASE64]",
    """\
Print a public key's fingerprint, to be read over a phone: of this machine's key pair, or of the key that is named.
The other side's `doorwardd keys fingerprint` and `doorwardd check --report` print the same.
""",
)
PIN: Final = Command(
    "doorward keys pin",
    {
        "options": (
            Row("-F --ssh-config=FILE", "read FILE, not ~/.ssh/config", profile.path),
            Row("--force", "replace another key that this host has in the file"),
            _HELP,
        )
    },
    (Row("HOST", "", profile.destination, "destination"),),
    "[options] [USER@]HOST",
    """\
Fetch a host's public key over ssh, show its fingerprint, and keep it in ~/.config/doorward/known_hosts: knocks at this
host then need no HOST_KEY in ~/.fwknoprc. One that is there counts instead. The user needs no root on the host.
The key is as good as ssh's own check of the host, so ssh must know the host already.
""",
    """\
examples:
  doorward keys pin web1                        the name behind ssh; ssh_config says what it stands for

A host that shows another key than before is refused, with the line that has the old one.
exit codes: 0 done, 1 nothing was changed (the reason is on standard error), 2 usage, 3 mistake in a file
""",
)
OTP: Final = Command(
    "doorward keys otp",
    {"options": (Row("--comment=NAME", "the name that the app shows (USER@MACHINE)", check_name), _HELP)},
    about="""\
Make a secret for one-time codes (RFC 6238), and print it once: as the line for the client's stanza in access.conf, and
as a URI and a QR code for an authenticator app. It is written nowhere.
""",
    examples="""\
examples:
  doorward keys otp --comment alice@web1        scan the code; put the line into the host's access.conf
  doorward knock -n web1 --otp 492039           ONE_TIME_CODE ask in ~/.fwknoprc asks for the code
""",
)
KEYS: Final = {"generate": GENERATE, "show": SHOW, "fingerprint": FINGERPRINT, "pin": PIN, "otp": OTP}
COMMANDS: Final = {
    "knock": KNOCK,
    "connect": CONNECT,
    "doctor": DOCTOR,
    "learn": LEARN,
    "import": IMPORT,
    "keys": GENERATE,
    "ssh-config": SSH_CONFIG,
    "forward": FORWARD,
    "mosh": MOSH,
}
RC_ROWS: Final = {name: row for row in reversed(KNOCK.rows) for name in row.rc.split()}
