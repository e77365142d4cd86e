"""The listener's side of doorward-exec: it never waits, and what is picked for mail."""

from __future__ import annotations

import ipaddress
import socket
from functools import partial

import pytest

from doorward.commands.messages import ORDERS, Execute, Report
from doorward.commands.remote import REPORTS_MAX, WAITING_MAX, ExecClient
from doorward.config.settings import Alerts
from doorward.errors import HelperError
from doorward.listener.alerting import SUMMARY, Alerting
from doorward.record.line import is_cheap
from doorward.values import Execution, Reason, Service
from unit.making import stanza

ADDRESS = ipaddress.ip_address("192.0.2.7")
KNOCK = Execution(1, ADDRESS, ADDRESS, ADDRESS, 30, 1_800_000_000, Service.parse("tcp/22"))


def pair() -> tuple[ExecClient, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(0)
    return ExecClient(ours), theirs


def received(orders: ExecClient, theirs: socket.socket) -> list[object]:
    found: list[object] = []
    while orders.waiting or len(found) < 100_000:
        orders.flush()
        try:
            found.append(ORDERS.decode(theirs.recv(60_000)))
        except BlockingIOError:
            break
    return found


def test_without_doorward_exec_an_execution_is_refused_and_a_report_counted() -> None:
    orders = ExecClient(None)
    with pytest.raises(HelperError, match="not running"):
        orders.execute(KNOCK, stanza())
    orders.report("x", granted=True)
    orders.reread()
    assert orders.dropped == 1


def test_a_doorward_exec_that_reads_nothing_is_never_waited_for() -> None:
    orders, theirs = pair()
    with theirs:
        taken = 0
        while not orders.waiting:
            orders.execute(KNOCK, stanza())
            taken += 1
        for _ in range(WAITING_MAX - 1):
            orders.execute(KNOCK, stanza())
        with pytest.raises(HelperError, match="does not keep up"):
            orders.execute(KNOCK, stanza())
        assert len(received(orders, theirs)) == taken + WAITING_MAX - 1
        orders.execute(KNOCK, stanza())
        assert len(received(orders, theirs)) == 1
        orders.close()


def test_reports_leave_room_for_executions_and_keep_their_order() -> None:
    orders, theirs = pair()
    with theirs:
        for _ in range(100_000):
            orders.report("x" * 200, granted=False)
        assert orders.dropped
        for _ in range(WAITING_MAX - REPORTS_MAX):
            orders.execute(KNOCK, stanza())
        found = received(orders, theirs)
        kinds = [type(one) for one in found]
        assert kinds == sorted(kinds, key=[Report, Execute].index)
        assert kinds.count(Execute) == WAITING_MAX - REPORTS_MAX
        orders.close()


def test_a_channel_that_is_broken_raises_nothing_but_a_refusal() -> None:
    orders, theirs = pair()
    theirs.close()
    for _ in range(WAITING_MAX):
        orders.execute(KNOCK, stanza())
    with pytest.raises(HelperError):
        orders.execute(KNOCK, stanza())
    orders.close()


def test_strangers_are_mailed_as_a_sum_and_others_one_by_one() -> None:
    orders, theirs = pair()
    with theirs:
        alerting = Alerting(Alerts(("root@example.org",)), orders, now=0.0)
        for reason in (Reason.HMAC, Reason.HMAC, Reason.MALFORMED, Reason.GRANTED, Reason.SERVICES, Reason.REPLAY):
            alerting.tell(reason, partial("reason={}".format, reason), cheap=is_cheap(reason, stanza()))
        alerting.tick(SUMMARY - 1)
        assert received(orders, theirs) == [
            Report(granted=True, line="reason=granted"),
            Report(granted=False, line="reason=services"),
        ]
        alerting.tick(SUMMARY)
        (summary,) = received(orders, theirs)
        assert isinstance(summary, Report)
        assert summary.line.endswith("malformed=1 hmac=2 replay=1")
        alerting.tick(2 * SUMMARY)
        assert not received(orders, theirs)
        orders.close()


@pytest.mark.parametrize(("granted", "denied"), [(True, False), (False, True)])
def test_only_the_events_that_are_wanted_are_reported(granted: bool, denied: bool) -> None:  # noqa: FBT001  a case
    orders, theirs = pair()
    with theirs:
        alerting = Alerting(Alerts(("root@example.org",), granted=granted, denied=denied), orders, now=0.0)
        alerting.tell(Reason.GRANTED, lambda: "x", cheap=False)
        alerting.tell(Reason.SERVICES, lambda: "x", cheap=False)
        alerting.tell(Reason.HMAC, lambda: "x", cheap=True)
        alerting.tick(SUMMARY)
        assert [one.granted for one in received(orders, theirs) if isinstance(one, Report)] == (
            [True] if granted else [False, False]
        )
        # a line that nobody asked for costs more than all the rest of a bad packet
        Alerting(None, orders, now=0.0).tell(Reason.GRANTED, partial(pytest.fail, "a line for nobody"), cheap=False)
        assert not received(orders, theirs)
        orders.close()
