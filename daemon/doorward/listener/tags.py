"""The tags of the gate, which the kernel is told in each epoch and at each reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.errors import FirewallError

if TYPE_CHECKING:
    from doorward.gate import Gate
    from doorward.helper.remote import RemotePower
    from doorward.record.log import Log


class Tags:
    """The tags that the kernel lets pass, as the helper was last told."""

    def __init__(self, power: RemotePower, log: Log) -> None:
        """Tell nothing before follow()."""
        self._power = power
        self._log = log
        self._told: dict[int, tuple[bytes, ...]] = {}
        self._refused = ""

    def follow(self, gate: Gate, now: float) -> None:
        """Tell the helper where the tags at `now` (Unix seconds) are others than it was told.

        What it refuses is told again at the next call.

        Raises:
            HelperError: it is gone.
        """
        tags = gate.tags(now)
        if tags is self._told or tags == self._told:
            return
        try:
            self._power.let_pass(tags)
        except FirewallError as error:
            if self._refused != str(error):  # once, not every second
                self._log.error("tags: knocks of doorward 1 may not be heard: %s", error)
            self._refused = str(error)
            return
        self._told, self._refused = tags, ""
