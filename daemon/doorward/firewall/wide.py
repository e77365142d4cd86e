"""Grants to networks in one set of ranges, whose elements must not overlap. Pure.

Where a network lies in another one that is open for another time, the outer one is written in parts: each address is
open for as long as the grant that opens it longest.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from doorward.firewall import elements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doorward.values import LiveGrant


def commands(held: Iterable[LiveGrant], wanted: LiveGrant) -> str:
    """The commands of nft that open `wanted` too, where `held` is open and does not overlap; to be run at once."""
    return _commands(*painted(held, wanted))


def ended(held: Iterable[LiveGrant], closed: Iterable[LiveGrant], kept: Iterable[LiveGrant]) -> str:
    """The commands of nft that close networks, and leave open what other grants have of them; to be run at once."""
    before, closing = list(held), list(closed)
    after = [one for one in before if not any(_meet(one, other) for other in closing)]
    for one in kept if len(after) < len(before) else ():
        deleted, added = painted(after, one)
        after = [each for each in after if each not in deleted] + added
    return _commands([one for one in before if one not in after], [one for one in after if one not in before])


def _commands(deleted: Iterable[LiveGrant], added: Iterable[LiveGrant]) -> str:
    gone = [element.removed() for one in deleted for element in elements.of(one)]
    new = [element.added(max(1, math.ceil(one.remaining))) for one in added for element in elements.of(one)]
    return "".join([*gone, *new])


def painted(held: Iterable[LiveGrant], wanted: LiveGrant) -> tuple[list[LiveGrant], list[LiveGrant]]:
    """What is deleted and what is added."""
    network: Any = wanted.network  # of the family of all others
    same = [one for one in held if _meet(one, wanted)]
    outer = [one for one in same if one.network.prefixlen < network.prefixlen]
    if outer:
        return ([], []) if outer[0].remaining >= wanted.remaining else (outer, [wanted, *_without(outer[0], network)])
    longer = [one for one in same if one.remaining > wanted.remaining]
    rest = [wanted]
    for one in longer:
        rest = [part for each in rest for part in _without(each, one.network)]
    return [one for one in same if one not in longer], rest


def _meet(one: LiveGrant, other: LiveGrant) -> bool:
    """Whether two grants are for the same service, and have an address in common."""
    here: Any = one.network
    there: Any = other.network
    return one.service == other.service and here.version == there.version and bool(here.overlaps(there))


def _without(grant: LiveGrant, inner: Any) -> Iterator[LiveGrant]:  # noqa: ANN401  a network of the grant's family
    """The parts of a grant's network around another one; all of it where the other one lies elsewhere."""
    outer: Any = grant.network
    parts = outer.address_exclude(inner) if outer.overlaps(inner) else [outer]
    yield from (replace(grant, source=one.network_address, prefix=one.prefixlen) for one in parts)
