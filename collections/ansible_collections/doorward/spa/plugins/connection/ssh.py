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
author: The doorward authors (!UNKNOWN)
version_added: 0.1.0
extends_documentation_fragment:
  - doorward.spa.core_ssh
  - ansible.builtin.connection_pipelining
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
      - V(auto) is the controller's own address towards the host. Where the host cannot see that address, because the
        controller is behind address translation, a packet is sent for each address at which the host has seen it
        before from this network, and where that fails for the address that the packet arrives from.
      - V(named) is V(auto) without the latter. V(packet) is always the address that the packet arrives from. Anything
        else is an IP address.
    type: str
    default: auto
    vars:
      - name: ansible_spa_source
  spa_resolve_url:
    description:
      - Web site that tells the controller's address, such as V(https://icanhazip.com/), or several with commas between
        them. One is asked over TLS, only behind address translation, where no address is known or a knock was in vain.
      - With O(spa_profile) the file says it (C(RESOLVE_URL)).
    type: str
    vars:
      - name: ansible_spa_resolve_url
  spa_profile:
    description:
      - A C(.fwknoprc) file that holds the key, instead of O(spa_key). C(FILE#STANZA) names one of its stanzas.
    type: str
    vars:
      - name: ansible_spa_profile
  spa_key:
    description:
      - What the knock takes, best found by P(doorward.spa.key#lookup). An empty text is no key.
      - For a knock with public keys, a line C(HOST_KEY:) with the host's, as C(doorwardd keys show) prints it. Lines
        C(CLIENT_KEY_FILE:) and C(PSK_BASE64:) may follow. By default the client's own pair is
        C(~/.config/doorward/client.key).
      - For a knock in fwknop's format, the key as C(doorward keys generate) prints it - two lines, C(KEY_BASE64:) and
        C(HMAC_KEY_BASE64:). Keep these vaulted.
      - Where the lookup says that the host is enrolled and its key is gone, the host is tried as plain ssh, and an
        error says so.
      - It reaches the helper through a file of mode 0600 in ansible's local temporary directory, never through the
        command line or the environment.
    type: str
    vars:
      - name: ansible_spa_key
  spa_jump:
    description:
      - The host to jump through, which may be hidden itself. Its address, port, user, private key, arguments of ssh and
        C(ansible_spa_*) variables are those of its own in the inventory, and it may have a C(ansible_spa_jump) too. A
        name that the inventory does not have is left to ssh's own files. V(none) goes straight, whatever
        C(ssh_config) says.
      - The packet for this host is sealed on the controller and sent by a small program over the jump host's session,
        which needs Python or Perl there. No key goes there. All hosts behind it share one connection to it.
      - The address that is let in is the one that the jump host has towards this host, unless O(spa_source) names one.
    type: str
    vars:
      - name: ansible_spa_jump
  spa_nat:
    description:
      - Host and port behind a gateway, such as V(10.0.0.5:22), to which the gateway forwards the connection. The knock
        and the connection go to the address and port that ssh dials, which are the gateway's.
    type: str
    vars:
      - name: ansible_spa_nat
  spa_name:
    description: Name of the host in the inventory, by which its key is chosen. Ansible sets it.
    type: str
    vars:
      - name: inventory_hostname
  spa_required:
    description: Refuse to connect where there is no key, instead of connecting as plain ssh.
    type: bool
    default: false
    vars:
      - name: ansible_spa_required
notes:
  - A task that is delegated to a host outside the inventory connects as plain ssh, since such a host has no key.
  - What does not go through this plugin does not knock. C(ansible.posix.synchronize) knocks with
    O(ignore:use_ssh_args=true). To wait for ssh use P(ansible.builtin.wait_for_connection#module); before
    P(ansible.builtin.wait_for#module) for another port, open the port with P(doorward.spa.knock#module).
  - Set C(ansible_connection=doorward.spa.ssh) in the inventory, not as a play's C(connection). A play's keyword also
    reaches the hosts that tasks are delegated to.
  - C(ProxyJump) and C(ProxyCommand) in ssh's arguments are refused, because the knock would come from another address
    than the connection. V(none) is no proxy. C(ansible_spa_jump) jumps, and on a Linux controller so does C(ProxyJump)
    in C(ssh_config). C(ProxyCommand) in C(ssh_config) is overridden by this plugin.
  - C(-4), C(-6), C(-b), C(-B), C(AddressFamily), C(BindAddress) and C(BindInterface), in arguments or in C(ssh_config),
    hold for the knock and the connection, on a Linux controller.
"""

import contextlib
import hashlib
import math
import multiprocessing
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.ssh import Connection as SSHConnection
from ansible_collections.doorward.spa.plugins.plugin_utils import _ahead, _archive, _key_text
from ansible_collections.doorward.spa.plugins.plugin_utils._ssh_arguments import foreign_proxy, without_none

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ansible_collections.doorward.spa.plugins.plugin_utils import _jump
    from ansible_collections.doorward.spa.plugins.plugin_utils._dialled import Dialled

_NAME = "ansible_collections.doorward.spa.plugins.connection.ssh"  # as ansible-core calls it

_ARGUMENTS = ("ssh_args", "ssh_common_args", "ssh_extra_args", "sftp_extra_args", "scp_extra_args")
_ASK_HOST = "seen? "  # a status of the helper: the host at the address behind it has not said lately where it sees us
_SSH_CONNECTION_WORDS = 4
_PROBE = 3  # seconds for an answer without a knock, and as often the time that a sure answer takes
_NOBODY = ("127.0.0.1", "1")  # a jump host says at once what it finds there, and that it may not look
_SILENT = ": no answer through jump host "  # what the helper says then
_ANSWERED = " does not get through to "  # and where the jump host has an answer that is no connection
_SHORTEST = 2  # seconds: less would not leave time for one lost packet


def _profile_arguments(profile: str) -> list[str]:
    """Return the helper's arguments for a file of keys, `FILE#STANZA`."""
    file, _sharp, stanza = profile.partition("#")
    return ["--rc-file", str(Path(file or "~/.fwknoprc").expanduser()), *(["-n", stanza] if stanza else [])]


class Connection(SSHConnection):
    """OpenSSH whose ProxyCommand is `doorward connect`; only documented methods of the core plugin are used."""

    transport = "ssh"  # what ansible.posix.synchronize and ansible's own diagnostics go by

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Start as plain ssh; options come later."""
        super().__init__(*args, **kwargs)
        self._spa_refusal = ""
        self._spa_status: Path | None = None
        self._spa_common_args = ""
        self._spa_jump: _jump.Jump | None = None
        self._spa_jump_fault = ""
        self._spa_delegate = ""
        self._spa_key = ""
        self._spa_missing = ""

    @property
    def knocks(self) -> bool:
        """Tell whether connections of this host go through the helper."""
        return self._spa_status is not None

    @property
    def jumps(self) -> bool:
        """Tell whether connections of this host go through a jump host of the inventory."""
        return self._spa_jump is not None

    def set_options(
        self, task_keys: dict | None = None, var_options: dict | None = None, direct: dict | None = None
    ) -> None:
        """Take the options, then put the helper into ssh's arguments."""
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        self._spa_delegate = (task_keys or {}).get("delegate_to") or ""
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

    def _resolve_option_variables(self, variables: Mapping, templar: object) -> dict:
        """Take this host's variables as the core plugin does, and the jump host's, which nobody else hands on."""
        found = super()._resolve_option_variables(variables, templar)
        self._spa_jump, self._spa_jump_fault = None, ""
        name = str(found.get("ansible_spa_jump") or "none")
        if name not in {"none", variables.get("inventory_hostname")}:  # a variable of all hosts is the bastion's too
            self._spa_find_jump(name, variables.get("hostvars") or {})
        return found

    def _spa_find_jump(self, name: str, hostvars: Mapping) -> None:
        _jump = _ahead.load("_jump")
        try:
            self._spa_jump = _jump.find(name, hostvars)
        except _jump.JumpError as error:
            self._spa_jump_fault = str(error)

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
            return _profile_arguments(profile)
        text = self._spa_stanza()
        path = self._spa_scratch("fwknoprc", text)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            _archive.write_whole(path, text)
        return ["--rc-file", str(path)]

    def spa_dialled(self) -> Dialled:
        """Return what ssh dials for this host, its own configuration included."""
        return _ahead.load("_dialled").dialled(self)

    def spa_service(self) -> str:
        """Return the service that a knock of this connection asks for."""
        return self.get_option("spa_service") or f"tcp/{self.spa_dialled().port}"

    def spa_host_key(self) -> str:
        """Return the public key that a knock of this connection is for; empty where that is not known."""
        return "" if self.get_option("spa_profile") else _key_text.host_key(self._spa_key)

    def spa_psk_mark(self) -> str:
        """Return the mark of the pre-shared key that a knock of this connection uses; empty where that is not known."""
        return _key_text.psk_mark(_key_text.psk(self._spa_key)) if self.spa_host_key() else ""

    def spa_learn(self, seen: str, host: str = "") -> None:
        """Remember the address at which a host sees this controller; a failure costs no more than a later knock."""
        place = host or self.spa_dialled().host
        subprocess.run(  # noqa: S603  our own archive, no shell
            [*_archive.command("learn"), f"--address={seen.partition('%')[0]}", place],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )

    def _spa_arm(self) -> None:
        """Decide between the helper, plain ssh and a refusal that the next command will raise."""
        self._spa_refusal, self._spa_status = self._spa_jump_fault, None
        if self._spa_refusal:
            return
        name = self._spa_delegate or self.get_option("spa_name") or ""
        self._spa_key, self._spa_missing = _key_text.choose(self.get_option("spa_key") or "", name)
        has_key = bool(self._spa_key.strip() or self.get_option("spa_profile"))
        if not has_key and self.get_option("spa_required"):
            self._spa_refusal = self._spa_missing or (
                "there is no key for this host (spa_key, spa_profile) and spa_required is set"
            )
            return
        if not has_key and self._spa_jump is None:
            return
        for name in _ARGUMENTS:
            text = self._spa_common_args if name == "ssh_common_args" else self.get_option(name) or ""
            if "none" in text.lower():
                super().set_option(name, without_none(text))
        self._spa_common_args = without_none(self._spa_common_args)
        proxy = foreign_proxy(self.get_option(name) for name in _ARGUMENTS)
        if proxy:
            self._spa_refusal = (
                f"ssh's arguments bear {proxy}: the knock would let in another address than the one that connects. "
                "Remove it, or set ansible_connection: ssh for this host"
            )
            return
        try:
            command = self._spa_helper(knocks=has_key)
        except (_archive.ArchiveMissingError, _key_text.KeyTextError) as error:
            self._spa_refusal = str(error)
            return
        arguments = ["-o", "ProxyUseFdpass=yes", "-o", f"ProxyCommand={command}"]
        super().set_option("ssh_common_args", f"{self._spa_common_args} {shlex.join(arguments)}".strip())

    def _spa_helper(self, *, knocks: bool) -> str:
        """Return the helper's command line for ssh, which expands %h and %p and runs it through the user's shell."""
        status = self._spa_scratch(f"{os.getpid()}.status")
        words = [*_archive.command("connect"), *(self.spa_key_arguments() if knocks else self._spa_no_key())]
        if self.get_option("spa_host"):
            words += ["--spa-server", self.get_option("spa_host")]
        words += ["--spa-port", str(self.get_option("spa_port")), "--source", self.get_option("spa_source")]
        words += ["--timeout", str(max(_SHORTEST, int(self.get_option("timeout")) - 1)), "--status", str(status)]
        words += ["--follow-ssh", *self.spa_jump_arguments()]
        if self.get_option("spa_nat"):
            words += ["--nat-access", self.get_option("spa_nat")]
        if self.get_option("spa_service"):
            words += ["--service", self.get_option("spa_service")]
        self._spa_status = status
        command = shlex.join(words).replace("%", "%%")
        service = "" if self.get_option("spa_service") else "--service tcp/%p "
        return f"{command} {service}-- '%h' '%p'"

    def _spa_no_key(self) -> list[str]:
        """Return the arguments for a plain host behind a jump host: a file without a key, not the user's own."""
        path = self._spa_scratch("plain.fwknoprc")
        if not path.is_file():
            _archive.write_whole(path, "[default]\n")
        return ["--rc-file", str(path)]

    def spa_jump_arguments(self) -> list[str]:
        """Return the options of any `doorward` command for the jump host; none where ssh goes straight."""
        if self._spa_jump is None:
            return ["--jump", "none"] if self.get_option("spa_jump") == "none" else []
        more = ["BatchMode=yes", *([] if self.get_option("host_key_checking") else ["StrictHostKeyChecking=no"])]
        return _ahead.load("_jump").options(self._spa_jump, self._spa_jump_helper, more)

    def spa_is_silent_behind_the_jump(self) -> bool:
        """Tell whether the host gives no answer to the jump host where nobody has knocked.

        A jump host that is slow is silent too: before and after it has to answer for a port of its own.

        Raises:
            AnsibleConnectionFailure: the jump host cannot try, or does not answer in time itself.
        """
        there = self.spa_dialled()
        took = self._spa_answer_of_the_jump()
        done = self._spa_through_the_jump(_PROBE + math.ceil(_PROBE * took), there.host, str(there.port))
        if done.returncode and _SILENT not in done.stderr:
            msg = f"whether the host is silent cannot be seen from the jump host: {done.stderr.strip()[-500:]}"
            raise AnsibleConnectionFailure(msg)
        self._spa_answer_of_the_jump()
        return done.returncode != 0

    def _spa_answer_of_the_jump(self) -> float:
        """Return the seconds that the jump host takes for a sure answer."""
        begun = time.monotonic()
        done = self._spa_through_the_jump(int(self.get_option("timeout")), *_NOBODY)
        if done.returncode and _ANSWERED not in done.stderr:
            said = done.stderr.strip()[-500:]
            msg = f"the jump host does not answer in time, so that silence behind it would prove nothing: {said}"
            raise AnsibleConnectionFailure(msg)
        return time.monotonic() - begun

    def _spa_through_the_jump(self, seconds: int, host: str, port: str) -> subprocess.CompletedProcess[str]:
        """Return what comes of a connection without a knock, from the jump host."""
        options = ("--timeout", str(seconds), *self.spa_jump_arguments())
        words = [*_archive.command("connect"), *self._spa_no_key(), *options, "--", host, port]
        return subprocess.run(  # noqa: S603  our own archive, no shell
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60, check=False
        )

    def _spa_jump_helper(self, jump: _jump.Jump) -> list[str] | None:
        """Return the command that connects to a jump host; None where that is plain ssh."""
        said = jump.variables
        key, profile = (said.get(f"ansible_spa_{name}") or "" for name in ("key", "profile"))
        key, _missing = _key_text.choose(key, str(said.get("inventory_hostname") or jump.host))
        if profile:
            words = _profile_arguments(profile)
        elif key.strip():
            digest = hashlib.sha256(f"{jump.host}\0{key}".encode()).hexdigest()[:20]
            path = _archive.scratch() / f"doorward-jump-{digest}.fwknoprc"
            if not path.is_file():
                _archive.write_whole(path, _key_text.stanza(key))
            words = ["--rc-file", str(path)]
        elif jump.before:
            words = self._spa_no_key()
        else:
            return None
        options = {"host": "--spa-server", "port": "--spa-port", "source": "--source", "service": "--service"}
        given = {option: said.get(f"ansible_spa_{name}") for name, option in options.items()}
        words += [word for option, value in given.items() if value for word in (option, str(value))]
        status = self._spa_scratch(f"{os.getpid()}.jump")
        seconds = str(max(_SHORTEST, int(self.get_option("timeout")) - 2))  # its reason is to come before ours
        return [*_archive.command("connect"), *words, "--follow-ssh", "--timeout", seconds, "--status", str(status)]

    def _spa_stanza(self) -> str:
        """Return the stanza that the helper reads."""
        sites = self.get_option("spa_resolve_url")
        return _key_text.stanza(self._spa_key) + (f"RESOLVE_URL {' '.join(sites.split())}\n" if sites else "")

    def _spa_scratch(self, name: str, text: str = "") -> Path:
        """Return a path in this run's own folder that belongs to this host, user and text; no secret is in its name.

        Two names of the inventory can be one address and have keys of their own.
        """
        identity = [self.get_option(option) for option in ("host", "port", "remote_user", "spa_host", "spa_port")]
        identity += [self._play_context.remote_addr, text]
        digest = hashlib.sha256("\0".join(map(str, identity)).encode()).hexdigest()[:20]
        return _archive.scratch() / f"doorward-{digest}.{name}"

    def _spa_explain(self, call: Callable[..., object], *args: object, **kwargs: object) -> object:
        if self._spa_refusal:
            msg = f"doorward.spa.ssh: {self._spa_refusal}"
            raise AnsibleConnectionFailure(msg)
        if self._spa_status is None:
            return self._spa_plain(call, *args, **kwargs)
        self._spa_status.unlink(missing_ok=True)
        try:
            result = call(*args, **kwargs)
        except AnsibleConnectionFailure as error:
            reason = self._spa_reason()
            if not reason or reason.startswith(_ASK_HOST):
                raise
            msg = f"doorward: {reason} ({error})"
            raise type(error)(msg) from None  # ansible-core would say the same once more for a cause
        self._spa_ask_host()
        return result

    def _spa_plain(self, call: Callable[..., object], *args: object, **kwargs: object) -> object:
        """Connect as plain ssh; an error says which key is missing."""
        try:
            return call(*args, **kwargs)
        except AnsibleConnectionFailure as error:
            if not self._spa_missing:
                raise
            msg = f"doorward: {self._spa_missing} ({error})"
            raise type(error)(msg) from None

    def _spa_ask_host(self) -> None:
        """Ask the host at which address it sees this controller, if the helper wants to know; else do nothing."""
        status = self._spa_reason()
        if not status.startswith(_ASK_HOST):
            return
        self._spa_status.unlink(missing_ok=True)
        try:
            code, shown, _errors = super().exec_command("printenv SSH_CONNECTION", sudoable=False)
        except AnsibleConnectionFailure:
            return  # the next command will meet the same
        words = shown.decode("utf-8", "replace").split()
        if code == 0 and len(words) == _SSH_CONNECTION_WORDS:
            self.spa_learn(words[0], status.removeprefix(_ASK_HOST))

    def _spa_reason(self) -> str:
        """Return the helper's reason; ssh itself throws the words of a ProxyCommand away under ControlPersist."""
        try:
            return self._spa_status.read_text(encoding="utf-8", errors="replace").strip()[:1000]
        except OSError:
            return ""


def _define_options() -> None:
    """Define the options in a task's worker: those of ansible.builtin.ssh as ansible-core has read them before.

    A worker loads this module anew, and ansible-core would read all of its documentation anew. It still does in any
    other process, where core's have not been read, and where another release of ansible-core has other names for this.
    """
    if multiprocessing.parent_process() is None:
        return
    with contextlib.suppress(AttributeError, ImportError, KeyError, TypeError):
        from ansible.module_utils.common.yaml import yaml_load  # noqa: PLC0415  as above

        known = constants.config.get_configuration_definitions("connection", "ssh")
        if known and not constants.config.has_configuration_definition("connection", _NAME):
            options = {**known, **yaml_load(DOCUMENTATION)["options"]}
            constants.config.initialize_plugin_configuration_definitions("connection", _NAME, options)


_define_options()
