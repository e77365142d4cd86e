"""Handing a connection to the parent process: as a descriptor, or byte by byte."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from typing import Final

_CHUNK: Final = 1 << 16


def wants_descriptor(stdin: int, stdout: int) -> bool:
    """Whether ssh started this process under ProxyUseFdpass: both descriptors are the same end of a socket pair.

    A socket on stdout alone is not enough: some programs use socket pairs where others use pipes.
    """
    try:
        ends = os.fstat(stdin), os.fstat(stdout)
    except OSError:
        return False
    same = (ends[0].st_dev, ends[0].st_ino) == (ends[1].st_dev, ends[1].st_ino)
    return same and stat.S_ISSOCK(ends[1].st_mode)


def pass_descriptor(connection: socket.socket, stdout: int) -> None:
    """Send the connection over the socket: one byte with the descriptor (OpenSSH monitor_fdpass.c).

    Raises:
        OSError: the parent does not receive it.
    """
    connection.settimeout(None)
    with socket.socket(fileno=os.dup(stdout)) as channel:
        socket.send_fds(channel, [b"\0"], [connection.fileno()])


def relay(connection: socket.socket, stdin: int, stdout: int) -> None:
    """Copy bytes both ways until both sides have ended; each direction may end alone.

    A thread a direction with blocking calls: neither waits for the other, and the descriptors, which the parent
    shares, keep their flags.
    """
    connection.settimeout(None)
    _keep_line_ends(stdin, stdout)
    upwards = threading.Thread(target=_copy_up, args=(stdin, connection), daemon=True)
    upwards.start()
    if _copy_down(connection, stdout):
        upwards.join()


def _keep_line_ends(*descriptors: int) -> None:
    """Have Windows change no byte; elsewhere there is nothing to do."""
    if hasattr(os, "O_BINARY"):
        import msvcrt  # noqa: PLC0415  of Windows

        for descriptor in descriptors:
            vars(msvcrt)["setmode"](descriptor, vars(os)["O_BINARY"])  # mypy knows neither on other systems


def _copy_up(stdin: int, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := os.read(stdin, _CHUNK):
            connection.sendall(chunk)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _copy_down(connection: socket.socket, stdout: int) -> bool:
    """Copy until the host has ended; False if the connection or the reader is gone."""
    try:
        while chunk := connection.recv(_CHUNK):
            _write_all(stdout, chunk)
        os.close(stdout)
    except OSError:
        return False
    return True


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
