"""The helper against a listener that is not one any more: floods, and every kind of broken message."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from system import netns
from system.chaos.helpers import FLOODED, SOURCE, messages
from system.chaos.scene import PLANTED, playing
from system.doorwardd import environment, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.chaos.scene import Scene

    Outcomes = tuple[dict[str, str], dict[str, Any], dict[str, int]]

FLOOD = Path(__file__).with_name("flood.py")
HELPERS = Path(__file__).with_name("helpers.py")
REFUSED = {"good": "Done", "a window that no stanza allows": "Refused"}


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    """What came of each message, of the flood, and how often the kernel opened a door for which source."""
    with netns.network("host", "client") as (host, client), playing((host, client)) as scene:
        ended = scene.host.run(sys.executable, str(HELPERS), "-f", *scene.files, env=environment())
        each, flood = map(json.loads, ended.stdout.splitlines())
        assert eventually(lambda: FLOODED in scene.witness.additions)
        yield each, flood, {source: scene.witness.times(source) for source in scene.witness.additions}


@pytest.mark.parametrize("name", messages())
def test_the_helper_ends_at_a_message_that_is(outcomes: Outcomes, name: str) -> None:
    assert outcomes[0][name] == REFUSED.get(name, "ended 0")


def test_no_message_but_the_good_one_opens_a_door(outcomes: Outcomes) -> None:
    each, _, doors = outcomes
    assert doors.pop(FLOODED) > 1
    assert doors.pop(PLANTED) == 0
    assert doors == {SOURCE: 1}, each
    assert set(each) == set(messages())


def test_a_helper_whose_answers_are_not_taken_ends(outcomes: Outcomes) -> None:
    assert outcomes[1]["ended"], outcomes[1]
    assert outcomes[1]["sent"] > 0


@pytest.mark.parametrize("reading", ["that takes its answers", "that takes no answer"])
def test_a_flood_from_a_listener(scene: Scene, reading: str) -> None:
    with scene.daemon(script=(str(FLOOD), reading)) as daemon:
        assert eventually(lambda: len(scene.witness.additions) > 100)
        scene.host.nft("flush ruleset\n")
        assert daemon.process.wait(20) is not None
    with scene.daemon() as daemon:
        scene.check(daemon)
