"""The real helper, one for each message that a listener could send it, and what came of each.

Run as `helpers.py [doorwardd's options]`, as root, in a namespace of its own; prints a JSON object. Each message goes
to a new process that has read the configuration and acts on it, as it has for every listener.
"""

from __future__ import annotations

import array
import ipaddress
import json
import os
import select
import socket
import sys
import warnings

from doorward.helper.messages import REPLIES, REQUESTS, Adopt, Adopted, Configuration, Configure, Done, Open
from doorward.helper.process import HelperProcess
from doorward.linux.seqpacket import MESSAGE_MAX
from doorward.processes import options
from doorward.record import log
from doorward.values import Grant, Service

SOURCE, FLOODED = "192.0.2.7", "192.0.2.8"


def asking(source: str, seconds: int = 1) -> bytes:
    """Return the good message for a source."""
    return REQUESTS.encode(Open(Grant(ipaddress.ip_address(source), (Service.parse("tcp/22"),), seconds)))


GOOD = asking(SOURCE)
PORT, SECONDS = (22).to_bytes(8, "big"), (1).to_bytes(8, "big")
PATIENCE = 5.0


def changed(old: bytes, new: bytes) -> bytes:
    """Return the good message with other bytes in the place of those that it has once."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def messages() -> dict[str, tuple[bytes, int]]:
    """Return every message with the number of descriptors that go with it."""
    cut = {f"cut off after {length} bytes": GOOD[:length] for length in range(1, len(GOOD))}
    service = b"\0\1\0" + PORT  # one, its protocol and its port
    broken = {
        "a window of 136 years": changed(SECONDS, (2**32 - 1).to_bytes(8, "big")),
        "one byte more": GOOD + b"\0",
        "of an unknown kind": GOOD[:1] + b"\x09" + GOOD[2:],
        "of another channel": b"X" + GOOD[1:],
        "a reply": REPLIES.encode(Done()),
        "the configuration asked for with something behind": REQUESTS.encode(Configure()) + b"\0",
        "as long as a message can be": GOOD.ljust(MESSAGE_MAX, b"\0"),
        "too long": GOOD.ljust(MESSAGE_MAX + 1, b"\0"),
        "no service": changed(service, b"\0\0"),
        "more services than there are": changed(service, b"\0\2\0" + PORT),
        "port 0": changed(PORT, bytes(8)),
        "an unknown protocol": changed(service, b"\0\1\xff" + PORT),
        "no window": changed(SECONDS, bytes(8)),
        "a negative window": changed(SECONDS, b"\xff" * 8),
        "the unspecified source": changed(ipaddress.ip_address(SOURCE).packed, bytes(4)),
    }
    named = {name: (content, 0) for name, content in {**cut, **broken}.items()}
    passing = {f"{count} descriptors attached": (GOOD, count) for count in (1, 4, 5, 100)}
    longer = asking(SOURCE, 301)
    return {**named, **passing, "a window that no stanza allows": (longer, 0), "good": (GOOD, 0)}


def configured(ours: socket.socket) -> None:
    """Have the helper read its configuration and act on it, as every listener has first."""
    for request, reply in ((Configure(), Configuration), (Adopt(), Adopted)):
        ours.send(REQUESTS.encode(request))
        assert isinstance(REPLIES.decode(ours.recv(100)), reply)


def outcome(content: bytes, descriptors: int) -> str:
    """Return what a new helper does with a message: `ended`, or the kind of its reply."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if not child:
        ours.close()
        _serve(theirs)
    theirs.close()
    with ours:
        ours.settimeout(PATIENCE)
        configured(ours)
        null = os.open(os.devnull, os.O_RDONLY)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * descriptors))]
        ours.sendmsg([content], rights if descriptors else [])
        os.close(null)
        try:
            reply = ours.recv(MESSAGE_MAX)
        except ConnectionResetError:
            reply = b""
    _, status = os.waitpid(child, 0)
    return type(REPLIES.decode(reply)).__name__ if reply else f"ended {os.waitstatus_to_exitcode(status)}"


def flooded() -> dict[str, object]:
    """Return what came of a listener that asks without end and takes no answer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if not child:
        ours.close()
        _serve(theirs)
    theirs.close()
    sent = 0
    with ours:
        configured(ours)
        ours.settimeout(0)
        waiting = select.poll()
        waiting.register(ours, select.POLLOUT)
        while (ready := waiting.poll(PATIENCE * 1000)) and not ready[0][1] & select.POLLHUP:
            try:
                ours.send(asking(FLOODED))
            except BlockingIOError:
                continue
            except OSError:
                break
            sent += 1
        _, status = os.waitpid(child, os.WNOHANG if not ready else 0)
    return {"ended": bool(ready), "sent": sent, "code": status}


def _serve(channel: socket.socket) -> None:
    """Be the helper, and nothing after it."""
    lines = log.make(foreground=True, verbose=False, identity="helper", facility="daemon")
    try:
        HelperProcess(OPTIONS, lines).serve(channel, None, lambda _numbers: None)
    finally:
        lines.close()
        os._exit(0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    OPTIONS = options.parser().parse_args(sys.argv[1:])
    print(json.dumps({name: outcome(*message) for name, message in messages().items()}))  # noqa: T201  the outcome
    print(json.dumps(flooded()))  # noqa: T201  as above
