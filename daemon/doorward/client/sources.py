"""The sources that the knocks of one run ask for: one that was named, or the candidates of `auto`, in rounds.

Behind NAT this machine cannot know the address that a host sees. Each round sends a packet for every candidate: the own
address where it can be right; the addresses at which the host has seen this machine before; what a site tells. A packet
that names no address lets in the first address that sends it (SECURITY.md), so it is the last resort: it goes out where
nothing else is known, and from the second round on.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Protocol

from doorward.client import seen
from doorward.client.address import fits
from doorward.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from doorward.client.seen import Seen
    from doorward.values import IPAddress

_ORIGIN: Final = "the packet's origin"
_SURE: Final = 3600  # seconds for which an address that the host saw is taken for its own


class Sources(Protocol):
    """The sources of one run's knocks. `has_news` while an address is known that no round has asked for yet."""

    has_news: bool

    def next_round(self) -> list[IPAddress | None]:
        """The sources to ask for now; None is the packet's origin. May be empty while a site is asked."""

    def words(self) -> str:
        """What was asked for, as a list in words; empty before the first round."""

    def doubts(self) -> str:
        """Why none of it may be right."""


class Named:
    """The one source that a profile names, or that a site reports; the site is asked once."""

    has_news = False

    def __init__(self, find: Callable[[], IPAddress | None]) -> None:
        """Ask `find` in the first round."""
        self._find = find
        self._found: list[IPAddress | None] = []

    def next_round(self) -> list[IPAddress | None]:
        """The source, in every round."""
        if not self._found:
            self._found.append(self._find())
        return self._found

    def words(self) -> str:
        """The source."""
        return "".join(_ORIGIN if each is None else str(each) for each in self._found)

    def doubts(self) -> str:
        """None that this side could know."""
        return "source behind NAT?"


class Candidates:
    """The sources of `auto`, or of `named`, which never leaves the address open.

    `told` is what a site told during this run.
    """

    def __init__(
        self, own: IPAddress, host: IPAddress, known: Sequence[Seen], now: float, *, leaves_open: bool = True
    ) -> None:
        """Start without a round; `known` are addresses from earlier, `now` in Unix seconds."""
        self._own, self._known, self._now, self._leaves_open = own, known, now, leaves_open
        self._own_fits = fits(own, host)
        self._ask: Callable[[], IPAddress] | None = None
        self._is_asking = self._has_failed = False
        self._complaint = ""
        self._rounds = 0
        self._asked: dict[IPAddress | None, None] = {}
        self.told: IPAddress | None = None
        self.has_news = False

    def may_ask(self, ask: Callable[[], IPAddress]) -> None:
        """Let a site be asked."""
        self._ask = ask

    def is_unsure(self, host: IPAddress) -> bool:
        """Whether the host should be asked at which address it sees this machine, once there is a connection."""
        lately = [each for each in self._known if each.by == str(host) and abs(self._now - each.time) < _SURE]
        return not self._own_fits and not lately

    @property
    def first(self) -> IPAddress | None:
        """The likeliest of the addresses that are known now, None where none is."""
        return next(iter(self._named()), None)

    @property
    def likely(self) -> str:
        """The addresses at which the host is likely to see this machine, as a list in words."""
        return " and ".join(map(str, self._named()))

    def note(self, complaint: str) -> None:
        """Keep a complaint for doubts()."""
        self._complaint = complaint

    def next_round(self) -> list[IPAddress | None]:
        """The candidates now. A site is asked meanwhile, where nothing is known or a round was in vain.

        Raises:
            OSError: there is none, and none to come.
        """
        self._rounds += 1
        self.has_news = False
        in_vain, known = self._rounds > 1, bool(self._named())
        if self._ask is not None and not self._is_asking and (in_vain or not known):
            self._is_asking = True
            threading.Thread(target=self._inquire, daemon=True).start()
        return self._round(last_resort=in_vain or (not known and self._ask is None))

    def at_once(self) -> list[IPAddress | None]:
        """All candidates, for a knock that is not repeated; a site is asked first.

        Raises:
            OSError: there is none.
        """
        if self._ask is not None and not self._own_fits:
            self._inquire()
        return self._round(last_resort=True)

    def words(self) -> str:
        """The candidates that were asked for."""
        return " and ".join(_ORIGIN if each is None else str(each) for each in self._asked)

    def doubts(self) -> str:
        """What this side knows of the NAT."""
        if self._own_fits and not self._known:
            return "; ".join(filter(None, ["source behind NAT?", self._complaint]))
        return "; ".join(
            filter(
                None, [f"this machine ({self._own}) is behind NAT", *self._history(), self._remedy(), self._complaint]
            )
        )

    def _round(self, *, last_resort: bool) -> list[IPAddress | None]:
        found: list[IPAddress | None] = [*self._named()]
        if (last_resort or self._has_failed) and self._leaves_open and not self._own_fits and self.told is None:
            found.append(None)
        if not found and (self._ask is None or self._has_failed):
            raise OSError(0, self.doubts())
        self._asked.update(dict.fromkeys(found))
        return found

    def _named(self) -> list[IPAddress]:
        """The addresses, each once."""
        told = [] if self.told is None else [self.told]
        own = [self._own] if self._own_fits else []
        return list(dict.fromkeys([*own, *(each.address for each in self._known), *told]))

    def _inquire(self) -> None:
        assert self._ask is not None  # noqa: S101  both callers have looked
        try:
            self.told = self._ask()
        except (ClientError, OSError) as error:
            self._complaint, self._has_failed = str(error), True
            self.has_news = not self._asked  # nothing was asked for until now
        else:
            self.has_news = self.told not in self._asked

    def _history(self) -> Iterator[str]:
        """What speaks for each address that was asked for."""
        for each in self._known:
            witness = "a site told" if each.by == seen.SITE else "the host saw"
            yield f"{witness} {each.address} {seen.age(self._now - each.time)}"
        if self.told is not None:
            yield f"a site tells {self.told}"

    def _remedy(self) -> str:
        if self._ask is not None or self.told is not None:
            return ""
        wrong = "; the packet's origin is wrong where TCP takes another address than UDP" if None in self._asked else ""
        return f"name its address there (ALLOW_IP), or a site that tells it (RESOLVE_URL){wrong}"


def beside(source: IPAddress | None, others: Iterable[Sources]) -> IPAddress | None:
    """The likeliest address of the other family than a source, for the same packet; None where none is known.

    Nobody is asked for it, and beside an address that is left open there is none.
    """
    known = (one.first for one in others if isinstance(one, Candidates))
    return next((each for each in known if source and each and each.version != source.version), None)
