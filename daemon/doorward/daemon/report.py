"""`doorwardd check --report`: what knocks need of this host, one line each; it changes nothing."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Final

from doorward.crypto import fingerprint
from doorward.errors import DoorwardError, FirewallError, ShareError
from doorward.findings import NO, OK, UNKNOWN, Finding
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Nftables
from doorward.firewall.ruleset import TABLE
from doorward.firewall.wanted import SWITCH_FOLDER
from doorward.helper.share import connected
from doorward.host import sshd
from doorward.host.running import holder
from doorward.linux import confinement
from doorward.linux.clock import UNSYNCHRONISED, is_synchronised
from doorward.listener.share import ask_once
from doorward.values import Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from doorward.config.stanza import Stanza
    from doorward.firewall.foreign import Foreign
    from doorward.processes.configuration import Configuration

_SAME: Final = "at the client: doorward doctor HOST says the same"
_ENFORCE: Final = {confinement.APPARMOR: "aa-enforce /etc/apparmor.d/doorwardd", confinement.SELINUX: "setenforce 1"}
_LOAD: Final = {confinement.APPARMOR: "aa-status", confinement.SELINUX: "semodule -l"}
_SSHD: Final = "sshd -T | grep ^port"


def findings(found: Configuration) -> Iterator[Finding]:
    """Every line; those about the firewall need root."""
    yield from _daemon(found)
    if os.geteuid():
        yield Finding(UNKNOWN, "table", "only root can see the firewall", "sudo doorwardd check --report")
    else:
        yield from _firewall(found)
    yield from _sshd(found)
    yield _clock()
    if found.settings.replay_share is not None:
        yield _share(found.settings.replay_share)
    for stanza in found.access.stanzas:
        yield from _keys(stanza)


def _daemon(found: Configuration) -> Iterator[Finding]:
    stanzas = found.access.stanzas
    yield Finding(OK, "files", f"{len(stanzas)} stanzas without a mistake", "doorwardd check --explain-config")
    try:
        pid = holder(found.settings.pid_file)
    except DoorwardError as error:
        yield Finding(UNKNOWN, "daemon", str(error))
        return
    if pid is None:
        yield Finding(NO, "daemon", f"does not run, by {found.settings.pid_file}", "systemctl start doorwardd")
    else:
        yield Finding(OK, "daemon", f"runs, PID {pid}", "journalctl -u doorwardd")
        yield from confined(confinement.modules(), confinement.labels(pid))


def confined(modules: tuple[str, ...], labels: tuple[confinement.Label, ...]) -> Iterator[Finding]:
    """What the kernel's security modules forbid the listener."""
    if not modules:
        text = "this kernel has neither AppArmor nor SELinux in force: no profile can be"
        yield Finding(UNKNOWN, "confine", text, "cat /sys/kernel/security/lsm")
    for label in labels:
        said = f"{label.module} has the listener in {label.name}"
        if label.is_enforced:
            yield Finding(OK, "confine", f"{said}, enforced")
        else:
            yield Finding(UNKNOWN, "confine", f"{said}, which forbids nothing", _ENFORCE[label.module])
    for module in modules:
        if module not in {label.module for label in labels}:
            yield Finding(UNKNOWN, "confine", f"{module} leaves the listener unconfined", _LOAD[module])


def _firewall(found: Configuration) -> Iterator[Finding]:
    """The table, and the chains of others that can drop what a grant lets in."""
    settings = found.settings
    needs = Needs.of(found.access.stanzas, settings.permissions)
    chosen = settings.firewall_file, settings.firewall_mode, _guarded(found)
    try:
        with closing(Nftables(*chosen, needs=needs, mark=settings.mark, switch=SWITCH_FOLDER)) as firewall:
            yield from _table(firewall, found)
            yield from _others(firewall.foreign())
    except FirewallError as error:
        yield Finding(NO, "table", str(error), "nft list ruleset")


def _guarded(found: Configuration) -> Callable[[], frozenset[Service]]:
    return lambda: found.guarded


def _table(firewall: Nftables, found: Configuration) -> Iterator[Finding]:
    table, standing = firewall.table(), firewall.standing(found.served)
    if table is not None and not standing.doubts:
        yield Finding(OK, "table", f"{TABLE}: {table.kind}, read by libnftables", f"nft list table {TABLE}")
    for sentence in standing.sentences:
        yield Finding(NO, "table", sentence, "doorward status")


def _others(foreign: Foreign) -> Iterator[Finding]:
    lines = (*foreign.findings(), *foreign.without_sessions(), *filter(None, [foreign.use_of_mark()]))
    if not lines:
        yield Finding(OK, "others", "no chain of another firewall drops what a grant lets in", "nft list ruleset")
    yield from (Finding(NO, "others", line, "doorward status") for line in lines)


def _sshd(found: Configuration) -> Iterator[Finding]:
    """Whether a stanza opens the ports of sshd, as sshd itself has them."""
    ports = sshd.configured()
    if not ports:
        yield Finding(UNKNOWN, "sshd", "does not say its port", _SSHD)
    for port in ports:
        service = Service(Protocol.TCP, port)
        openers = [stanza.label for stanza in found.access.stanzas if _opens(stanza, service)]
        if openers:
            yield Finding(OK, "sshd", f"{service} is opened by {', '.join(openers[:3])}", _SSHD)
        else:
            yield Finding(NO, "sshd", f"no stanza opens {service}", f"{_SSHD}; grep OPEN_PORTS access.conf")


def _opens(stanza: Stanza, service: Service) -> bool:
    named = stanza.open_ports
    allowed = stanza.any_ports or named is None or service in named
    return allowed and service not in (stanza.restrict_ports or ())


def _clock() -> Finding:
    right = is_synchronised()
    if right:
        return Finding(OK, "clock", "something keeps this host's clock right", "timedatectl")
    text = UNSYNCHRONISED if right is False else "nobody says whether this host's clock is right"
    return Finding(UNKNOWN, "clock", text, "timedatectl set-ntp true")


def _share(path: Path) -> Finding:
    """Whether the share of two gateways answers."""
    try:
        ask_once(connected(path))
    except ShareError as error:
        return Finding(NO, "share", f"{path}: {error}", f"redis-cli -s {path} ping")
    return Finding(OK, "share", f"{path} answers", "doorward status")


def _keys(stanza: Stanza) -> Iterator[Finding]:
    """The fingerprint of a stanza's keys; the keyrings were opened before."""
    keys, openpgp = stanza.keys, stanza.openpgp
    for one in stanza.clients:
        told = fingerprint.of_public(one.key)
        yield Finding(OK, "key", f"{stanza.label}: client {one.name or one.key}: {told}", "doorward keys fingerprint")
    if keys is not None:
        told = fingerprint.words(keys.key, keys.hmac_key)
        lacks = "" if keys.hmac_key else ", and no HMAC key: anybody's packet is decrypted"
        yield Finding(UNKNOWN if lacks else OK, "key", f"{stanza.label}: {told}{lacks}", _SAME)
    if stanza.magic is not None:
        yield Finding(OK, "key", f"{stanza.label}: a password of {len(stanza.magic.password)} bytes, for magic packets")
    if stanza.sequences:
        text = "a sequence of ports, which whoever sees it can send"
        yield Finding(UNKNOWN, "key", f"{stanza.label}: {text}")
    if openpgp is not None:
        told = f"GnuPG's {openpgp.decrypt_id}, which gpg opens"
        if openpgp.hmac_key is not None:
            told += f"; HMAC key {fingerprint.words(None, openpgp.hmac_key)}"
        yield Finding(OK, "key", f"{stanza.label}: {told}", f"gpg --homedir {openpgp.home} --list-keys")
