"""`doorward connect` under the real ssh, against a real sshd behind a real default-drop table.

The door keeper here is small on purpose: it can lose packets and stay silent at will. What it opens is the kernel's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from doorward.crypto.symmetric import SymmetricKeys, unseal
from doorward.errors import DoorwardError
from doorward.firewall import ruleset
from doorward.values import Secret, address, unmap
from doorward.wire import fwknop
from system import netns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from system.netns import Namespace

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
KEYS = SymmetricKeys(Secret(b"k" * 32), Secret(b"h" * 64))
RC_FILE = f"[default]\nKEY {'k' * 32}\nHMAC_KEY {'h' * 64}\n"
WRONG_RC_FILE = f"[default]\nKEY {'k' * 32}\nHMAC_KEY {'x' * 64}\n"
NO_KEY_RC_FILE = "[default]\nSPA_SERVER_PORT 62201\n"
DROP = f"""\
table inet doorward {{
{ruleset.SETS}
    chain input {{
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state established accept
        ip6 nexthdr icmpv6 accept
        udp dport 62201 accept
{ruleset.GRANT_RULES}
    }}
}}
"""


@dataclass(slots=True)
class Door:
    """Opens the kernel's sets for good packets. `lose` packets are dropped first; `families` are those that open."""

    host: Namespace
    lose: int = 0
    families: tuple[int, ...] = (4, 6)
    seen: list[str] = field(default_factory=list)  # the messages, or why a packet was none
    payloads: list[bytes] = field(default_factory=list)

    @contextlib.contextmanager
    def kept(self) -> Iterator[Door]:
        """Keep the door while the block runs."""
        with self.host.inside(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::", 62201))
            over = threading.Event()
            keeper = threading.Thread(target=self._keep, args=(listener, over))
            keeper.start()
        # the socket was duplicated for the thread: it belongs to the host's namespace for good
        try:
            yield self
        finally:
            over.set()
            keeper.join()

    def _keep(self, listener: socket.socket, over: threading.Event) -> None:
        with listener.dup() as inbox:
            while not over.is_set():
                if select.select([inbox], [], [], 0.02)[0]:
                    payload, origin = inbox.recvfrom(2048)
                    self._judge(payload, unmap(socket.inet_pton(socket.AF_INET6, origin[0])))

    def _judge(self, payload: bytes, origin: bytes) -> None:
        self.payloads.append(payload)
        try:
            message = fwknop.parse(unseal(payload, KEYS))
            access = fwknop.parse_access(message.text)
        except DoorwardError as error:
            self.seen.append(str(error))
            return
        self.seen.append(message.text)
        source = access.source or address(origin)
        if len(self.seen) <= self.lose or source.version not in self.families:
            return
        for service in access.services:
            element = f"{source} . {service.protocol} . {service.port} timeout 30s"
            self.host.nft(f"add element inet doorward open{source.version} {{ {element} }}")
