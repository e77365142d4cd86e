"""Root's commands on a host: status, who, open, close, firewall. They talk to the kernel, not to doorwardd."""

from __future__ import annotations

import argparse
import ipaddress
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from doorward.commands.journal import Moment
from doorward.errors import FirewallError, WireError
from doorward.firewall import closed_by_hand, ruleset
from doorward.host import sshd
from doorward.host.change import add_change
from doorward.host.firewall import NOTHING, add_firewall
from doorward.host.here import Host, add_json, duration, packet_filter, runs
from doorward.host.init import add_init
from doorward.host.status import EPILOG, report
from doorward.host.who import add_who
from doorward.linux import sessions
from doorward.values import Grant, Protocol, Service, refuse_nobody

if TYPE_CHECKING:
    from doorward.firewall.nftables import Nftables
    from doorward.values import IPAddress


_EXAMPLES: Final = """\
examples:
  doorward open --for 15m                        ssh, for everybody: the way back in from the console
  doorward open tcp/22 --from 192.0.2.7 --for 1h
  doorward close --from 192.0.2.7
  doorward close --from 192.0.2.7 --sessions      and end this address's connections
"""


def add_commands(
    subparsers: argparse._SubParsersAction[Any],
    host: Host | None = None,
) -> None:
    """Add the host's commands; each sets `run`, which returns the exit code."""
    here = host or Host()
    add_init(subparsers, here)
    status = subparsers.add_parser(
        "status",
        help="as root on a host: the open grants, and the firewall; else: who am I, for which hosts have I keys",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json(status)
    status.add_argument("--me", action="store_true", help="about this user, as it is without root (client.md)")
    runs(status, here, report)
    add_who(subparsers, here)
    _add_open(subparsers, here)
    _add_close(subparsers, here)
    firewall = subparsers.add_parser("firewall", help="on a host: the table that keeps it closed")
    add_firewall(firewall.add_subparsers(metavar="COMMAND", required=True), here)
    change = subparsers.add_parser("change", help="on a host: new files of doorwardd, kept once a way in is proven")
    add_change(change.add_subparsers(metavar="COMMAND", required=True), here)


def address(text: str) -> IPAddress:
    """An address that a grant can have."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        msg = f"{text[:60]!r} is not an IPv4 or IPv6 address"
        raise argparse.ArgumentTypeError(msg) from None
    if parsed.is_unspecified:
        msg = f"{text} is the unspecified address; leave out --from to mean everybody"
        raise argparse.ArgumentTypeError(msg)
    try:
        refuse_nobody(parsed)
    except WireError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return parsed


def service(text: str) -> Service:
    """The service that `tcp/22` names."""
    try:
        return Service.parse(text)
    except WireError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_open(subparsers: argparse._SubParsersAction[Any], host: Host) -> None:
    """Add `open`."""
    parser = subparsers.add_parser(
        "open",
        help="on a host: open services manually",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("services", nargs="*", type=service, metavar="SERVICE", help="tcp/22; default: sshd's ports")
    parser.add_argument("--from", dest="source", type=address, metavar="ADDR", help="for this address; default: all")
    parser.add_argument("--for", dest="seconds", type=duration, required=True, metavar="TIME", help="90s, 15m, 1h")
    runs(parser, host, _open)


def _open(host: Host, arguments: argparse.Namespace) -> str:
    """Open services manually for one address, or for everybody."""
    settings = host.settings_or_defaults(arguments)
    services = tuple(arguments.services) or _ssh()
    with closing(packet_filter(settings)) as firewall:
        _open_in(firewall, arguments.source, services, arguments.seconds)
    return f"open to {arguments.source or 'everybody'} for {arguments.seconds} s: {' '.join(map(str, services))}"


def _open_in(firewall: Nftables, source: IPAddress | None, services: tuple[Service, ...], seconds: int) -> None:
    """Add services to the sets of the table."""
    table = firewall.table()
    if table is None or not table.serves_grants:
        msg = f"there is no table {ruleset.TABLE} to open: doorward keeps nothing closed here"
        raise FirewallError(msg)
    if source is not None:
        firewall.open(Grant(source, services, seconds))
    elif ruleset.ANYONE_SET in table.sets:
        firewall.open_anyone(services, seconds)
    else:
        msg = f"this table has no set {ruleset.ANYONE_SET} to open for everybody: name an address with --from"
        raise FirewallError(msg)


def _ssh() -> tuple[Service, ...]:
    """The ports of sshd: the way back in does not depend on our configuration."""
    ports = sshd.ports()
    if not ports:
        msg = "no sshd is found on this host: say which service, for example tcp/22"
        raise FirewallError(msg)
    return tuple(Service(Protocol.TCP, port) for port in ports)


def _add_close(subparsers: argparse._SubParsersAction[Any], host: Host) -> None:
    """Add `close`."""
    words = "on a host: close grants now, and end UDP flows; established TCP connections live on without --sessions"
    parser = subparsers.add_parser("close", help=words)
    parser.add_argument("--from", dest="source", type=address, metavar="ADDR", help="only those of this address")
    parser.add_argument(
        "--sessions",
        nargs="*",
        type=service,
        metavar="SERVICE",
        help="also end TCP connections; with services (tcp/22) end connections and flows of these alone",
    )
    runs(parser, host, _close)


def _close(host: Host, arguments: argparse.Namespace) -> str:
    """Close the grants of one address, or all, then end their flows, so that none begins in between."""
    closed = _close_grants(host, arguments)
    try:
        count = _end_sessions(host, arguments)
    except FirewallError as error:
        msg = f"{closed}, but {error}"
        raise FirewallError(msg) from error
    return f"{closed}; ended: {count}" if count else closed


def _end_sessions(host: Host, arguments: argparse.Namespace) -> int:
    """End UDP flows, and TCP connections with --sessions; return the number that connection tracking knew."""
    services = arguments.sessions or ()
    protocols = (Protocol.UDP,) if arguments.sessions is None else tuple(Protocol)
    flows = sessions.flows(arguments.source, services, protocols)
    with closing(packet_filter(host.settings_or_defaults(arguments))) as firewall:
        firewall.keep_ended({flow.ours for flow in flows if flow.protocol is Protocol.UDP})
    try:
        if Protocol.TCP in protocols:
            sessions.end_sockets(arguments.source, services)
    finally:
        count = sessions.end(flows)
    return count


def _close_grants(host: Host, arguments: argparse.Namespace) -> str:
    """Close the grants of one address, or all; recorded first, so that a reloaded table does not open them again."""
    settings = host.settings_or_defaults(arguments)
    try:
        closed_by_hand.record(settings.run_folder, arguments.source, time.monotonic())
        if settings.exec_folder.is_dir():  # doorward-exec runs its close commands, within a second
            closed_by_hand.record(settings.exec_folder, arguments.source, Moment.now().steady)
    except OSError as error:
        msg = f"{settings.run_folder}: {error.strerror}"
        raise FirewallError(msg) from error
    with closing(packet_filter(settings)) as firewall:
        if firewall.table() is None:
            return f"nothing to close: {NOTHING}"
        if arguments.source is None:
            firewall.flush()
            return "all grants are closed"
        return f"closed {firewall.withdraw(arguments.source)} of {arguments.source}"
