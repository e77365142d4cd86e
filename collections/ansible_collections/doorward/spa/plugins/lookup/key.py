# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup plugin doorward.spa.key: the key text of one client for one host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: key
short_description: The key that this controller holds for a host
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Returns what a knock at a host takes. Where the inventory has the host's public key (C(doorward_host_key), which
    the role P(doorward.spa.keys#role) collects, and no C(doorward_knock_format=fwknop) beside it), that is a line
    C(HOST_KEY) with the name of the file that the controller's own pair is in, and with C(PSK_BASE64) where there is a
    pre-shared key. None of it but the latter is secret. Otherwise it is the two lines of a symmetric key that
    M(doorward.spa.key) made, decrypted where it is vaulted.
  - The pre-shared key is C(doorward_psk), or C(doorward_previous_psk) for a host that does not know the new one yet
    (C(doorward_known_psk), which the role has collected).
  - Returns an empty text where there is no key yet, so that a host can be reached as plain ssh for its first roll-out.
  - Without a name the text begins with a line that names the host. For a delegated task a lookup cannot tell hosts of
    one short name apart, and the text has the key of each. P(doorward.spa.ssh#connection) takes its own. For a host
    that is enrolled and has no key, and for one with a public key where the controller has no pair of its own, the text
    says so instead.
options:
  _terms:
    description:
      - Names of hosts. Without one it is the host whose variable is evaluated, for the option
        O(doorward.spa.ssh#connection:spa_key). That is also right for delegated tasks, where C(inventory_hostname)
        names another host.
      - A host outside the inventory has no key.
    type: list
    elements: str
  client:
    description:
      - The client whose key is returned. Where it is given with the lookup, that is the symmetric key of this client,
        whatever the host has in the inventory.
    type: str
    default: controller
    vars:
      - name: doorward_controller
  folder:
    description: Folder on the controller where the keys are kept.
    type: str # as a path, a template that is not evaluated yet would be taken for a relative one
    default: ~/.config/doorward/keys
    vars:
      - name: doorward_keys_dir
  private_key_file:
    description: File of the controller's own key pair, plain with mode 0600, or vaulted.
    type: str
    default: ~/.config/doorward/client.key
    vars:
      - name: doorward_private_key_file
  private_key_command:
    description: Words of a program that prints the pair, instead of the file. It is run once in a run of ansible.
    type: raw
    vars:
      - name: doorward_private_key_command
"""

EXAMPLES = r"""
# group_vars/all.yml
ansible_connection: doorward.spa.ssh
ansible_spa_key: "{{ lookup('doorward.spa.key') }}"
"""

RETURN = r"""
_raw:
  description: The key text, or an empty text where there is no key.
  type: list
  elements: str
"""

import ipaddress
from typing import TYPE_CHECKING

from ansible.inventory.host import Host
from ansible.plugins.lookup import LookupBase
from ansible_collections.doorward.spa.plugins.plugin_utils import _ahead, _key_store, _key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SSH_PORT = 22


class LookupModule(LookupBase):
    """The lookup `doorward.spa.key`."""

    def run(self, terms: list[str], variables: Mapping | None = None, **kwargs: object) -> list[str]:
        """Return one key text a host."""
        variables = variables or {}
        self.set_options(var_options=variables, direct=kwargs)
        names = {host: host for host in terms} if terms else self._names(variables)
        if "client" in kwargs:
            texts = {name: self._held(host) for name, host in names.items()}
        else:
            own = None if terms or len(names) > 1 else variables  # of the one host that they can be those of
            known = {name: own if own and name == host else _of(host, variables) for name, host in names.items()}
            texts = {name: self._knocked_with(host, known[name]) for name, host in names.items()}
        return [texts[host] for host in terms] if terms else [_key_text.of_hosts(texts)]

    def _option(self, name: str) -> str:
        return self._templar.template(self.get_option(name))

    def _knocked_with(self, host: str, variables: Mapping) -> str:
        """Return the key text for a host: of its public key where the inventory has one."""
        line = str(self._templar.template(variables.get("doorward_host_key") or "")).strip()
        if not line or self._templar.template(variables.get("doorward_knock_format")) == "fwknop":
            return self._held(host)
        _identity = _ahead.load("_identity")
        place = _identity.Place.of(self._option("private_key_file"), self._option("private_key_command"))
        own = _identity.at_hand(place, self._loader)
        if own:
            return self._with_psk(host, variables, line, own)
        if held := self._held(host, is_told=False):
            return held
        return _key_text.missing(
            f"{host} is knocked at with public keys, and there is no {place.file}, this controller's own key pair: put "
            "it back from a copy; or make another (doorward keys generate --public) and have its public line put into "
            "doorward_clients by a controller that the host knows"
        )

    def _with_psk(self, host: str, variables: Mapping, line: str, own: str) -> str:
        """Return the key text of a public key, with the pre-shared key that the host knows, if any."""
        present, previous = (
            str(self._templar.template(variables.get(name) or "")).strip()
            for name in ("doorward_psk", "doorward_previous_psk")
        )
        marks = self._templar.template(variables.get("doorward_known_psk") or {})
        try:
            psk = _key_text.known_psk(str(marks.get(self._option("client")) or ""), present, previous)
        except _key_text.KeyTextError as error:
            return _key_text.missing(f"{host} {error}")
        return _key_text.of_public(line, own, psk)

    def _held(self, host: str, *, is_told: bool = True) -> str:
        """Return the symmetric key of a host; for an enrolled one without its key, the sentence that says so."""
        file = _key_store.path(self._option("folder"), host, self._option("client"))
        text = _key_store.read(file, self._loader)
        if text is not None or not is_told or not _key_store.enrolled(file.parent):
            return text or ""
        return _key_text.missing(
            f"{host} is enrolled, and its key {file} is gone: put it back from a copy, or open the host at its console "
            "(doorward open --for 15m) and roll out again with doorward_reenroll: true for this host"
        )

    def _names(self, variables: Mapping) -> dict[str, str]:
        """Return the hosts whose variables these can be, by the name that the connection will know: it alone can tell.

        For a delegated task ansible-core gives the variables of the host that is delegated to, but leaves the other
        host's name in `inventory_hostname`. The short name is its own. A name outside the inventory has a host's key
        only where it is an address, and one host alone dials that address and port.
        """
        name, hosts = variables["inventory_hostname"], variables.get("hostvars") or {}
        short = variables.get("inventory_hostname_short", _short(name))
        alike = {host: host for host in hosts if host.startswith(short) and _short(host) == short}
        if _short(name) == short:
            return {name: name, **alike}
        address, port = _endpoint(variables, "", self._templar.template)
        possible = alike or (hosts if _is_ip(address) else ())  # the variables of every host are dear
        there = [host for host in possible if _endpoint(hosts[host], host) == (address, port)]
        return alike | ({address: there[0]} if len(there) == 1 and address not in alike else {})


def _of(host: str, variables: Mapping) -> Mapping:
    """Return the variables of a host of the inventory, by way of those of another; empty where it has none."""
    hosts = variables.get("hostvars") or {}
    return hosts[host] if host in hosts else {}  # noqa: SIM401  HostVars.get gives an undefined value instead


def _short(name: str) -> str:
    return Host(name).get_magic_vars()["inventory_hostname_short"]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _endpoint(variables: Mapping, name: str, resolve: Callable[[object], object] = str) -> tuple[str, str]:
    """Return the address and the port that a host's variables have ssh dial."""
    address = variables.get("ansible_ssh_host") or variables.get("ansible_host") or name
    port = variables.get("ansible_ssh_port") or variables.get("ansible_port") or _SSH_PORT
    return str(resolve(address)), str(resolve(port))
