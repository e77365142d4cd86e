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
from doorward.daemon.listener import Listener
from doorward.firewall.nftables import Nftables
from doorward.privsep import channel, helper
from doorward.privsep.helper import Helper
from doorward.privsep.limits import Ledger
from doorward.privsep.listener import RemotePower
from doorward.privsep.messages import Open
from doorward.replay import ReplayStore

if TYPE_CHECKING:
    from collections.abc import Callable


def _always(*_: Any) -> bool:
    return True


def _something(_arguments: tuple[Any, ...], result: Any) -> bool:
    return result is not None


def _asks_to_open(arguments: tuple[Any, ...], _result: Any) -> bool:
    return bytes(arguments[1][:1]) == b"O"


def _says_done(arguments: tuple[Any, ...], _result: Any) -> bool:
    return bytes(arguments[1]) == b"d"


def _holds_open(arguments: tuple[Any, ...], _result: Any) -> bool:
    waiting: socket.socket = arguments[0]._channel  # noqa: SLF001  a look at what waits there
    return waiting.recv(1, socket.MSG_PEEK) == b"O"


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
    "before the message to the helper": Step(channel, "send", BEFORE, _asks_to_open),
    "after the message to the helper": Step(channel, "send", AFTER, _asks_to_open),
    "after the reply is read": Step(RemotePower, "open", AFTER),
    "before the audit line": Step(Listener, "_publish", BEFORE),
    "after the audit line": Step(Listener, "_publish", AFTER),
}
HELPER = {
    "before the message is read": Step(Helper, "answer", BEFORE, _holds_open),
    "after the message is read": Step(helper, "decode_request", AFTER, _is_open),
    "before the nft transaction": Step(Nftables, "open", BEFORE),
    "after the nft transaction": Step(Nftables, "open", AFTER),
    "after the grant is recorded": Step(Ledger, "record", AFTER),
    "before the reply": Step(channel, "send", BEFORE, _says_done),
    "after the reply": Step(channel, "send", AFTER, _says_done),
}
_STEPS = LISTENER | HELPER
_paused: list[bool] = []


def _pause() -> None:
    if not _paused:
        _paused.append(True)
        os.write(1, b"paused\n")
        os.read(0, 1)


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
    wrap(_STEPS[sys.argv[1]])
    sys.exit(cli.main(sys.argv[2:]))
