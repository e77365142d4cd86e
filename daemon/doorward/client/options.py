"""The options of `doorward knock` (fwknop's), `connect`, `keys` and `ssh-config`; nothing here does anything."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from doorward.client.fwknop_options import KEY_BYTES_MIN, OPTIONS, Group, Option
from doorward.config import convert
from doorward.config import profile as read
from doorward.config.profile import Carrier, Profile, SourceRule
from doorward.crypto.keys import HMAC_KEY_BYTES, KEY_BYTES
from doorward.errors import DoorwardError
from doorward.values import HMAC_KEY_MAX, KEY_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_DEFAULT: Final = 10.0
_TIMEOUT_MAX: Final = 3600.0

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
  doorward -A tcp/22 -N 10.0.0.5:22 --nat-port 2222 -D gw
                                                lead gw's port 2222 to the inner host's port 22
  doorward -A tcp/22 -R -D web1 --gpg-recipient-key HOST --gpg-signer-key ME

The source that is to be let in is, without -a or -s, this machine's own address towards the host; where that is
private and the host's is public it is the address that the packet arrives from (-s).

exit codes: 0 sent, 1 not sent, 2 usage, 3 mistake in a configuration file, 4 root is needed
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

The stanza is that of -n, else the one named like HOST or with HOST as its SPA_SERVER, else [default].
exit codes: 0 connected, 1 not connected (the reason is on standard error), 2 usage, 3 mistake in a configuration file
"""
KEYS_EXAMPLES: Final = """\
examples:
  doorward keys generate                        print the two lines for access.conf and for ~/.fwknoprc
  doorward keys generate --output web1.key      into a new file of mode 0600
"""


def add_knock(parser: argparse.ArgumentParser) -> None:
    """Add fwknop's options and ours; the words to parse come from spelling.read()."""
    _describe(parser, KNOCK_HELP, KNOCK_EXAMPLES)
    for group in Group:
        section = parser.add_argument_group(group.value)
        for option in OPTIONS:
            if option.group is group and option.name != "--version":
                _add(section, option)


def _add(section: argparse._ArgumentGroup, option: Option) -> None:
    """Add one option of the table."""
    dest = option.field or option.name.lstrip("-").replace("-", "_")
    if option.count:
        section.add_argument(*option.names, dest=dest, action="count", help=option.help)
    elif option.metavar is None:
        section.add_argument(*option.names, dest=dest, action="store_const", const=option.const, help=option.help)
    else:
        action = _Joined if option.field in {"resolve_urls", "resolve_dns"} else "store"
        kind = _typed(option.read) if option.read is not None else str
        section.add_argument(
            *option.names, dest=dest, metavar=option.metavar, type=kind, action=action, help=option.help
        )


class _Joined(argparse.Action):
    """Puts the values of an option that is given several times behind one another."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401  argparse
        option_string: str | None = None,
    ) -> None:
        """Append."""
        del parser, option_string
        setattr(namespace, self.dest, (*(getattr(namespace, self.dest) or ()), *values))


def add_connect(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doorward connect`."""
    _describe(parser, CONNECT_HELP, CONNECT_EXAMPLES)
    add_route(parser)
    add = parser.add_argument
    add("--timeout", dest="seconds", metavar="SECONDS", type=_typed(_seconds), default=TIMEOUT_DEFAULT)
    add("--status", metavar="FILE", type=_typed(read.path), help="write the reason of a failure to FILE")
    add("-v", "--verbose", action="count", help="say what is done, on standard error")
    add("host", metavar="HOST", type=_typed(read.server))
    add("dial_port", metavar="PORT", type=_typed(convert.port))


def add_route(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to knock for a connection."""
    add = parser.add_argument
    add("--rc-file", metavar="FILE", type=_typed(read.path), help="read FILE, not ~/.fwknoprc")
    add("-n", "--named-config", dest="stanza", metavar="STANZA", help="the stanza of the file to use")
    add("--spa-server", dest="server", metavar="HOST", type=_typed(read.server), help="knock here, not at HOST")
    add("--spa-port", dest="port", metavar="PORT", type=_typed(convert.port), help="the UDP port to knock at (62201)")
    add("--service", dest="access", metavar="SERVICE", type=_typed(convert.services), help="ask for this, not tcp/PORT")
    add("--source", metavar="auto|packet|ADDR", type=_typed(read.source_rule), help="who is to be let in (auto)")


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
    parser.add_argument("--output", metavar="FILE", type=_typed(read.path), help="a new file, mode 0600")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def _add_lengths(parser: argparse.ArgumentParser, key: str, hmac_key: str) -> None:
    key_bytes = _typed(convert.number(KEY_BYTES_MIN, KEY_MAX))
    hmac_bytes = _typed(convert.number(KEY_BYTES_MIN, HMAC_KEY_MAX))
    parser.add_argument(key, dest="key_len", metavar="BYTES", type=key_bytes, default=KEY_BYTES)
    parser.add_argument(hmac_key, dest="hmac_key_len", metavar="BYTES", type=hmac_bytes, default=HMAC_KEY_BYTES)


def profile(arguments: argparse.Namespace) -> Profile:
    """Return what a command line says, as a profile to lay over the file's; options that imply others do so here."""
    said = Profile(**{field.name: getattr(arguments, field.name, None) for field in fields(Profile)})
    asks_outside = getattr(arguments, "resolve", None) or said.resolve_urls or said.resolve_dns
    if said.source is None and (asks_outside or said.resolve_http_only):
        said = replace(said, source=SourceRule.RESOLVE)
    if said.carrier is None and said.http_proxy is not None:
        said = replace(said, carrier=Carrier.HTTP)
    if said.use_hmac is None and (said.hmac_key or said.hmac_key_file or said.hmac_digest):
        said = replace(said, use_hmac=True)
    if any((said.gpg_recipient, said.gpg_signer, said.gpg_home, said.gpg_exe, said.gpg_agent, said.gpg_no_password)):
        said = replace(said, use_gpg=True)
    return said


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


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _TIMEOUT_MAX:
        msg = f"{text[:20]!r} is not a number of seconds up to {_TIMEOUT_MAX:g}"
        raise ValueError(msg)
    return seconds
