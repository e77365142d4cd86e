"""The packet filter that the settings name: the one place that knows both."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.errors import FirewallError
from doorward.firewall import xtables
from doorward.firewall.ipset import IpSets
from doorward.firewall.iptables import OPEN, Iptables
from doorward.firewall.libnftables import Libnftables
from doorward.firewall.needs import Needs
from doorward.firewall.nftables import Nftables, read_table
from doorward.values import FirewallBackend, FirewallMode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from doorward.config.daemon import DaemonSettings
    from doorward.values import Nat, Service

Backend = Nftables | Iptables
NO_NEEDS: Final = Needs()
IPSET_MODULE: Final = Path("/sys/module/ip_set")


def of(  # noqa: PLR0913  each named
    settings: DaemonSettings,
    guarded: Callable[[], Iterable[Service]],
    *,
    needs: Needs = NO_NEEDS,
    nats: Collection[Nat] = (),
    before: Backend | None = None,
    console: bool = False,
) -> Backend:
    """Return the packet filter for the daemon; `before` is the one of the configuration before this.

    `needs` is what grants ask of nftables; `nats` are the ways that iptables needs rules for. `console` is for
    commands, which must not hang on what an earlier configuration left.

    Raises:
        FirewallError: it is not there, or it is another one than before: what that one closes would stay closed.
    """
    if settings.backend is FirewallBackend.NFTABLES:
        if isinstance(before, Iptables):
            raise _changed()
        if before is None and not console:
            _refuse_beside_iptables()
        whole = None if before is None else before.whole
        return Nftables(settings.firewall_file, settings.firewall_mode, guarded, whole=whole, needs=needs)
    if isinstance(before, Nftables):
        raise _changed()
    return Iptables(
        settings.firewall_mode,
        guarded,
        xtables.find(settings.firewall_exe),
        closed_by=settings.firewall_file,
        nats=nats,
        whole=None if before is None else before.whole,
    )


def for_console(settings: DaemonSettings) -> Iptables:
    """Return iptables for commands that make no rules.

    Raises:
        FirewallError: it is not there.
    """
    return Iptables(FirewallMode.OBSERVE, tuple, _tools_that_hold_rules(xtables.find(settings.firewall_exe)))


def _tools_that_hold_rules(chosen: tuple[xtables.Tools, ...]) -> tuple[xtables.Tools, ...]:
    """Return the flavour in which our rules stand: another than the chosen one where these are there alone."""
    for tools in (chosen, xtables.other_flavours(chosen)):
        with suppress(FirewallError), closing(Iptables(FirewallMode.OBSERVE, tuple, tools)) as firewall:
            if tools and firewall.state() != "absent":
                return tools
    return chosen


def present() -> frozenset[FirewallBackend]:
    """Return which packet filters hold something of ours, whatever the settings say."""
    found = set()
    library: Libnftables | None = None
    with suppress(FirewallError):  # a host that lives on iptables may be without it, and so without a table of ours
        library = Libnftables()
    if library is not None and read_table(library) is not None:
        found.add(FirewallBackend.NFTABLES)
    if _has_sets():
        found.add(FirewallBackend.IPTABLES)
    return frozenset(found)


def _refuse_beside_iptables(module: Path = IPSET_MODULE) -> None:
    """Refuse a host where rules that the other packet filter left would drop what is granted here."""
    if _has_sets(module):
        msg = (
            "iptables still has doorward's rules, which may drop what nftables lets in: go back to FIREWALL_BACKEND "
            "iptables for a moment, and `doorward firewall stop` takes them away"
        )
        raise FirewallError(msg)


def _has_sets(module: Path = IPSET_MODULE) -> bool:
    """Say whether the rules' sets are there, without which there are no rules."""
    if not module.exists():  # asking would load it
        return False
    names: frozenset[str] = frozenset()
    with suppress(FirewallError, OSError), closing(IpSets()) as sets:
        names = sets.names()
    return f"{OPEN}4" in names


def _changed() -> FirewallError:
    return FirewallError("FIREWALL_BACKEND is another one now: restart doorwardd, after `doorward firewall stop`")
