"""The options of `doorward knock` (fwknop's), `connect`, `keys` and `ssh-config`; nothing here does anything."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NoReturn

from doorward.config import convert, fwknoprc
from doorward.config.fwknoprc import Profile, SourceRule
from doorward.crypto.keys import HMAC_KEY_BYTES, KEY_BYTES
from doorward.errors import DoorwardError
from doorward.values import HMAC_KEY_MAX, KEY_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMEOUT_DEFAULT: Final = 10.0
_TIMEOUT_MAX: Final = 3600.0
_KEY_BYTES_MIN: Final = 16  # a shorter random key is no key any more

KNOCK_HELP: Final = """\
Ask a host to open services for a while: one encrypted packet, no answer.
The options are fwknop's; ~/.fwknoprc is read as fwknop reads it: [default], then the stanza of -n, then these options.
"""
KNOCK_EXAMPLES: Final = """\
examples:
  doorward -n web1                              all from the stanza [web1] of ~/.fwknoprc
  doorward -A tcp/22 -D web1.example.org        the key from [default], or asked for
  doorward -A tcp/22,tcp/443 -D 192.0.2.7 -f 60 -a 198.51.100.4
  doorward -A tcp/22 -D web1 --test -v          show the packet, send nothing

The source that is to be let in is, without -a or -s, this machine's own address towards the host; where that is
private and the host's is public it is the address that the packet arrives from (-s).

exit codes: 0 sent, 1 not sent, 2 usage, 3 mistake in a configuration file
"""
CONNECT_HELP: Final = """\
Knock, connect, and hand the connection over: the ProxyCommand for ssh. With ProxyUseFdpass ssh takes the open
connection itself; otherwise standard input and output are connected to it.
A host without a key in the file is dialled without a knock.
"""
CONNECT_EXAMPLES: Final = """\
examples:
  ssh -o ProxyUseFdpass=yes -o 'ProxyCommand=doorward connect %h %p' web1.example.org
  doorward connect --spa-server gw.example.org --service tcp/2201 gw.example.org 2201
  doorward ssh-config '*.example.org' >> ~/.ssh/config

The stanza is that of -n, else the one named like HOST, else [default].
exit codes: 0 connected, 1 not connected (the reason is on standard error), 2 usage, 3 mistake in a configuration file
"""
KEYS_EXAMPLES: Final = """\
examples:
  doorward keys generate                        print the two lines for access.conf and for ~/.fwknoprc
  doorward keys generate --output web1.key      into a new file of mode 0600
"""

_NOT_SERVED: Final[tuple[tuple[int, tuple[str, ...]], ...]] = (
    (1, ("-C", "--server-cmd")),
    (0, ("-R", "--resolve-ip-http", "--resolve-ip-https")),
    (1, ("--resolve-url",)),
    (0, ("--resolve-http-only",)),
    (1, ("-w", "--wget-cmd")),
    (1, ("-u", "--user-agent")),
    (0, ("--use-wget-user-agent",)),
    (0, ("-r", "--rand-port")),
    (1, ("-H", "--http-proxy")),
    (1, ("--icmp-type",)),
    (1, ("--icmp-code",)),
    (1, ("-Q", "--spoof-source", "--spoof-src")),
    (1, ("-N", "--nat-access")),
    (0, ("--nat-local",)),
    (1, ("--nat-port",)),
    (0, ("--nat-rand-port",)),
    (0, ("--stdin",)),
    (1, ("--fd",)),
    (0, ("-g", "--gpg-encryption")),
    (1, ("--gpg-recipient-key",)),
    (1, ("--gpg-signer-key",)),
    (1, ("--gpg-home-dir",)),
    (1, ("--gpg-exe",)),
    (0, ("--gpg-agent",)),
    (0, ("--gpg-no-signing-pw",)),
    (0, ("-b", "--save-packet-append")),
    (1, ("-B", "--save-packet")),
    (1, ("-E", "--save-args-file")),
    (0, ("-l", "--last-cmd")),
    (0, ("--show-last",)),
    (0, ("--save-rc-stanza",)),
    (0, ("--force-stanza",)),
)


def add_knock(parser: argparse.ArgumentParser) -> None:
    """Add fwknop's options."""
    _describe(parser, KNOCK_HELP, KNOCK_EXAMPLES)
    _add_what_and_where(parser)
    _add_keys(parser)
    _add_modes(parser)
    for number, names in _NOT_SERVED:
        parser.add_argument(*names, nargs=number, action=_NotServed, help=argparse.SUPPRESS)


def _add_what_and_where(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-A", "--access", metavar="SERVICES", type=_typed(convert.services), help="what to open: tcp/22,udp/53")
    add("-D", "--destination", dest="server", metavar="HOST", type=_typed(fwknoprc.server), help="where to knock")
    add("-p", "--server-port", dest="port", metavar="PORT", type=_typed(convert.port), help="its UDP port (62201)")
    add("-P", "--server-proto", metavar="PROTO", choices=["udp"], help="udp, the only transport so far")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "-a", "--allow-ip", dest="source", metavar="ADDR", type=_typed(fwknoprc.source_rule), help="who is to be let in"
    )
    source.add_argument(
        "-s",
        "--source-ip",
        dest="source",
        action="store_const",
        const=SourceRule.PACKET,
        help="let in whatever address the packet arrives from",
    )
    add("-S", "--source-port", metavar="PORT", type=_typed(convert.port), help="send from this port")
    family = parser.add_mutually_exclusive_group()
    family.add_argument(
        "-4", "--server-resolve-ipv4", dest="ipv4_only", action="store_true", default=None, help="IPv4 only"
    )
    family.add_argument("-6", dest="ipv6_only", action="store_true", help="IPv6 only")
    add("-f", "--fw-timeout", dest="timeout", metavar="SECONDS", type=_typed(fwknoprc.window), help="how long to open")
    add("-U", "--spoof-user", dest="user", metavar="NAME", type=_typed(fwknoprc.user), help="the user to name")


def _add_keys(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-n", "--named-config", dest="stanza", metavar="STANZA", help="the stanza of the file to use")
    add("--rc-file", metavar="FILE", type=_typed(fwknoprc.path), help="read FILE, not ~/.fwknoprc")
    add("--no-rc-file", action="store_true", help="read no file")
    add("--stanza-list", action="store_true", help="print the names of the file's stanzas")
    add("-G", "--get-key", dest="key_file", metavar="FILE", type=_typed(fwknoprc.path), help="lines of HOST: KEY")
    add(
        "--get-hmac-key", dest="hmac_key_file", metavar="FILE", type=_typed(fwknoprc.path), help="the same for the HMAC"
    )
    add("--use-hmac", action="store_true", default=None, help="add an HMAC, and ask for its key if there is none")
    for name, dest, read in (
        ("--key-rijndael", "key", fwknoprc.encryption_key_text),
        ("--key-base64-rijndael", "key", fwknoprc.encryption_key_base64),
        ("--key-hmac", "hmac_key", fwknoprc.hmac_key_text),
        ("--key-base64-hmac", "hmac_key", fwknoprc.hmac_key_base64),
    ):
        add(name, dest=dest, metavar="KEY", type=_typed(read), help="a key, for all users of this machine to see")
    add("-k", "--key-gen", action="store_true", help="print new keys (doorward keys generate)")
    add("-K", "--key-gen-file", metavar="FILE", type=_typed(fwknoprc.path), help="write new keys to a new file")
    _add_lengths(parser, "--key-len", "--hmac-key-len")


def _add_modes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", "--digest-type", dest="digest", metavar="HASH", type=_typed(convert.digest_type), help="inside (sha256)")
    add("--hmac-digest-type", dest="hmac_digest", metavar="HASH", type=_typed(convert.digest_type), help="of the HMAC")
    add("-M", "--encryption-mode", dest="mode", metavar="MODE", type=_typed(convert.encryption_mode), help="cbc")
    add(
        "--time-offset-plus", dest="time_offset", metavar="TIME", type=_typed(_offset), help="the host's clock is ahead"
    )
    add("--time-offset-minus", dest="time_offset", metavar="TIME", type=_typed(_minus), help="it is behind: 30, 5m, 2h")
    add("-T", "--test", action="store_true", help="make the packet, show it, send nothing")
    add("-v", "--verbose", action="count", help="show the packet that is sent")
    for name in ("--no-save-args", "--no-home-dir"):  # nothing is saved; scripts made for fwknop say so anyway
        add(name, action="store_true", help=argparse.SUPPRESS)


def add_connect(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doorward connect`."""
    _describe(parser, CONNECT_HELP, CONNECT_EXAMPLES)
    add_route(parser)
    add = parser.add_argument
    add("--timeout", dest="seconds", metavar="SECONDS", type=_typed(_seconds), default=TIMEOUT_DEFAULT)
    add("--status", metavar="FILE", type=_typed(fwknoprc.path), help="write the reason of a failure to FILE")
    add("-v", "--verbose", action="count", help="say what is done, on standard error")
    add("host", metavar="HOST", type=_typed(fwknoprc.server))
    add("dial_port", metavar="PORT", type=_typed(convert.port))


def add_route(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to knock for a connection."""
    add = parser.add_argument
    add("--rc-file", metavar="FILE", type=_typed(fwknoprc.path), help="read FILE, not ~/.fwknoprc")
    add("-n", "--named-config", dest="stanza", metavar="STANZA", help="the stanza of the file to use")
    add("--spa-server", dest="server", metavar="HOST", type=_typed(fwknoprc.server), help="knock here, not at HOST")
    add("--spa-port", dest="port", metavar="PORT", type=_typed(convert.port), help="the UDP port to knock at (62201)")
    add("--service", dest="access", metavar="SERVICE", type=_typed(convert.services), help="ask for this, not tcp/PORT")
    add("--source", metavar="auto|packet|ADDR", type=_typed(fwknoprc.source_rule), help="who is to be let in (auto)")


def route_words(arguments: argparse.Namespace) -> list[str]:
    """Return the options of add_route() that were given, as words of a command line."""
    said = {
        "--rc-file": arguments.rc_file.absolute() if arguments.rc_file else None,  # ssh runs it from anywhere
        "-n": arguments.stanza,
        "--spa-server": arguments.server,
        "--spa-port": arguments.port,
        "--service": ",".join(map(str, arguments.access)) if arguments.access else None,
        "--source": getattr(arguments.source, "value", arguments.source),
    }
    return [word for option, value in said.items() if value is not None for word in (option, str(value))]


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doorward keys generate`."""
    _describe(parser, "Make a new pair of keys.", KEYS_EXAMPLES)
    _add_lengths(parser, "--length", "--hmac-length")
    parser.add_argument("--output", metavar="FILE", type=_typed(fwknoprc.path), help="a new file, mode 0600")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def _add_lengths(parser: argparse.ArgumentParser, key: str, hmac_key: str) -> None:
    key_bytes = _typed(convert.number(_KEY_BYTES_MIN, KEY_MAX))
    hmac_bytes = _typed(convert.number(_KEY_BYTES_MIN, HMAC_KEY_MAX))
    parser.add_argument(key, dest="key_len", metavar="BYTES", type=key_bytes, default=KEY_BYTES)
    parser.add_argument(hmac_key, dest="hmac_key_len", metavar="BYTES", type=hmac_bytes, default=HMAC_KEY_BYTES)


def profile(arguments: argparse.Namespace) -> Profile:
    """Return what a command line says, as a profile to lay over the file's."""
    return Profile(**{field.name: getattr(arguments, field.name, None) for field in fields(Profile)})


def _describe(parser: argparse.ArgumentParser, description: str, epilog: str) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = description, epilog


def _typed(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a converter whose complaint argparse prints as it is; its own would repeat the text, maybe a key."""

    def converter(text: str) -> Any:  # noqa: ANN401  argparse puts any type into a namespace
        try:
            return read(text)
        except (ValueError, DoorwardError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converter


def _offset(text: str) -> int:
    return fwknoprc.time_offset(text.removeprefix("-"))


def _minus(text: str) -> int:
    return -_offset(text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _TIMEOUT_MAX:
        msg = f"{text[:20]!r} is not a number of seconds up to {_TIMEOUT_MAX:g}"
        raise ValueError(msg)
    return seconds


class _NotServed(argparse.Action):
    """An option of fwknop's that would be dangerous to ignore."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        """End with the usage error that names the option."""
        del namespace, values
        parser.error(f"{option_string} is an option of fwknop's that this version does not serve")
