# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions share that keep a change only once a new connection has come in."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible_collections.doorward.spa.plugins.plugin_utils._host_action import HostAction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARGIN = 5.0  # seconds before the deadline after which a confirmation would race the rollback
AFTER = 2.0  # seconds after the deadline in which the rollback has surely begun
COMES_BACK = 30.0  # seconds in which a host that rolled back must be reachable again


class WayInAction(HostAction):
    """An action that confirms its change from a new connection, or waits until the host has taken it back."""

    def _deadline(self, seconds: int | None) -> int:
        """Return the seconds that were asked for, else some that suffice for this connection."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return seconds or max(60, 3 * int(self._connection.get_option("timeout")) + 30)
        return 60

    def _close_own_grants(self) -> None:
        """Close what is open for this controller: the new connection has to be let in by a fresh knock."""
        if getattr(self._connection, "knocks", False):
            self._doorward("close", "--from", self._peer().source)

    @contextlib.contextmanager
    def _no_shared_connection(self) -> Iterator[None]:
        """End the shared SSH connection and keep every one within from sharing: each must get in by itself."""
        self._connection.reset()
        try:
            extra = self._connection.get_option("ssh_extra_args") or ""
        except KeyError:  # no connection of ssh, so none that knocks
            yield
            return
        self._connection.set_option("ssh_extra_args", f"{extra} -o ControlPath=none".strip())
        try:
            yield
        finally:
            self._connection.set_option("ssh_extra_args", extra)

    def _confirm(self, words: tuple[str, ...], until: float) -> None:
        """Knock, connect anew and confirm, over and over until it is done or too late."""
        error: AnsibleError = AnsibleActionFail("there was no time to confirm: raise the deadline")
        while time.monotonic() < until:
            try:
                outcome = self._doorward(*words)
            except AnsibleConnectionFailure as failure:
                error = failure
                time.sleep(0.5)
                continue
            if outcome.code:
                msg = f"the host did not take the confirmation: {outcome.text[-500:]}"
                raise AnsibleActionFail(msg)
            return
        raise error

    def _once_back(self, until: float, ask: Callable[[], str]) -> str:
        """Wait out the deadline, then return what `ask` says of the host once it can be asked."""
        time.sleep(max(0.0, until - time.monotonic()))
        give_up = time.monotonic() + COMES_BACK
        while isinstance(said := self._asked(ask), AnsibleError):
            if time.monotonic() > give_up:
                return f"All should be as before by now, but the host cannot be asked: {said}"
            time.sleep(1)
        return said

    def _asked(self, ask: Callable[[], str]) -> str | AnsibleError:
        """Return what a new connection says of the host, or why there is none."""
        try:
            self._connection.reset()
            return ask()
        except AnsibleError as error:
            return error
