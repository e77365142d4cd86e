"""The scene of each case."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from system.chaos.scene import Scene, playing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace


@pytest.fixture
def scene(pair: tuple[Namespace, Namespace]) -> Iterator[Scene]:
    """A host and a client, with a service behind the host's door."""
    with playing(pair) as made:
        yield made
