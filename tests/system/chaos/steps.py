"""doorwardd with a pause at one step of a grant, for whoever wants to kill it there.

Run as `steps.py STEP [doorwardd's options]`: the real daemon, one of its functions wrapped. When the step is reached it
prints `paused` on standard output and goes on after a byte on standard input; only the first grant is held up.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from doorward.capture.packet import PacketCapture
from doorward.daemon import cli
from doorward.firewall.nftables import Nftables
from doorward.helper.limits import Ledger
from doorward.helper.messages import REPLIES, REQUESTS, Done, Open
from doorward.helper.remote import RemotePower
from doorward.helper.server import Helper
from doorward.linux import seqpacket
from doorward.linux.codec import Codec
from doorward.linux.seqpacket import MESSAGE_MAX
from doorward.listener.loop import Listener
from doorward.replay import ReplayStore

if TYPE_CHECKING:
    from collections.abc import Callable


def _always(*_: Any) -> bool:
    return True


def _something(_arguments: tuple[Any, ...], result: Any) -> bool:
    return result is not None


def _opens(content: bytes) -> bool:
    return content[:1] == b"Q" and isinstance(REQUESTS.decode(content), Open)


def _asks_to_open(arguments: tuple[Any, ...], _result: Any) -> bool:
    return _opens(arguments[1])


def _says_done(arguments: tuple[Any, ...], _result: Any) -> bool:
    return bytes(arguments[1]) == REPLIES.encode(Done())


def _holds_open(arguments: tuple[Any, ...], _result: Any) -> bool:
    waiting: socket.socket = arguments[0]._channel  # noqa: SLF001  a look at what waits there
    return _opens(waiting.recv(MESSAGE_MAX, socket.MSG_PEEK))


def _is_open(_arguments: tuple[Any, ...], result: Any) -> bool:
    return isinstance(result, Open)


@dataclass(frozen=True)
class Step:
    """Where to pause: before or after a function, when the condition holds for its arguments and result."""

    owner: Any
    name: str
    after: bool
    when: Callable[[tuple[Any, ...], Any], bool] = _always


BEFORE, AFTER = False, True
LISTENER = {
    "before the packet is received": Step(PacketCapture, "receive", BEFORE),
    "after the packet is received": Step(PacketCapture, "receive", AFTER, _something),
    "before the packet is remembered": Step(ReplayStore, "remember", BEFORE),
    "after the packet is remembered": Step(ReplayStore, "remember", AFTER),
    "before the message to the helper": Step(seqpacket, "send", BEFORE, _asks_to_open),
    "after the message to the helper": Step(seqpacket, "send", AFTER, _asks_to_open),
    "after the reply is read": Step(RemotePower, "open", AFTER),
    "before the audit line": Step(Listener, "_publish", BEFORE),
    "after the audit line": Step(Listener, "_publish", AFTER),
}
HELPER = {
    "before the message is read": Step(Helper, "answer", BEFORE, _holds_open),
    "after the message is read": Step(Codec, "decode", AFTER, _is_open),
    "before the nft transaction": Step(Nftables, "open", BEFORE),
    "after the nft transaction": Step(Nftables, "open", AFTER),
    "after the grant is recorded": Step(Ledger, "record", AFTER),
    "before the reply": Step(seqpacket, "send", BEFORE, _says_done),
    "after the reply": Step(seqpacket, "send", AFTER, _says_done),
}
_STEPS = LISTENER | HELPER
_paused: list[bool] = []


def _pause() -> None:
    if not _paused:
        _paused.append(True)
        os.write(_OUTPUT, b"paused\n")
        os.read(_INPUT, 1)


def wrap(step: Step) -> None:
    """Put the pause around the real function."""
    real = getattr(step.owner, step.name)

    def wrapped(*arguments: Any) -> Any:
        if not step.after and step.when(arguments, None):
            _pause()
        result = real(*arguments)
        if step.after and step.when(arguments, result):
            _pause()
        return result

    setattr(step.owner, step.name, wrapped)


if __name__ == "__main__":
    _INPUT, _OUTPUT = os.dup(0), os.dup(1)  # the listener has others on 0 and 1
    wrap(_STEPS[sys.argv[1]])
    sys.exit(cli.main(sys.argv[2:]))
