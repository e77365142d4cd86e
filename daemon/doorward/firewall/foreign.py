"""Other firewalls of the host: chains that can drop granted packets, and the one rule that lets those through.

Our table marks granted packets before every other chain of the hook. Our accept is not final (nft(8), "accept"): each
later base chain must accept the mark too. Matches are not evaluated: a chain counts as dropping where any rule that its
jumps reach can drop.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from doorward.errors import FirewallError
from doorward.firewall.ruleset import PRIORITY
from doorward.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from doorward.firewall.kernel import Chain

COMMENT: Final = "doorward"
_ROUTED: Final = frozenset({"ip", "ip6", "inet"})
_TO_A_SOCKET: Final = frozenset({"prerouting", "input"})  # hooks behind those that passive capture hears
_BEFORE: Final = _TO_A_SOCKET | {"ingress"}  # hooks on the way to a socket


class Outcome(enum.Enum):
    """The fate of a packet with our mark in a chain, if every match could match."""

    ADMITTED = "admitted"
    DROPPED = "dropped"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of another firewall, and its possible effects on a packet with our mark."""

    admits: bool = False  # accepts it whatever its other properties
    drops: bool = False
    jumps: tuple[str, ...] = ()
    always: bool = False  # matches everything
    sessions: bool = False  # matches the state of the connection, and may accept
    uses: int = 0  # bits of the mark that it sets or matches
    ours: bool = False  # has our comment


class Flavour(Protocol):
    """The chains of one kind of packet filter. Every method raises FirewallError."""

    def chains(self) -> Iterable[Chain]:
        """The base chains."""

    def rules(self, chain: Chain) -> Iterable[Rule]:
        """The rules of one chain in their order."""

    def insert(self, chain: Chain) -> None:
        """Put our rule at the head of a chain."""

    def delete(self, chain: Chain) -> int:
        """Take our rules out of a chain and return their number."""

    def remedy(self, chain: Chain) -> str:
        """The command that puts our rule at the head of a chain."""


class Foreign:
    """The other firewalls of a host, as far as they can drop granted packets."""

    def __init__(self, flavours: Callable[[], Iterable[Flavour]], mark: int, *, forwarding: bool) -> None:
        """Consider chains of the input hook, and of the forward hook where grants forward."""
        self._flavours = flavours
        self._mark = mark
        self._hooks = frozenset({"input", "forward"}) if forwarding else frozenset({"input"})

    def findings(self) -> tuple[str, ...]:
        """One line for each chain that can drop a grant, with the command that lets it through.

        Raises:
            FirewallError: a firewall cannot be read.
        """
        return tuple(line for flavour, chain in self._all() if (line := self._finding(flavour, chain)))

    def without_sessions(self) -> tuple[str, ...]:
        """One line for each chain that can drop and has no rule for established connections.

        Raises:
            FirewallError: a firewall cannot be read.
        """
        return tuple(
            f"{chain} has no rule for established connections: of a session only the first packet has our mark"
            for flavour, chain in self._all()
            if self._counts(chain) and _can_drop(flavour, chain) and not _keeps_sessions(flavour, chain)
        )

    def before_a_server(self) -> str | None:
        """A chain that can drop what goes to a server of ours, or None; our mark is no help where a reload can undo it.

        Raises:
            FirewallError: a firewall cannot be read.
        """
        on_the_way = (one for one in self._all() if one[1].family in _ROUTED and one[1].hook in _TO_A_SOCKET)
        return next((str(chain) for flavour, chain in on_the_way if _can_drop(flavour, chain)), None)

    def admit(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Put our rule into every chain that can drop a grant; return the changed chains, and an error for each other.

        Raises:
            FirewallError: a firewall cannot be read.
        """
        made: list[str] = []
        refused: list[str] = []
        for flavour, chain in self._all():
            if self._counts(chain) and _outcome(flavour, chain, {}) is Outcome.DROPPED:
                try:
                    flavour.insert(chain)
                except FirewallError as error:
                    refused.append(f"{chain} can drop what a grant lets in, and takes no rule that accepts it: {error}")
                else:
                    made.append(str(chain))
        return tuple(made), tuple(refused)

    def remove(self) -> int:
        """Take our rule out of every chain and return their number.

        Raises:
            FirewallError: a firewall cannot be read or changed.
        """
        return sum(flavour.delete(chain) for flavour, chain in self._all())

    def use_of_mark(self) -> str | None:
        """The chain with a rule that uses our bit of the mark, as a line for the log, or None.

        Raises:
            FirewallError: a firewall cannot be read.
        """
        for flavour, base in self._all():
            for chain, rule in _reachable(flavour, base):
                if rule.uses & self._mark and not rule.admits:
                    return f"{chain} uses the bit {self._mark:#x} of the mark too: set FIREWALL_MARK to a free one"
        return None

    def _all(self) -> list[tuple[Flavour, Chain]]:
        return [(flavour, chain) for flavour in self._flavours() for chain in flavour.chains()]

    def _counts(self, chain: Chain) -> bool:
        """Whether a granted packet passes this chain with its mark."""
        return chain.family in _ROUTED and chain.hook in self._hooks and chain.priority > PRIORITY

    def _finding(self, flavour: Flavour, chain: Chain) -> str | None:
        if self._counts(chain):
            if _outcome(flavour, chain, {}) is not Outcome.DROPPED:
                return None
            return f"{chain} can drop what a grant lets in; this lets it through: {flavour.remedy(chain)}"
        if chain.hook in _BEFORE | self._hooks and chain.family != "arp" and _closes(flavour, chain):
            return (
                f"{chain} drops everything before a grant is looked up; let in there what may be granted, "
                f"by a rule with the comment {COMMENT}"
            )
        return None


def _outcome(flavour: Flavour, chain: Chain, known: dict[str, Outcome]) -> Outcome:
    """The fate of a packet with our mark; `known` holds the chains that were walked already."""
    if chain.name not in known:
        known[chain.name] = Outcome.PASSED
        known[chain.name] = _walked(flavour, chain, known)
    return known[chain.name]


def _walked(flavour: Flavour, chain: Chain, known: dict[str, Outcome]) -> Outcome:
    relevant = []
    for rule in flavour.rules(chain):  # read first: only one listing can be under way
        if rule.admits or rule.drops or rule.jumps:
            relevant.append(rule)
        if rule.admits or rule.drops:
            break
    for rule in relevant:
        if rule.admits or rule.drops:
            return Outcome.ADMITTED if rule.admits else Outcome.DROPPED
        for name in rule.jumps:
            outcome = _outcome(flavour, _jumped_to(chain, name), known)
            if outcome is Outcome.DROPPED or (outcome is Outcome.ADMITTED and rule.always):
                return outcome
    return Outcome.DROPPED if chain.drops else Outcome.PASSED


def _jumped_to(chain: Chain, name: str) -> Chain:
    return replace(chain, name=name, hook="", drops=False)


def _reachable(flavour: Flavour, base: Chain) -> Iterator[tuple[Chain, Rule]]:
    """Every rule of a base chain and of the chains that its jumps reach."""
    seen, waiting = {base.name}, [base]
    while waiting:
        chain = waiting.pop()
        for rule in list(flavour.rules(chain)):
            yield chain, rule
            waiting += [_jumped_to(base, name) for name in rule.jumps if name not in seen]
            seen.update(rule.jumps)


def _can_drop(flavour: Flavour, chain: Chain) -> bool:
    return chain.drops or any(rule.drops for _, rule in _reachable(flavour, chain))


def _keeps_sessions(flavour: Flavour, chain: Chain) -> bool:
    return any(rule.sessions for _, rule in _reachable(flavour, chain))


def _closes(flavour: Flavour, chain: Chain) -> bool:
    """Whether a chain drops everything, and no rule in it has our comment."""
    rules = list(flavour.rules(chain))
    return not any(rule.ours for rule in rules) and (chain.drops or any(rule.drops and rule.always for rule in rules))
