"""The connection to the share, which only the helper can make."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from doorward.errors import ShareError
from doorward.helper.share import EVERY, Connector, connected

if TYPE_CHECKING:
    from pathlib import Path


def test_a_connection_is_made_once_a_second_at_most(tmp_path: Path) -> None:
    path, connector = tmp_path / "sock", Connector()
    with pytest.raises(ShareError, match="no REPLAY_SHARE is configured"):
        connector.connect(None, 1.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as accepting:
        accepting.bind(str(path))
        accepting.listen()
        descriptor = connector.connect(path, 1.0)
        with pytest.raises(ShareError, match="a moment ago"):
            connector.connect(path, 1.0 + EVERY / 2)
        os.close(connector.connect(path, 1.0 + EVERY))
        with accepting.accept()[0] as theirs, socket.socket(fileno=descriptor) as ours:
            assert not os.get_blocking(ours.fileno())
            ours.send(b"x")
            assert theirs.recv(9) == b"x"


def test_what_cannot_be_reached_is_named_with_its_reason(tmp_path: Path) -> None:
    path, connector = tmp_path / "sock", Connector()
    with pytest.raises(ShareError, match="cannot be reached: No such file"):
        connector.connect(path, 1.0)
    with pytest.raises(ShareError, match="a moment ago"):
        connector.connect(path, 1.5)
    path.write_text("")
    with pytest.raises(ShareError, match="cannot be reached: Connection refused"):
        connected(path)


def test_a_server_that_accepts_nobody_costs_no_time(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    made: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as accepting:
        accepting.bind(str(path))
        accepting.listen(1)
        with pytest.raises(ShareError, match="it accepts nobody"):
            made.extend(iter(lambda: connected(path), None))
    assert made
    for descriptor in made:
        os.close(descriptor)
