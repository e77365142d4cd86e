"""The helper's own bounds on the tags that a listener wants the kernel to let pass."""

from __future__ import annotations

import pytest

from doorward.errors import FirewallError, WireError
from doorward.helper.admission import EPOCH, PAUSE, Admission
from doorward.helper.messages import TAG_BYTES, Tags
from doorward.wire import doorward

NOW = 1_800_000_010.0
PRESENT = int(NOW // EPOCH)
LEFT = (PRESENT + 1) * EPOCH - NOW  # seconds of the present epoch


def some(count: int, epoch: int = PRESENT, first: int = 0, *, last: bool = True) -> Tags:
    joined = b"".join(number.to_bytes(TAG_BYTES, "big") for number in range(first, first + count))
    return Tags(epoch, joined, last=last)


def admission(clients: int) -> Admission:
    made = Admission()
    made.adopt(clients)
    return made


def test_each_tag_ends_with_the_epoch_behind_its_own() -> None:
    taking = admission(1)
    assert EPOCH * 1000 == doorward.EPOCH_MS
    assert taking.take(some(1, PRESENT - 1, 1, last=False), NOW, 50.0) is None
    assert taking.take(some(1, PRESENT, 2, last=False), NOW, 50.0) is None
    found = taking.take(some(1, PRESENT + 1, 3), NOW, 50.0)
    assert found is not None
    assert {tag[-1]: end for tag, end in found.items()} == {1: 50 + LEFT, 2: 50 + LEFT + 64, 3: 50 + LEFT + 128}


def test_one_tag_of_two_epochs_lives_as_long_as_the_later_one() -> None:
    for epochs in ((PRESENT, PRESENT + 1), (PRESENT + 1, PRESENT)):
        taking = admission(1)
        taking.take(some(1, epochs[0], last=False), NOW, 50.0)
        assert taking.take(some(1, epochs[1]), NOW, 50.0) == {bytes(TAG_BYTES): 50 + LEFT + 128}


@pytest.mark.parametrize("clients", [0, 1, 5])
def test_there_are_no_more_tags_than_clients_can_have(clients: int) -> None:
    taking = admission(clients)
    assert taking.take(some(3 * clients), NOW, 0.0) == {
        number.to_bytes(TAG_BYTES, "big"): LEFT + 64 for number in range(3 * clients)
    }
    with pytest.raises(FirewallError, match=f"{3 * clients + 1} tags, where {3 * clients} can be live"):
        taking.take(some(3 * clients + 1), NOW, 9.0)


def test_too_many_tags_in_several_messages_are_refused_and_the_next_refresh_begins_anew() -> None:
    taking = admission(2)
    for _ in range(3):
        assert taking.take(some(2, last=False), NOW, 0.0) is None
    with pytest.raises(FirewallError, match="8 tags, where 6 can be live"):
        taking.take(some(2), NOW, 0.0)
    assert taking.take(some(6), NOW, 0.0) is not None


def test_a_second_refresh_waits_for_a_second_and_a_new_configuration_does_not() -> None:
    taking = admission(1)
    assert taking.take(some(3), NOW, 7.0) is not None
    with pytest.raises(FirewallError, match="a second time within 1 s"):
        taking.take(some(3), NOW, 7.0 + PAUSE - 0.01)
    taking.adopt(1)
    assert taking.take(some(3), NOW, 7.5) is not None
    with pytest.raises(FirewallError, match="a second time"):
        taking.take(some(3), NOW, 8.4)
    assert taking.take(some(0, 0), NOW, 8.5) == {}


@pytest.mark.parametrize(("epoch", "is_taken"), [(-3, False), (-2, True), (-1, True), (0, True), (1, True), (2, False)])
def test_an_epoch_far_off_is_refused(epoch: int, is_taken: bool) -> None:  # noqa: FBT001  an expected value
    taking = admission(1)
    if is_taken:  # the clock may have gone on by one since the listener read it: such a tag has ended
        assert taking.take(some(1, PRESENT + epoch), NOW, 0.0) == {bytes(TAG_BYTES): LEFT + 64 * (epoch + 1)}
    else:
        with pytest.raises(FirewallError, match=f"tags of an epoch that is .{abs(epoch)} from now"):
            taking.take(some(1, PRESENT + epoch), NOW, 0.0)


@pytest.mark.parametrize(("epoch", "tags"), [(1, bytes(7)), (1, bytes(9)), (-1, bytes(8)), ((1 << 48) + 1, b"")])
def test_a_message_of_parts_of_tags_or_of_no_epoch_cannot_be(epoch: int, tags: bytes) -> None:
    with pytest.raises(WireError):
        Tags(epoch, tags, last=True)
