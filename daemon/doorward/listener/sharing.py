"""All that the listener of one of two gateways shares with the other one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.listener.carrying import Carrier
from doorward.listener.share import Share, SharedMemory
from doorward.values import Grant
from doorward.wire.doorward import SKEW_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doorward.config.stanza import Stanza
    from doorward.gate import Memory, Verdict
    from doorward.processes.configuration import Configuration
    from doorward.record.line import Carried
    from doorward.record.log import Log


class Sharing:
    """The share, where packets are remembered, and the grants that are carried over."""

    def __init__(  # noqa: PLR0913  its parts, each named
        self,
        path: Path,
        store: Memory,
        *,
        connect: Callable[[], int],
        open_grant: Callable[[Grant], None],
        publish: Callable[[Carried], None],
        log: Log,
    ) -> None:
        """Ask at `path`; `connect` connects to it and raises ShareError, `store` is this host's own."""
        self.path = path
        self._share = Share(path, connect, log)
        self.memory = SharedMemory(store, self._share)
        self._carrier = Carrier(self._share, store, open_grant, publish)

    def follow(self, found: Configuration) -> None:
        """Take a configuration."""
        settings = found.settings
        self._share.policy = settings.share_failure
        self._share.revive()
        self._carrier.follow(found.access, settings.permissions, max(settings.max_age or 0, SKEW_SECONDS))

    @property
    def state(self) -> str:
        """The state in one sentence."""
        return self._share.state

    @property
    def works(self) -> bool:
        """Whether nothing fails."""
        return self._share.works

    @property
    def refuses_all(self) -> bool:
        """Whether no knock opens anything for want of the share."""
        return self._share.refuses_all

    def post(self, stanza: Stanza | None, verdict: Verdict, now: float) -> None:
        """Tell the other gateway of what a verdict has opened at `now` (Unix seconds)."""
        if stanza is None or not verdict.granted:
            return
        for opened in (verdict.grant, verdict.second):
            if isinstance(opened, Grant):
                self._carrier.post(stanza, opened, now)

    def tick(self, now: float) -> None:
        """Connect again, tell what is not told yet, and open what the other gateway told; once a second."""
        self._share.revive()
        self._share.probe()
        self.memory.tell(now)
        self._carrier.tell(now)
        self._carrier.take(now)

    def close(self) -> None:
        """End the connection."""
        self._share.close()
