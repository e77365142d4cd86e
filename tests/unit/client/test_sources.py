from __future__ import annotations

import ipaddress
import threading
from typing import TYPE_CHECKING

import pytest

from doorward.client.seen import SITE, Seen
from doorward.client.sources import Candidates, Named, beside
from doorward.errors import ClientError

if TYPE_CHECKING:
    from doorward.values import IPAddress

NOW = 1_800_000_000.0
OWN, PRIVATE, HOST = map(ipaddress.ip_address, ("192.168.1.23", "10.0.0.5", "8.8.8.8"))
OLD, NEW, PUBLIC = map(ipaddress.ip_address, ("9.9.9.1", "9.9.9.2", "9.9.9.9"))


def saw(address: IPAddress, by: str = "8.8.8.8", age: int = 7200) -> Seen:
    return Seen("w", by, address, int(NOW) - age)


def behind_nat(*known: Seen, leaves_open: bool = True) -> Candidates:
    return Candidates(OWN, HOST, known, NOW, leaves_open=leaves_open)


class Site:
    """A site that answers when it is let."""

    def __init__(self, answer: IPAddress | str, *, silent: bool = False) -> None:
        self.answer, self.times, self.free = answer, 0, threading.Event()
        if not silent:
            self.free.set()

    def __call__(self) -> IPAddress:
        self.times += 1
        self.free.wait(20)
        if isinstance(self.answer, str):
            raise ClientError(self.answer)
        return self.answer


def settle() -> None:
    """Wait until no site is being asked."""
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread() and "_inquire" in thread.name:
            thread.join(20)


def test_a_source_that_is_named_is_found_once_and_asked_for_in_every_round() -> None:
    found = iter([PUBLIC])
    named = Named(lambda: next(found))
    assert named.words() == ""
    assert [named.next_round(), named.next_round()] == [[PUBLIC]] * 2
    assert (named.words(), named.doubts()) == ("9.9.9.9", "source behind NAT?")
    origin = Named(lambda: None)
    assert (origin.next_round(), origin.words()) == ([None], "the packet's origin")


@pytest.mark.parametrize(("own", "host"), [(PUBLIC, HOST), (OWN, PRIVATE), (PUBLIC, PRIVATE)])
def test_the_own_address_is_asked_for_where_it_can_be_right_and_never_the_origin(
    own: IPAddress, host: IPAddress
) -> None:
    candidates = Candidates(own, host, [], NOW)
    assert [candidates.next_round(), candidates.next_round()] == [[own]] * 2
    assert candidates.at_once() == [own]
    assert candidates.doubts() == "source behind NAT?"


def test_an_address_that_a_host_saw_is_asked_for_beside_the_own_one() -> None:
    assert Candidates(OWN, PRIVATE, [saw(NEW)], NOW).next_round() == [OWN, NEW]


def test_behind_nat_the_origin_is_asked_for_where_nothing_is_known_else_from_the_second_round_on() -> None:
    assert behind_nat().next_round() == [None]
    candidates = behind_nat(saw(OLD), saw(NEW, by=SITE))
    assert candidates.next_round() == [OLD, NEW]
    assert candidates.next_round() == [OLD, NEW, None]
    assert behind_nat(saw(OLD)).at_once() == [OLD, None]


def test_named_never_leaves_the_address_open_and_says_what_is_missing() -> None:
    candidates = behind_nat(saw(OLD), leaves_open=False)
    assert [candidates.next_round(), candidates.next_round(), candidates.at_once()] == [[OLD]] * 3
    for find in (behind_nat(leaves_open=False).next_round, behind_nat(leaves_open=False).at_once):
        with pytest.raises(OSError, match=r"this machine \(192.168.1.23\) is behind NAT; name its address there"):
            find()


def test_a_site_is_asked_at_once_where_nothing_is_known_and_its_answer_makes_news() -> None:
    site, candidates = Site(NEW, silent=True), behind_nat()
    candidates.may_ask(site)
    assert candidates.next_round() == []
    assert [candidates.has_news] == [False]
    site.free.set()
    settle()
    assert candidates.has_news
    assert candidates.next_round() == [NEW]
    assert [candidates.has_news] == [False]
    assert (candidates.told, site.times) == (NEW, 1)


def test_a_site_is_not_asked_before_a_round_was_in_vain_where_an_address_is_known() -> None:
    site, candidates = Site(NEW, silent=True), behind_nat(saw(OLD))
    candidates.may_ask(site)
    assert candidates.next_round() == [OLD]
    assert site.times == 0
    assert candidates.next_round() == [OLD, None]  # the site has not answered yet
    site.free.set()
    settle()
    assert candidates.has_news
    assert candidates.next_round() == [OLD, NEW]
    assert candidates.next_round() == [OLD, NEW]
    assert site.times == 1
    assert candidates.words() == "9.9.9.1 and the packet's origin and 9.9.9.2"
    assert candidates.doubts() == (
        "this machine (192.168.1.23) is behind NAT; the host saw 9.9.9.1 2 h ago; a site tells 9.9.9.2"
    )


def test_an_answer_that_is_known_already_is_no_news() -> None:
    candidates = behind_nat(saw(OLD))
    candidates.may_ask(Site(OLD))
    candidates.next_round()
    candidates.next_round()
    settle()
    assert not candidates.has_news
    assert candidates.next_round() == [OLD]


def failed(*, leaves_open: bool) -> Candidates:
    """Candidates whose site has answered nonsense before anything was asked for."""
    site, candidates = (
        Site("a.example: answers '<html>', not one plain address", silent=True),
        behind_nat(leaves_open=leaves_open),
    )
    candidates.may_ask(site)
    assert candidates.next_round() == []
    site.free.set()
    settle()
    assert candidates.has_news
    return candidates


def test_where_a_site_does_not_tell_the_origin_is_asked_for_at_once() -> None:
    candidates = failed(leaves_open=True)
    assert candidates.next_round() == [None]
    assert candidates.doubts().endswith("; a.example: answers '<html>', not one plain address")


def test_where_a_site_does_not_tell_named_has_nothing_to_ask_for_and_says_so() -> None:
    with pytest.raises(OSError, match="answers '<html>'"):
        failed(leaves_open=False).next_round()


def test_a_single_knock_waits_for_the_site_and_asks_none_where_the_own_address_can_be_right() -> None:
    candidates, site = behind_nat(saw(OLD)), Site(NEW)
    candidates.may_ask(site)
    assert candidates.at_once() == [OLD, NEW]
    at_home = Candidates(PUBLIC, HOST, [], NOW)
    at_home.may_ask(site)
    assert at_home.at_once() == [PUBLIC]
    assert site.times == 1


@pytest.mark.parametrize(
    ("known", "unsure"),
    [([], True), ([saw(OLD)], True), ([saw(OLD, age=60)], False), ([saw(OLD, by=SITE, age=60)], True)],
)
def test_a_host_behind_nat_is_asked_once_an_hour_where_it_sees_this_machine(known: list[Seen], *, unsure: bool) -> None:
    assert behind_nat(*known).is_unsure(HOST) is unsure
    assert Candidates(PUBLIC, HOST, known, NOW).is_unsure(HOST) is False


OWN6, HOST6 = map(ipaddress.ip_address, ("2001:db8:1::5", "2001:db8::1"))


def test_a_packet_names_a_known_address_of_the_other_family_and_nobody_is_asked() -> None:
    site = Site(PUBLIC)
    direct, six = Candidates(PUBLIC, HOST, (), NOW), Candidates(OWN6, HOST6, (), NOW)
    unknown, seen_before = behind_nat(), behind_nat(saw(OLD))
    for asking in (six, unknown, seen_before):
        asking.may_ask(site)
    assert beside(PUBLIC, [direct, six]) == OWN6
    assert beside(OWN6, [direct, six]) == PUBLIC
    assert beside(OWN6, [unknown, six]) is None, "which address the host would see is not known"
    assert beside(OWN6, [seen_before]) == OLD
    assert beside(None, [direct, six]) is None, "beside an address that is left open"
    assert beside(PUBLIC, [Named(site), direct]) is None
    assert site.times == 0
