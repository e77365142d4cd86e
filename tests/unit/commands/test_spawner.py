"""What the process that starts commands makes of what is no job."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from doorward.commands import spawner
from doorward.commands.messages import JOBS, Job
from doorward.errors import HelperError
from doorward.linux import seqpacket
from doorward.linux.seqpacket import MESSAGE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator


def job(*argv: str) -> Job:
    return Job(argv, (), os.geteuid(), os.getegid(), tuple(os.getgroups()), 5)


@pytest.fixture
def serving() -> Iterator[socket.socket]:
    """Yield the channel to a spawner, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        try:
            ours.close()
            spawner.begin()
            spawner.serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        yield ours
    os.waitpid(pid, 0)


def said(channel: socket.socket, content: bytes) -> bytes:
    """Return what a command says until nobody holds its output any more."""
    pairs = [os.pipe(), os.pipe()]
    given = [os.open(os.devnull, os.O_RDONLY), *(theirs for _, theirs in pairs)]
    seqpacket.send(channel, content, given)
    for descriptor in given:
        os.close(descriptor)
    output, _ = (b"".join(iter(lambda ours=ours: os.read(ours, 4096), b"")) for ours, _ in pairs)  # type: ignore[misc]
    for ours, _ in pairs:
        os.close(ours)
    return output


@pytest.mark.parametrize("wrong", [b"x" * (MESSAGE_MAX + 1), b"x" * 150_130, b"x", b"{}"], ids=len)
def test_what_is_no_job_starts_nothing_and_the_next_job_is_started(serving: socket.socket, wrong: bytes) -> None:
    assert said(serving, JOBS.encode(job("/bin/echo", "before"))) == b"before\n"
    assert not said(serving, wrong)
    assert said(serving, JOBS.encode(job("/bin/echo", "behind"))) == b"behind\n"


def test_a_job_that_is_too_long_for_the_spawner_is_refused_before_it_is_sent() -> None:
    room = MESSAGE_MAX - len(JOBS.encode(job("")))
    assert len(JOBS.encode(job("x" * room))) == MESSAGE_MAX
    with pytest.raises(HelperError, match="60001 bytes"):
        JOBS.encode(job("x" * (room + 1)))
