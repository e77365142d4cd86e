from __future__ import annotations

import array
import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from doorward.linux.systemd import Notifier, listen_fds

if TYPE_CHECKING:
    from pathlib import Path

ME = str(os.getpid())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {}),  # for another process, from which this one inherited the words
        ({"LISTEN_PID": ME, "LISTEN_FDS": "1"}, {3: ""}),
        ({"LISTEN_PID": ME, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "one:two"}, {3: "one", 4: "two"}),
        ({"LISTEN_PID": ME, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "one"}, {3: "one", 4: ""}),
    ],
)
def test_descriptors_that_were_handed_over_have_their_names(
    environment: dict[str, str], expected: dict[int, str]
) -> None:
    assert listen_fds(environment) == expected


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_gets_states_and_descriptors(tmp_path: Path, *, abstract: bool) -> None:
    name = f"@doorward-test-{ME}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        with closing(Notifier({"NOTIFY_SOCKET": name})) as notify:
            notify("READY=1")
            assert manager.recv(100) == b"READY=1"
            notify.store("listener", manager.fileno())
            content, ancillary, _, _ = manager.recvmsg(100, 100)
    assert content == b"FDSTORE=1\nFDNAME=listener"
    ((_, kind, packed),) = ancillary
    assert kind == socket.SCM_RIGHTS
    os.close(array.array("i", packed)[0])


def test_without_a_service_manager_nothing_is_sent() -> None:
    with closing(Notifier({})) as notify:
        notify("READY=1")
        notify.store("listener", 0)
