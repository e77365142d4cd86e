"""Fixtures of the system tests: namespaces that live as long as one test."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system import netns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace


@pytest.fixture(autouse=True, scope="session")
def _root() -> None:
    """Fail, not skip, where the tests cannot be meant: a skipped suite looks like a passed one."""
    assert netns.capable(), "the system tests make network namespaces and need root"


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder of root's that every account can reach; tmp_path is for root alone."""
    with tempfile.TemporaryDirectory(prefix="doorward-") as made:
        path = Path(made)
        path.chmod(0o711)
        yield path


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """One namespace with nothing but `lo`."""
    with netns.namespace() as made:
        yield made


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """A host and a client on one switch."""
    with netns.network("host", "client") as (host, client):
        yield host, client


@pytest.fixture
def trio() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """A host, a client and an outsider on one switch."""
    with netns.network("host", "client", "outsider") as (host, client, outsider):
        yield host, client, outsider
