"""The text of the kernel gate, and the bytes of a transaction that changes its tags."""

from __future__ import annotations

import pytest

from doorward.firewall.kernel_gate import Wanted, element, transaction
from unit.firewall.test_batch import ACKNOWLEDGE, BEGIN, DELETE, END, NESTED, NEW, attributes, messages


def test_only_where_fwknops_format_is_used_its_lengths_pass() -> None:
    only, both = Wanted(62201, fwknop=False, clients=1), Wanted(62201, fwknop=True, clients=1)
    line = "        udp length != 172 udp length 148-1508 accept\n"
    assert both.text.replace(line, "") == only.text
    assert line in both.text
    assert only.text.count("accept\n") == 1
    assert "udp dport 62201 jump knock" in only.text
    assert Wanted(53, fwknop=False, clients=1).text == only.text.replace("62201", "53")


@pytest.mark.parametrize(("clients", "size"), [(1, 1024), (170, 1024), (171, 2048), (10_000, 65536)])
def test_there_is_room_for_the_tags_of_two_refreshes(clients: int, size: int) -> None:
    assert 6 * clients <= size
    assert f"size {size};" in Wanted(62201, fwknop=False, clients=clients).text


def test_a_transaction_does_each_thing_with_every_tag_and_the_last_one_is_acknowledged() -> None:
    tags = [b"abcdefgh", b"ABCDEFGH"]
    content = transaction((12, 14, 12), element(tags[0], 5000) + element(tags[1], 1))
    first, *changes, last = messages(content)
    assert [first[0], last[0]] == [BEGIN, END]
    assert [kind for kind, _, _ in changes] == [NEW, DELETE, NEW]
    assert [bool(flags & ACKNOWLEDGE) for _, flags, _ in changes] == [False, False, True]
    for _, _, body in changes:
        outer = attributes(body)
        assert (outer[1], outer[2]) == (b"doorward_gate\0", b"tag\0")
        listed, found = outer[3 | NESTED], []
        while listed:
            length = int.from_bytes(listed[:2], "little")
            inner = attributes(listed[4:length])
            found.append((attributes(inner[1 | NESTED])[1], int.from_bytes(inner[4], "big")))
            listed = listed[length:]
        assert found == [(tags[0], 5000), (tags[1], 1)]
