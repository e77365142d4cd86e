"""`doorward init`: a host's first client, a knock that is seen to work, and only then a closed port.

The files are written so that doorwardd records grants and closes nothing. The client's half of the keys is printed. A
grant for an address of another machine proves that a knock arrives, under the right key and a right clock. Then the
port is closed under the dead man's switch of `doorward firewall`: it stays closed only if somebody confirms this from a
new session, which has to come in through the closed port. Whatever fails before is taken back.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward import qr_code
from doorward.config import access, convert, half
from doorward.config.files import Disk
from doorward.config.half import Half
from doorward.crypto.keys import HMAC_KEY_BYTES, KEY_BYTES
from doorward.errors import ClientError, DoorwardError, FirewallError
from doorward.firewall import deadman, ruleset
from doorward.firewall.deadman import SystemdTimer
from doorward.firewall.kernel import is_there
from doorward.firewall.libnftables import Libnftables
from doorward.firewall.needs import Needs
from doorward.firewall.wanted import mark_of
from doorward.host import service
from doorward.host.here import deadline, duration, packet_filter, runs
from doorward.host.running import holder
from doorward.linux.files import create, replace_file
from doorward.processes.configuration import Configuration
from doorward.processes.options import absolute
from doorward.values import Secret

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

    from doorward.config.settings import DaemonSettings
    from doorward.host.here import Host
    from doorward.values import IPAddress, LiveGrant

_LOOK_EVERY: Final = 0.2  # seconds
_NOWHERE: Final = ("192.0.2.1", 9)  # RFC 5737: the way out, to which nothing is sent
_OBSERVE: Final = b"\n# Of `doorward init`, until it has ended.\nFIREWALL_MODE observe;\n"
_STANZA: Final = """\
# Written by `doorward init`: who may open what.
SOURCE                  ANY
NAME                    {client}
KEY_BASE64              {key}
HMAC_KEY_BASE64         {hmac_key}
OPEN_PORTS              {services}
REQUIRE_SOURCE_ADDRESS  Y
"""
_WARNING: Final = "The client's half of the keys, on one line. It is secret: whoever has it can open this host."
_EPILOG: Final = """\
Nothing that exists is overwritten: a host that has an access.conf, a table or a running doorwardd is left alone. What
fails, or is interrupted, is taken back. Keep this session open until the end.

examples:
  doorward init --client laptop
  doorward init --client phone --qr --address web1.example.org --open tcp/22,tcp/443
"""


class _Plan(NamedTuple):
    """What is to be done: the files, the client's name, and its half."""

    settings_file: Path
    access_file: Path
    client: str
    half: Half


def add_init(subparsers: argparse._SubParsersAction[Any], host: Host) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "init",
        help="on a host: keys for a first client, and a closed port once its knock works",
        description=__doc__.partition("\n\n")[2] if __doc__ else None,
        epilog=_EPILOG,
        formatter_class=_raw(),
    )
    add = parser.add_argument
    add("--client", metavar="NAME", default="laptop", help="the stanza's NAME: who the client is (laptop)")
    add("--name", type=_section, metavar="NAME", help="what the client calls this host (its host name)")
    add("--address", type=_server, metavar="HOST", help="where the client knocks (the address of this SSH session)")
    add("--open", dest="services", type=convert.services, metavar="SERVICES", help="what it may open (tcp/22)")
    add("--wait", type=duration, default=600, metavar="TIME", help="how long to wait for its knock (10m)")
    add("--deadline", type=deadline, default=300, metavar="TIME", help="how long to wait for the confirmation (5m)")
    add("--output", type=absolute, metavar="FILE", help="write the client's half to a new file too, mode 0600")
    add("--qr", action="store_true", help="show it as a QR code too, for the app Fwknop2 (needs doorward[qr])")
    runs(parser, host, _init)


def _raw() -> Any:  # noqa: ANN401  argparse's type of formatters has no public name
    import argparse  # noqa: PLC0415  the parser's owner has loaded it

    return argparse.RawDescriptionHelpFormatter


def _section(text: str) -> str:
    return half.section(text)


def _server(text: str) -> str:
    return half.server(text)


def _init(host: Host, arguments: argparse.Namespace) -> str:
    """Carry out the plan, or take it back."""
    qr = _qr_maker() if arguments.qr else None
    plan = _plan(host, arguments)
    options = [*(("-c", str(plan.settings_file)) if arguments.config_file else ())]
    options += [*(("-a", str(plan.access_file)) if arguments.access_file else ())]
    options += [*(("-r", str(arguments.run_dir)) if arguments.run_dir else ())]
    with ExitStack() as undone:
        undo = _undo(undone)
        _write(plan, undo)
        undo(f"table {ruleset.TABLE} is removed", lambda: Libnftables().run(ruleset.REMOVE))
        settings = host.settings(arguments)
        daemon: service.Service = (
            service.Systemd(options)
            if isinstance(host.timer, SystemdTimer) and Path("/run/systemd/system").is_dir()
            else service.Manual(options, lambda: settings)
        )
        _say(f"{plan.client} may open {_services(plan)}. Nothing is closed yet.\n{daemon.start(undo)}")
        _show(plan, arguments.output, undo, qr)
        _say(f"There: `doorward import -`, then `doorward knock -n {plan.half.section}`. Waiting for that knock.")
        source = _awaited(settings, plan.client, arguments.wait)
        _say(f"{plan.client} has knocked: {_services(plan)} was granted to {source}.")
        _close(host, settings, plan, arguments.deadline, undo)
        undone.pop_all()
    _finish(settings, plan, daemon)
    return f"confirmed: {_services(plan)} of this host opens to those who knock, and to nobody else"


def _undo(stack: ExitStack) -> Callable[[str, Callable[[], object]], object]:
    """The call that keeps a step to be taken back; each says so, and one that fails keeps none of the others."""

    def keep(words: str, call: Callable[[], object]) -> None:
        def take_back() -> None:
            try:
                call()
            except (DoorwardError, OSError) as error:
                _say(f"NOT taken back ({words}): {error}")
            else:
                _say(f"taken back: {words}")

        stack.callback(take_back)

    return keep


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _services(plan: _Plan) -> str:
    return ",".join(map(str, plan.half.access))


def _plan(host: Host, arguments: argparse.Namespace) -> _Plan:
    """The plan, once nothing speaks against it.

    Raises:
        FirewallError: this is no new host.
        ClientError: a name cannot be used.
        ConfigError: its settings have mistakes.
    """
    settings_file = arguments.config_file or host.configuration
    access_file = arguments.access_file or settings_file.parent / "access.conf"
    settings = host.settings(_without_missing(arguments))
    output = () if arguments.output is None else (arguments.output,)
    for file in (access_file, settings.firewall_file, mark_of(settings.firewall_file), *output):
        if os.path.lexists(file):
            msg = f"{file} exists: init is for a new host, and overwrites nothing"
            raise FirewallError(msg)
    if holder(settings.pid_file) is not None:
        msg = "a doorwardd is running: init is for a new host"
        raise FirewallError(msg)
    if is_there():
        msg = f"there is a table {ruleset.TABLE}: init is for a new host; `doorward firewall stop` removes the table"
        raise FirewallError(msg)
    services = arguments.services or convert.services(_asked("Services to open", "tcp/22"))
    server = arguments.address or half.server(_asked("Address at which clients knock", _own_address()))
    name = arguments.name or _host_name()
    keys = Secret(os.urandom(KEY_BYTES)), Secret(os.urandom(HMAC_KEY_BYTES))
    return _Plan(settings_file, access_file, _client(arguments.client), Half(name, server, services, *keys))


def _without_missing(arguments: argparse.Namespace) -> argparse.Namespace:
    """The options without a settings file that is still to be written."""
    if arguments.config_file is not None and not arguments.config_file.exists():
        return type(arguments)(**{**vars(arguments), "config_file": None})
    return arguments


def _client(text: str) -> str:
    """The NAME of a stanza; access.conf has the same rule."""
    try:
        return half.section(text)
    except ValueError:
        msg = f"--client {text[:40]!r}: a name has letters, digits, '.', '_' and '-'"
        raise ClientError(msg) from None


def _asked(what: str, default: str) -> str:
    """The answer of a person at the terminal, or the default."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return default
    sys.stdout.write(f"{what} [{default}]: ")
    sys.stdout.flush()
    return sys.stdin.readline().strip() or default


def _own_address() -> str:
    """The address at which this SSH session reached the host, or that of its way out."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    with contextlib.suppress(ValueError, IndexError):
        return str(ipaddress.ip_address(words[2].partition("%")[0]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_NOWHERE)
        except OSError as error:
            msg = "this host has no way out, so its address is unknown: name it with --address"
            raise FirewallError(msg) from error
        return str(probe.getsockname()[0])


def _host_name() -> str:
    with contextlib.suppress(ValueError):
        return half.section(socket.gethostname().partition(".")[0])
    return "host"


def _write(plan: _Plan, undo: Callable[[str, Callable[[], object]], object]) -> None:
    """Write access.conf, and have doorwardd close nothing.

    Raises:
        FirewallError: a file cannot be written, or the settings are not those of a new host.
        ConfigError: the settings, or the stanza, are wrong.
    """
    try:
        folder = plan.access_file.parent
        if not folder.is_dir():
            folder.mkdir(mode=0o755, parents=True)
            undo(f"{folder} is removed", folder.rmdir)
        create(plan.access_file, stanza(plan.client, plan.half).encode())
        undo(f"{plan.access_file} is removed", plan.access_file.unlink)
        _observe(plan.settings_file, undo)
    except OSError as error:
        msg = f"{error.filename or plan.access_file}: {error.strerror}"
        raise FirewallError(msg) from error


def stanza(client: str, made: Half) -> str:
    """The text of access.conf with a client's stanza."""
    words = dict(word.split(":", 1) for word in made.line.split())
    return _STANZA.format(
        client=client, key=words["KEY_BASE64"], hmac_key=words["HMAC_KEY_BASE64"], services=words["ACCESS"]
    )


def _observe(file: Path, undo: Callable[[str, Callable[[], object]], object]) -> None:
    """Add FIREWALL_MODE observe to the settings, for as long as init runs."""
    before = file.read_bytes() if file.exists() else None
    if before is None:
        create(file, _OBSERVE.lstrip())
        file.chmod(0o644)
    else:
        if any(line.split()[:1] in ([b"FIREWALL_MODE"], [b"FIREWALL_MODE:"]) for line in before.splitlines()):
            msg = f"{file} has FIREWALL_MODE: init is for a new host, and changes no setting"
            raise FirewallError(msg)
        mode = file.stat().st_mode & 0o777
        replace_file(file, before + _OBSERVE)
        file.chmod(mode)
    undo(f"{file} is as it was", lambda: _restore(file))


def _restore(file: Path) -> None:
    """Take our lines out of the settings; a file of nothing else goes."""
    content = file.read_bytes()
    if content == _OBSERVE.lstrip():
        file.unlink()
        return
    mode = file.stat().st_mode & 0o777
    replace_file(file, content.replace(_OBSERVE, b""))
    file.chmod(mode)


def _show(
    plan: _Plan,
    output: Path | None,
    undo: Callable[[str, Callable[[], object]], object],
    qr: Callable[[str], None] | None,
) -> None:
    """Print the client's half, and write it where that is asked for."""
    _say(f"\n{_WARNING}\n\n{plan.half.line}\n")
    if output is not None:
        try:
            create(output, plan.half.file.encode())
        except OSError as error:
            msg = f"{output}: {error.strerror}; nothing that exists is overwritten"
            raise FirewallError(msg) from error
        undo(f"{output} is removed", output.unlink)
        _say(f"The same is in {output}. Remove it once the client has it.")
    if qr is not None:
        qr(plan.half.line)


def _qr_maker() -> Callable[[str], None]:
    """The call that shows a text as a QR code.

    Raises:
        ClientError: the package for it is missing.
    """
    show = qr_code.shower()
    if show is None:
        msg = f"--qr needs {qr_code.REMEDY}"
        raise ClientError(msg)
    return lambda text: show(text, sys.stdout)


def _awaited(settings: DaemonSettings, client: str, seconds: int) -> IPAddress:
    """The address of another machine that was granted something for the client.

    Raises:
        FirewallError: none was in time.
    """
    end = time.monotonic() + seconds
    told: set[IPAddress] = set()
    with closing(packet_filter(settings)) as firewall:
        while time.monotonic() < end:
            for grant in _of_client(firewall.grants(), client):
                if not _is_own(grant.source):
                    return grant.source
                if grant.source not in told:
                    told.add(grant.source)
                    _say(f"a knock of {client} from this host itself ({grant.source}): it proves nothing; waiting on")
            time.sleep(_LOOK_EVERY)
    msg = (
        f"no knock was granted within {seconds} s, so nothing was closed. `journalctl -u doorwardd -g verdict` names "
        "what arrived; if nothing did, udp/62201 does not reach this host"
    )
    raise FirewallError(msg)


def _of_client(grants: tuple[LiveGrant, ...], client: str) -> Iterator[LiveGrant]:
    yield from (grant for grant in grants if grant.name == client)


def _is_own(source: IPAddress) -> bool:
    """Whether an address is this host's."""
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6  # noqa: PLR2004  IPv4
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(source), 0))
        except OSError:
            return False
    return True


def _close(
    host: Host,
    settings: DaemonSettings,
    plan: _Plan,
    seconds: int,
    undo: Callable[[str, Callable[[], object]], object],
) -> None:
    """Close the services until the deadline, and wait for the confirmation.

    Raises:
        FirewallError: nobody confirmed it: the services are open again.
    """
    switch = host.switch(Libnftables())
    token = switch.apply(_guard(settings), seconds)
    undo("the firewall is open again", lambda: switch.rollback(token))
    _say(f"{_services(plan)} is closed for {seconds} s. Knock and come in once more, in a NEW session, and confirm:")
    _say(f"\n    doorward firewall confirm {token}\n")
    while switch.pending() == token:
        time.sleep(_LOOK_EVERY)
    if not settings.firewall_file.exists():
        msg = "nobody has confirmed it in time: the host is open again"
        raise FirewallError(msg)


def _guard(settings: DaemonSettings) -> deadman.Candidate:
    """The table that closes what access.conf names, as doorwardd makes it."""
    stanzas = access.load_configured(settings, Disk()).stanzas
    closed = Configuration(settings, access.Access(stanzas, ()), ()).guarded
    needs = Needs.of(stanzas, settings.permissions)
    file = settings.run_folder / "init.nft"
    try:
        replace_file(file, ruleset.guard(sorted(closed), needs.parts, settings.mark).encode())
        return deadman.examine(file)
    except OSError as error:
        msg = f"{file}: {error.strerror}"
        raise FirewallError(msg) from error
    finally:
        file.unlink(missing_ok=True)


def _finish(settings: DaemonSettings, plan: _Plan, daemon: service.Service) -> None:
    """Leave doorwardd with its own guard table, which follows access.conf; the confirmed file does not.

    A guard table stays one, whatever the mode, so the host is closed all the time.

    Raises:
        FirewallError: the files cannot be written; the host is closed by the confirmed file.
    """
    try:
        _restore(plan.settings_file)
        daemon.reload()
        mark_of(settings.firewall_file).unlink(missing_ok=True)
        settings.firewall_file.unlink(missing_ok=True)
    except OSError as error:
        msg = f"the host is closed and confirmed, but {error.filename}: {error.strerror}"
        raise FirewallError(msg) from error
