"""A listener that was taken over and asks the helper for what it allows, for FLOOD_SECONDS without a pause.

Run as `flood.py (that takes its answers|that takes no answer) [doorwardd's options]`.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import sys
import time
from typing import TYPE_CHECKING

from doorward.daemon import cli, processes
from doorward.errors import FirewallError, HelperError
from doorward.helper.messages import REQUESTS, Open
from doorward.listener.loop import Listener
from doorward.values import Grant, Service

if TYPE_CHECKING:
    import selectors

FLOOD_SECONDS = 2.0
TAKES = sys.argv[1] == "that takes its answers"


class Flooding(Listener):
    """The listener with the intruder's program in place of its loop."""

    def _serve(self, selector: selectors.BaseSelector) -> None:
        del selector
        end = time.monotonic() + FLOOD_SECONDS
        for number in itertools.count():
            if time.monotonic() > end:
                return
            self._ask_for(number)

    def _ask_for(self, number: int) -> None:
        source = ipaddress.ip_address(f"198.51.{number // 250 % 250}.{1 + number % 250}")
        grant = Grant(source, (Service.parse("tcp/22"),), 1)
        if not TAKES:
            try:
                os.write(self._channel.fileno(), REQUESTS.encode(Open(grant)))
            except BlockingIOError:
                return
            except OSError as error:
                raise HelperError(str(error)) from error
            return
        try:
            self._power.open(grant)
        except FirewallError:
            return  # more than a second may hold, which is the point


if __name__ == "__main__":
    vars(processes)["Listener"] = Flooding
    sys.exit(cli.main(sys.argv[2:]))
