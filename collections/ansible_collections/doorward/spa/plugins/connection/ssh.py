# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection plugin doorward.spa.ssh: OpenSSH, with a knock before every new TCP connection."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ssh
short_description: OpenSSH that knocks before it connects
description:
  - Everything that P(ansible.builtin.ssh#connection) does, with one difference. Each new TCP connection is opened by a
    helper (C(doorward connect), as ssh's C(ProxyCommand)) that sends a Single Packet Authorization packet, dials until
    the host answers, knocks again with a fresh packet where the first was lost, and hands the open connection to ssh.
  - Connections that ControlPersist keeps open are used as they are and need no knock.
  - A host without a key is connected as plain ssh, unless O(spa_required) says otherwise. So one inventory serves a
    host before, during and after its first roll-out.
author: The doorward authors
version_added: 0.1.0
extends_documentation_fragment:
  - ansible.builtin.connection_pipelining
  - doorward.spa.core_ssh
options:
  spa_host:
    description:
      - Name or address that is knocked at. By default the address that ssh dials, resolved once for both.
      - Set it where the knock goes elsewhere, such as to a gateway in front of the host.
    type: str
    vars:
      - name: ansible_spa_host
  spa_port:
    description: UDP port that is knocked at.
    type: int
    default: 62201
    vars:
      - name: ansible_spa_port
  spa_service:
    description:
      - Service that the knock asks for, such as V(tcp/22). By default C(tcp/) and the port that ssh dials.
      - Set it where the host's sshd listens on another port than the one that is dialled, as behind port forwarding.
    type: str
    vars:
      - name: ansible_spa_service
  spa_source:
    description:
      - Address that the knock asks to let in.
      - V(auto) is the controller's own address towards the host, or the address that the host sees where the
        controller's is private and the host's is public. V(packet) is always the address that the host sees.
        Anything else is an IP address.
    type: str
    default: auto
    vars:
      - name: ansible_spa_source
  spa_profile:
    description:
      - A C(.fwknoprc) file that holds the key, instead of O(spa_key). C(FILE#STANZA) names one of its stanzas.
    type: str
    vars:
      - name: ansible_spa_profile
  spa_key:
    description:
      - The key, as C(doorward keys generate) prints it - two lines, C(KEY_BASE64:) and C(HMAC_KEY_BASE64:). Keep it
        vaulted, or let P(doorward.spa.key#lookup) find it. An empty text is no key.
      - It reaches the helper through a file of mode 0600 in ansible's local temporary directory, never through the
        command line or the environment.
    type: str
    vars:
      - name: ansible_spa_key
  spa_required:
    description: Refuse to connect where there is no key, instead of connecting as plain ssh.
    type: bool
    default: false
    vars:
      - name: ansible_spa_required
notes:
  - Set C(ansible_connection=doorward.spa.ssh) in the inventory, not as a play's C(connection). A play's keyword also
    reaches the hosts that tasks are delegated to.
  - C(ProxyJump) and C(ProxyCommand) in ssh's arguments are refused, because the knock would come from another address
    than the connection. In C(ssh_config) they are overridden by this plugin.
"""

import hashlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.ssh import Connection as SSHConnection
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive, _key_text
from ansible_collections.doorward.spa.plugins.plugin_utils._ssh_arguments import foreign_proxy

if TYPE_CHECKING:
    from collections.abc import Callable

_ARGUMENTS = ("ssh_args", "ssh_common_args", "ssh_extra_args", "sftp_extra_args", "scp_extra_args")
_SHORTEST = 2  # seconds: less would not leave time for one lost packet


class Connection(SSHConnection):
    """OpenSSH whose ProxyCommand is `doorward connect`; only documented methods of the core plugin are used."""

    transport = "ssh"  # what ansible.posix.synchronize and ansible's own diagnostics go by

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Start as plain ssh; options come later."""
        super().__init__(*args, **kwargs)
        self._spa_refusal = ""
        self._spa_status: Path | None = None
        self._spa_common_args = ""

    @property
    def knocks(self) -> bool:
        """Tell whether connections of this host go through the helper."""
        return self._spa_status is not None

    def set_options(
        self, task_keys: dict | None = None, var_options: dict | None = None, direct: dict | None = None
    ) -> None:
        """Take the options, then put the helper into ssh's arguments."""
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        self._spa_common_args = self.get_option("ssh_common_args") or ""
        self._spa_arm()

    def set_option(self, option: str, *args: object, **kwargs: object) -> None:
        """Take one option, and keep the helper's arguments in step: its deadline follows `timeout`."""
        super().set_option(option, *args, **kwargs)
        if option == "ssh_common_args":
            self._spa_common_args = self.get_option("ssh_common_args") or ""
        if option == "timeout" or option in _ARGUMENTS or option.startswith("spa_"):
            super().set_option("ssh_common_args", self._spa_common_args)
            self._spa_arm()

    def exec_command(self, *args: object, **kwargs: object) -> tuple[int, bytes, bytes]:
        """Run a command; an error says what the helper met."""
        return self._spa_explain(super().exec_command, *args, **kwargs)

    def put_file(self, *args: object, **kwargs: object) -> object:
        """Send a file; an error says what the helper met."""
        return self._spa_explain(super().put_file, *args, **kwargs)

    def fetch_file(self, *args: object, **kwargs: object) -> object:
        """Get a file; an error says what the helper met."""
        return self._spa_explain(super().fetch_file, *args, **kwargs)

    def spa_key_arguments(self) -> list[str]:
        """Return the arguments that name the key to any `doorward` command, the key itself staying in a file."""
        profile = self.get_option("spa_profile")
        if profile:
            file, _sharp, stanza = profile.partition("#")
            path = str(Path(file or "~/.fwknoprc").expanduser())
            return ["--rc-file", path, *(["-n", stanza] if stanza else [])]
        path = self._spa_scratch("fwknoprc")
        text = _key_text.stanza(self.get_option("spa_key"))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            _archive.write_private(path, text)
        return ["--rc-file", str(path)]

    def _spa_arm(self) -> None:
        """Decide between the helper, plain ssh and a refusal that the next command will raise."""
        self._spa_refusal, self._spa_status = "", None
        if not ((self.get_option("spa_key") or "").strip() or self.get_option("spa_profile")):
            if self.get_option("spa_required"):
                self._spa_refusal = "there is no key for this host (spa_key, spa_profile) and spa_required is set"
            return
        proxy = foreign_proxy(self.get_option(name) for name in _ARGUMENTS)
        if proxy:
            self._spa_refusal = (
                f"ssh's arguments bear {proxy}: the knock would let in another address than the one that connects. "
                "Remove it, or set ansible_connection: ssh for this host"
            )
            return
        try:
            command = self._spa_helper()
        except (_archive.ArchiveMissingError, _key_text.KeyTextError) as error:
            self._spa_refusal = str(error)
            return
        arguments = ["-o", "ProxyUseFdpass=yes", "-o", f"ProxyCommand={command}"]
        super().set_option("ssh_common_args", f"{self._spa_common_args} {shlex.join(arguments)}".strip())

    def _spa_helper(self) -> str:
        """Return the helper's command line for ssh, which expands %h and %p and runs it through the user's shell."""
        status = self._spa_scratch(f"{os.getpid()}.status")
        words = [sys.executable, "-I", str(_archive.find()), "connect", *self.spa_key_arguments()]
        if self.get_option("spa_host"):
            words += ["--spa-server", self.get_option("spa_host")]
        words += ["--spa-port", str(self.get_option("spa_port")), "--source", self.get_option("spa_source")]
        words += ["--timeout", str(max(_SHORTEST, int(self.get_option("timeout")) - 1)), "--status", str(status)]
        if self.get_option("spa_service"):
            words += ["--service", self.get_option("spa_service")]
        self._spa_status = status
        command = shlex.join(words).replace("%", "%%")
        return f"{command} '%h' '%p'" if self.get_option("spa_service") else f"{command} --service tcp/%p '%h' '%p'"

    def _spa_scratch(self, name: str) -> Path:
        """Return a path in this run's own folder that belongs to this host, port and user; no secret is in its name."""
        identity = [self.get_option(option) for option in ("host", "port", "remote_user", "spa_host", "spa_port")]
        identity += [self._play_context.remote_addr]
        digest = hashlib.sha256("\0".join(map(str, identity)).encode()).hexdigest()[:20]
        return _archive.scratch() / f"doorward-{digest}.{name}"

    def _spa_explain(self, call: Callable[..., object], *args: object, **kwargs: object) -> object:
        if self._spa_refusal:
            msg = f"doorward.spa.ssh: {self._spa_refusal}"
            raise AnsibleConnectionFailure(msg)
        if self._spa_status is None:
            return call(*args, **kwargs)
        self._spa_status.unlink(missing_ok=True)
        try:
            return call(*args, **kwargs)
        except AnsibleConnectionFailure as error:
            reason = self._spa_reason()
            if not reason:
                raise
            msg = f"doorward: {reason} ({error})"
            raise type(error)(msg) from None  # ansible-core would say the same once more for a cause

    def _spa_reason(self) -> str:
        """Return the helper's reason; ssh itself throws the words of a ProxyCommand away under ControlPersist."""
        try:
            return self._spa_status.read_text(encoding="utf-8", errors="replace").strip()[:500]
        except OSError:
            return ""
