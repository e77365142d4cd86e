"""Which connections have lived too long: none that another grant can have let in, and none by a wrong beginning."""

from __future__ import annotations

import io
import ipaddress
import logging
from typing import TYPE_CHECKING

import pytest

from doorward.config.stanza import Client
from doorward.crypto import doorward
from doorward.helper.sessions import Sessions
from doorward.linux.sessions import End, Flow
from doorward.record import granted
from doorward.record.granted import Granted
from doorward.values import Grant, Protocol, Secret, Service
from unit.making import stanza

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.config.stanza import Stanza
    from doorward.record.log import Log

NOW = 1_800_000_000.0
HOST, SOURCE = ipaddress.ip_address("198.51.100.1"), ipaddress.ip_address("192.0.2.7")
SSH, WEB = Service.parse("tcp/22"), Service.parse("tcp/443")
LONGER = stanza(2, name="phone", session_max=90)
LIMITED = stanza(name="laptop", session_max=60, open_ports=frozenset({SSH}))


def flow(began: float | None = None, port: int = 22) -> Flow:
    here = End(HOST, port)
    return Flow(Protocol.TCP, End(SOURCE, 50000), here, here, b"key", established=True, began=began)


def granting(at: float, name: str | None = "laptop", service: Service = SSH) -> list[Granted]:
    return list(Granted.of(Grant(SOURCE, (service,), 30, name=name), at))


def looking(folder: Path, *stanzas: Stanza) -> Sessions:
    log: Log = logging.StreamHandler(io.StringIO())  # type: ignore[assignment]
    made = Sessions(log)
    made.follow(folder, stanzas)
    return made


def too_old(made: Sessions, one: Flow, now: float) -> tuple[int, str] | None:
    return made._too_old(one, now)  # noqa: SLF001  without a kernel


def test_a_connection_is_too_old_once_its_time_is_over(tmp_path: Path) -> None:
    made = looking(tmp_path, LIMITED)
    made.opened(granting(NOW - 100))
    assert too_old(made, flow(NOW - 90), NOW - 30.5) is None
    assert too_old(made, flow(NOW - 90), NOW - 29.5) == (60, "laptop")


def test_without_a_time_it_counts_from_its_window_and_later_knocks_give_it_no_more(tmp_path: Path) -> None:
    made = looking(tmp_path, LIMITED)
    made.opened(granting(NOW - 100))
    assert too_old(made, flow(), NOW - 95) is None
    made.opened(granting(NOW - 50))
    assert too_old(made, flow(), NOW - 41) is None
    assert too_old(made, flow(), NOW - 39) == (60, "laptop")


def test_after_a_restart_it_counts_from_the_last_window(tmp_path: Path) -> None:
    granted.append(tmp_path, [*granting(NOW - 200), *granting(NOW - 100)])
    made = looking(tmp_path, LIMITED)
    assert too_old(made, flow(), NOW - 41) is None
    assert too_old(made, flow(), NOW - 39) == (60, "laptop")


@pytest.mark.parametrize(
    ("stanzas", "entries", "expected"),
    [
        ((LIMITED, stanza(2, name="phone")), granting(NOW, "phone"), None),
        ((LIMITED, stanza(2, name="phone")), [*granting(NOW), *granting(NOW, "phone")], None),
        ((LIMITED, stanza(2, name="laptop", open_ports=frozenset({SSH}))), granting(NOW), None),
        ((LIMITED, stanza(2, name="laptop", open_ports=frozenset({WEB}))), granting(NOW), (60, "laptop")),
        ((LIMITED, LONGER), [*granting(NOW), *granting(NOW, "phone")], (90, "laptop or phone")),
        ((LIMITED,), granting(NOW, "gone"), None),
        ((stanza(session_max=60),), granting(NOW, None), (60, "no name")),
        ((LIMITED,), granting(NOW, service=WEB), None),
    ],
    ids=[
        "another's", "perhaps another's", "two stanzas of one name", "two stanzas, one of another service",
        "the longer limit", "a client that is gone", "no name", "another service",
    ],
)  # fmt: skip
def test_in_doubt_nothing_is_too_old(
    tmp_path: Path, stanzas: tuple[Stanza, ...], entries: list[Granted], expected: tuple[int, str] | None
) -> None:
    made = looking(tmp_path, *stanzas)
    made.opened(entries)
    assert too_old(made, flow(NOW), NOW + 1000) == expected


def test_a_client_of_a_stanza_has_its_limit_under_its_own_name(tmp_path: Path) -> None:
    clients = tuple(
        Client(doorward.public_key(Secret(bytes([number]) * 32)), name) for number, name in ((1, "ann"), (2, None))
    )
    made = looking(tmp_path, stanza(keys=None, clients=clients, name="team", session_max=60))
    for name in ("ann", "team"):
        made.opened(granting(NOW, name))
    assert too_old(made, flow(NOW), NOW + 61) == (60, "ann or team")


def test_a_reload_without_the_option_forgets_and_one_with_it_reads_the_record(tmp_path: Path) -> None:
    made = looking(tmp_path, LIMITED)
    granted.append(tmp_path, granting(NOW))
    made.follow(tmp_path, [stanza(name="laptop")])
    made.opened(granting(NOW))
    assert too_old(made, flow(NOW), NOW + 61) is None
    made.follow(tmp_path, [LIMITED])
    assert too_old(made, flow(NOW), NOW + 61) == (60, "laptop")
