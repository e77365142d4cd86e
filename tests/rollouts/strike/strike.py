"""An Ansible callback plugin: before a task of a name starts on a host it runs a command, once; it notes what failed.

``DOORWARD_STRIKE`` is JSON: the ``host``, the ``task``, the ``command``, and the file ``failed`` that gets the host's
last failure. Roles and playbooks know nothing of it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase  # type: ignore[import-untyped]  # ansible-core has no types

DOCUMENTATION = """
name: strike
type: notification
short_description: Runs a command before a task
description:
  - Runs a command before a task of a name starts on a host, once, and notes what failed there.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # as above
    """The plugin, as ansible-core looks for it."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "strike"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Read what to do."""
        super().__init__()
        self._wanted: dict[str, Any] = json.loads(os.environ["DOORWARD_STRIKE"])

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Run the command, and let the task start once it has ended."""
        if (host.get_name(), task.name) == (self._wanted["host"], self._wanted["task"]):
            self._wanted["task"] = None
            subprocess.run(self._wanted["command"], stdin=subprocess.DEVNULL, check=True)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: FBT001, FBT002  so calls ansible-core
        """Note the failure of a task, unless it is no matter."""
        if not ignore_errors:
            self._note(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Note that the host was not reached."""
        self._note(result)

    def _note(self, result: Any) -> None:
        said = " ".join(str(result.result[name]) for name in ("msg", "stderr") if result.result.get(name))
        Path(self._wanted["failed"]).write_text(said, encoding="utf-8")
