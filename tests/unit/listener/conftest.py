"""What the tests of the share have in common: a server that answers, and a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from doorward.listener import share
from doorward.record import log
from unit.resp_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doorward.record.log import Log


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not decide these tests."""
    monkeypatch.setattr(share, "PATIENCE", 10.0)


@pytest.fixture
def lines() -> Iterator[Log]:
    made = log.make(foreground=True, verbose=False, identity="test", facility="daemon")
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()
