from __future__ import annotations

import os
import socket

from doorward.client import fdpass


def test_one_socket_on_both_standard_channels_asks_for_the_descriptor() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        twice = os.dup(theirs.fileno())
        assert fdpass.wants_descriptor(theirs.fileno(), twice)
        os.close(twice)


def test_two_different_sockets_or_pipes_ask_for_the_bytes() -> None:
    first, second = socket.socketpair()
    reader, writer = os.pipe()
    with first, second:
        assert not fdpass.wants_descriptor(first.fileno(), second.fileno())
        assert not fdpass.wants_descriptor(reader, second.fileno())
        assert not fdpass.wants_descriptor(reader, writer)
        assert not fdpass.wants_descriptor(reader, reader)
    os.close(reader)
    os.close(writer)
    assert not fdpass.wants_descriptor(writer, writer)


def test_the_descriptor_comes_with_exactly_one_byte_and_blocks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as connection:
            connection.settimeout(0)
            fdpass.pass_descriptor(connection, theirs.fileno())
        theirs.close()
        content, descriptors, _, _ = socket.recv_fds(ours, 100, 4)
        assert content == b"\0"
        assert len(descriptors) == 1
        assert ours.recv(1) == b""
        with socket.socket(fileno=descriptors[0]) as passed, server.accept()[0] as accepted:
            assert passed.getsockname() == accepted.getpeername()
            assert os.get_blocking(passed.fileno())
