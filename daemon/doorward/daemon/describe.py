"""A configuration as it was understood: as a list under its names (-D), and in words. Keys are never shown. Pure."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from doorward.config import access as access_config
from doorward.config import settings as daemon_config
from doorward.config.stanza import WINDOW_DEFAULT, WINDOW_MAX_DEFAULT
from doorward.helper.sources import tapped
from doorward.values import Carriers, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.config.settings import Alerts, DaemonSettings
    from doorward.config.stanza import Commands, Cycle, Forwarding, Magic, OpenPgp, Stanza
    from doorward.processes.configuration import Configuration
    from doorward.values import Permissions, SymmetricKeys

NOT_SET: Final = "<not set>"
MASK: Final = "<see the access.conf file>"  # fwknopd's words
_YEAR_MAX: Final = 253402300799  # Unix seconds, the end of the year 9999


def dump(configuration: Configuration) -> Iterator[str]:
    """Every setting and every stanza under the names of the files, as `fwknopd -D` lists them."""
    yield "Current doorwardd config settings:"
    for number, (name, text) in enumerate(_settings(configuration.settings)):
        yield f"{number:3}. {name:<28} =  '{text}'"
    yield ""
    yield "Current doorwardd access settings:"
    for stanza in configuration.access.stanzas:
        yield f"SOURCE ({stanza.number}):  {stanza.source}"
        yield f"  {'==> ' + stanza.path + ':' + str(stanza.line)}"
        for name, text in _variables(stanza):
            yield f"    {name:<28} {text}"


def _settings(settings: DaemonSettings) -> Iterator[tuple[str, str]]:
    alerts = settings.alerts
    special: dict[str, Any] = {
        "ageing": settings.max_age is not None,
        "udp_server": "automatic" if settings.automatic else settings.udp_server is not None,
        "tcp_server": settings.tcp_server is not None,
        "carriers": " or ".join(_terms(_captured(settings))),
        "interfaces": ", ".join(settings.interfaces) or "any",
    }
    for name, setting in daemon_config.SETTINGS.items():
        field = setting.field
        if field in special:
            yield name, _text(special[field])
        elif field.startswith("alert_"):
            yield name, NOT_SET if alerts is None else _alert(alerts, field.removeprefix("alert_"))
        elif hasattr(settings, field) and "FIREWD" not in name:
            yield name, _text(getattr(settings, field))


def _captured(settings: DaemonSettings) -> Carriers:
    """The carriers of passive capture, without those that a server of ours reads."""
    if settings.pcap_file is not None:
        return settings.carriers
    return tapped(settings) if settings.capture else Carriers()


def _terms(carriers: Carriers) -> Iterator[str]:
    """The terms that PCAP_FILTER would have for this."""
    for name, spans in (("udp", carriers.udp), ("tcp", (*carriers.tcp, *carriers.syn))):
        for ports in spans:
            one = len(ports) == 1
            yield f"{name} dst port {ports.start}" if one else f"{name} dst portrange {ports.start}-{ports.stop - 1}"
    if carriers.icmp:
        yield "icmp"


def _alert(alerts: Alerts, field: str) -> str:
    if field == "events":
        return "both" if alerts.granted and alerts.denied else "granted" if alerts.granted else "denied"
    return _text(getattr(alerts, field))


def _text(value: object) -> str:
    """A value as a file would have it."""
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "Y" if value else "N"
    if isinstance(value, (tuple, frozenset)):
        return ", ".join(sorted(map(str, value))) or NOT_SET
    if isinstance(value, Secret):
        return MASK
    return str(value.value if isinstance(value, Enum) else value) or NOT_SET


def _variables(stanza: Stanza) -> Iterator[tuple[str, str]]:
    """The values of a stanza under the names of access.conf."""
    shown = {
        **{name: getattr(stanza, name) for name in access_config.PLAIN},
        "open_ports": "<any>" if stanza.open_ports is None else stanza.open_ports,
        "named": None if stanza.named is None else tuple(f"{name}={text}" for name, text in stanza.named.texts),
        "clients": tuple(f"{one.key} {one.name or ''}".rstrip() for one in stanza.clients),
        "psk": stanza.psk,
        "one_time_code": stanza.one_time_code,
        **_shown_sequences(stanza),
        **_shown_magic(stanza),
        "max_prefix4": stanza.max_prefix4,
        "max_prefix6": stanza.max_prefix6,
        **({} if stanza.magic is not None else _shown_keys(stanza.keys, stanza.openpgp)),
        **_shown_commands(stanza.commands, stanza.cycle),
        **_shown_forwarding(stanza.forwarding),
    }
    named: set[str] = {"source"}
    for name, setting in access_config.SETTINGS.items():
        if setting.field in shown and setting.field not in named:  # of several names for the same the first
            named.add(setting.field)
            yield name, _text(shown[setting.field])


def _shown_sequences(stanza: Stanza) -> dict[str, object]:
    """A stanza's sequence; those of a file are secrets that open once."""
    if not stanza.sequences:
        return {"sequence": None, "sequence_file": None}
    first = stanza.sequences[0]
    if stanza.one_time:
        return {"sequence_file": first.where.rpartition(":")[0], "sequence_flags": first.flags}
    return {"sequence": first, "sequence_seconds": first.seconds, "sequence_flags": first.flags}


def _shown_magic(stanza: Stanza) -> dict[str, object]:
    if stanza.magic is None:
        return {"magic": None}
    return {"magic": _carrier(stanza.magic), "hmac_key": stanza.magic.password}


def _carrier(magic: Magic) -> str:
    return "icmp" if magic.port is None else f"udp/{magic.port}"


def _shown_keys(keys: SymmetricKeys | None, openpgp: OpenPgp | None) -> dict[str, object]:
    made = keys or openpgp
    shown: dict[str, object] = {
        "key": None if keys is None else keys.key,
        "hmac_key": None if made is None else made.hmac_key,
        "hmac_digest": None
        if made is None or made.hmac_key is None or made.hmac_digest is None
        else made.hmac_digest.label,
        "mode": None if keys is None else keys.mode.name,
    }
    if openpgp is None:
        return shown
    return shown | {
        "gpg_home": openpgp.home,
        "gpg_exe": openpgp.exe,
        "gpg_decrypt_id": openpgp.decrypt_id,
        "gpg_password": openpgp.password,
        "gpg_no_password": openpgp.password is None,
        "gpg_require": openpgp.require_signature,
        "gpg_ignore": openpgp.ignore_signature_errors,
        "gpg_remote_ids": openpgp.remote_ids,
        "gpg_fingerprints": openpgp.fingerprints,
    }


def _shown_commands(commands: Commands | None, cycle: Cycle | None) -> dict[str, object]:
    shown: dict[str, object] = {"command": commands is not None}
    if commands is not None:
        shown |= {
            "command_user": commands.user,
            "command_group": commands.group,
            "command_shell": commands.shell,
            "sudo": commands.sudo,
            "sudo_user": commands.sudo_user,
            "sudo_group": commands.sudo_group,
        }
    if cycle is not None:
        shown |= {
            "cycle_open": cycle.open,
            "cycle_close": access_config.NEVER if cycle.close is None else cycle.close,
            "cycle_seconds": cycle.seconds,
            "command_user": cycle.user,
            "command_group": cycle.group,
        }
    return shown


def _shown_forwarding(forwarding: Forwarding) -> dict[str, object]:
    targets = None if forwarding.targets is None else tuple(map(_target, forwarding.targets))
    return {
        "force": None if forwarding.force is None else "{} {}".format(*forwarding.force),
        "force_snat": forwarding.snat,
        "masquerade": forwarding.masquerade,
        "no_dnat": not forwarding.rewrite,
        "everything": forwarding.everything,
        "targets": targets,
        "forward_only": forwarding.only,
    }


def _target(target: Any) -> str:  # noqa: ANN401  a Target
    where = str(target.networks) if target.name is None else target.name
    if target.name is not None:
        where += f" ({', '.join(map(str, target.addresses)) or 'no address'})"
    return f"{where}:{'*' if target.port is None else target.port}"


def tell(configuration: Configuration) -> Iterator[str]:
    """Every stanza in words; a value that no file has is marked as the default."""
    for stanza in configuration.access.stanzas:
        yield f"{stanza.label} ({stanza.path}:{stanza.line})"
        for subject, sentence in _sentences(stanza, configuration.settings.permissions):
            yield f"    {subject:<10} {sentence}"


def _sentences(stanza: Stanza, permissions: Permissions) -> Iterator[tuple[str, str]]:
    to = "any address of this host (default)" if stanza.destination.everywhere else str(stanza.destination)
    yield "from", f"{'anywhere' if stanza.source.everywhere else stanza.source}, to {to}"
    if stanza.clients:
        yield from _about_clients(stanza)
    elif stanza.magic is not None:
        yield "magic", f"packets over {_carrier(stanza.magic)}, made by a password"
    elif stanza.sequences:
        yield "sequence", _about_sequences(stanza)
    else:
        yield from _about_keys(stanza.keys, stanza.openpgp)
    yield "user", f"only {stanza.require_username!r}" if stanza.require_username is not None else "any name (default)"
    yield "source", _about_source(stanza)
    yield from _about_effect(stanza)
    yield "window", _about_window(stanza)
    yield "ends", _about_end(stanza)
    if stanza.session_max is not None:
        yield "session", f"a connection is ended {stanza.session_max} s after it began"
    if stanza.keep_while_used:
        yield "kept", "a grant lives on while there are connections through it"
    if stanza.require_os is not None:
        yield "system", f"connections count only from {stanza.require_os}"
    yield from _about_nat(stanza.forwarding, permissions)
    if stanza.named is None:
        yield from _about_commands(stanza.commands)
        return
    who = stanza.named.user or "the least privileged account"
    for name, text in stanza.named.texts:
        yield "command", f"{name} runs as {who}: {text}"


def _about_sequences(stanza: Stanza) -> str:
    first = stanza.sequences[0]
    if stanza.one_time:
        return f"each of {len(stanza.sequences)} in {first.where.rpartition(':')[0]} opens once"
    return f"{first} within {first.seconds} s; whoever sees it can send it again"


def _about_clients(stanza: Stanza) -> Iterator[tuple[str, str]]:
    for one in stanza.clients:
        yield "client", f"{one.name or 'without a name'}, public key {one.key}"
    if stanza.psk is not None:
        yield "PSK", "a secret that each of them shares with this host"
    wide = {"IPv4": stanza.max_prefix4, "IPv6": stanza.max_prefix6}
    told = " and ".join(f"{family} networks up to /{most}" for family, most in wide.items() if most is not None)
    if told:
        yield "networks", f"they may have {told} let in, not only an address"
    if stanza.one_time_code is not None:
        yield "code", "a one-time code of an authenticator app in each knock"


def _about_keys(keys: SymmetricKeys | None, openpgp: OpenPgp | None) -> Iterator[tuple[str, str]]:
    if keys is not None:
        yield "key", f"a secret of {len(keys.key)} bytes, mode {keys.mode.name.lower()}"
    if openpgp is not None:
        secret = "with a password" if openpgp.password is not None else "without a password"
        yield "OpenPGP", f"decrypted with key {openpgp.decrypt_id} {secret} from {openpgp.home}"
        yield "signature", _about_signature(openpgp)
    made = keys or openpgp
    if made is None or made.hmac_key is None or made.hmac_digest is None:
        yield "HMAC", "none (default): anybody's packet is decrypted to find out who made it"
    else:
        yield "HMAC", f"{made.hmac_digest.label}, a secret of {len(made.hmac_key)} bytes"


def _about_signature(openpgp: OpenPgp) -> str:
    if not openpgp.require_signature:
        return "not needed"
    lists = [
        "one of the fingerprints " + ", ".join(sorted(openpgp.fingerprints)) if openpgp.fingerprints else "",
        "one of the IDs " + ", ".join(sorted(openpgp.remote_ids)) if openpgp.remote_ids else "",
    ]
    also = ", whatever gpg thinks of its validity" if openpgp.ignore_signature_errors else ""
    return " and ".join(filter(None, lists)) + also


def _about_source(stanza: Stanza) -> str:
    if stanza.require_source_address:
        return "the packet must name it, 0.0.0.0 is refused"
    return "the one that the packet names; for 0.0.0.0 where the packet came from (default)"


def _about_effect(stanza: Stanza) -> Iterator[tuple[str, str]]:
    allowed = _text(stanza.open_ports) if stanza.open_ports else "none"
    if stanza.any_ports or stanza.open_ports is None:
        allowed = "every service"
    never = f", never {_text(stanza.restrict_ports)}" if stanza.restrict_ports else ""
    yield "services", f"{allowed}{' (default)' if stanza.open_ports is None and not stanza.any_ports else ''}{never}"
    if stanza.cycle is not None:
        who = stanza.cycle.user or "root"
        yield "opens by", f"running as {who}: {stanza.cycle.open}"
        yield "closes by", "nothing (NONE)" if stanza.cycle.close is None else f"running: {stanza.cycle.close}"


def _about_window(stanza: Stanza) -> str:
    seconds = stanza.fw_access_timeout
    if stanza.cycle is not None and stanza.cycle.seconds is not None:
        seconds = stanza.cycle.seconds
    usual = " (default)" if seconds == WINDOW_DEFAULT and stanza.cycle is None else ""
    most = " (default)" if stanza.max_fw_timeout == WINDOW_MAX_DEFAULT else ""
    return f"{seconds} s{usual}, where the client asks for another at most {stanza.max_fw_timeout} s{most}"


def _about_end(stanza: Stanza) -> str:
    if stanza.expires is None:
        return "never (default)"
    if stanza.expires > _YEAR_MAX:
        return f"{stanza.expires} s after 1970"
    return dt.datetime.fromtimestamp(stanza.expires, dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _about_nat(forwarding: Forwarding, permissions: Permissions) -> Iterator[tuple[str, str]]:
    if forwarding.force is not None:
        where = "{}:{}".format(*forwarding.force)
        yield (
            "leads",
            f"{'everything' if forwarding.everything else 'connections'} to {where}, whatever the packet wants",
        )
    elif not (permissions.forwarding or permissions.local_nat):
        yield "leads", "nothing elsewhere: NAT is off in the settings (default)"
        return
    else:
        yield "leads", " and ".join(_wishes(forwarding, permissions)) or "nothing elsewhere (ENABLE_FORWARD_ACCESS N)"
    if not forwarding.rewrite:
        yield "rewrites", "nothing (DISABLE_DNAT)"
    if forwarding.snat is not None or forwarding.masquerade:
        yield "their source", f"becomes {forwarding.snat or 'the address of the interface they leave by'}"


def _wishes(forwarding: Forwarding, permissions: Permissions) -> Iterator[str]:
    """The places to which packets may have connections forwarded."""
    if permissions.local_nat:
        yield "to another port of this host"
    if permissions.forwarding and forwarding.only is not False:
        where = "any host (default)" if forwarding.targets is None else ", ".join(map(_target, forwarding.targets))
        yield f"to {where}" + (", and opens nothing without it (ENABLE_FORWARD_ACCESS)" if forwarding.only else "")


def _about_commands(commands: Commands | None) -> Iterator[tuple[str, str]]:
    if commands is None:
        yield "commands", "of clients are refused (default)"
        return
    who = commands.user or "the least privileged account"
    shell = "a shell reads them" if commands.shell else "no shell"
    sudo = f", through sudo as {commands.sudo_user or 'root'}" if commands.sudo else ""
    yield "commands", f"of clients run as {who}{sudo}, {shell}"
