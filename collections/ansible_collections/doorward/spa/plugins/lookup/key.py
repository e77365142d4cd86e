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
  - Returns the two lines of a key that M(doorward.spa.key) made, decrypted where it is vaulted.
  - Returns an empty text where there is no key yet, so that a host can be reached as plain ssh for its first roll-out.
  - Without a name the text begins with a line that names the host. For a delegated task a lookup cannot tell hosts of
    one short name apart, and the text has the key of each. P(doorward.spa.ssh#connection) takes its own. For a host
    that is enrolled and has no key, the text says so instead.
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
    description: The client whose key is returned.
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
from ansible_collections.doorward.spa.plugins.plugin_utils import _key_store, _key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SSH_PORT = 22


class LookupModule(LookupBase):
    """The lookup `doorward.spa.key`."""

    def run(self, terms: list[str], variables: Mapping | None = None, **kwargs: object) -> list[str]:
        """Return one key text a host."""
        variables = variables or {}
        self.set_options(var_options=variables, direct=kwargs)
        folder, client = (self._templar.template(self.get_option(name)) for name in ("folder", "client"))
        if terms:
            files = [_key_store.path(folder, host, client) for host in terms]
            return [_key_store.read(file, self._loader) or "" for file in files]
        names = self._names(variables)
        return [_key_text.of_hosts({name: self._held(folder, host, client) for name, host in names.items()})]

    def _held(self, folder: str, host: str, client: str) -> str:
        """Return the key of a host; for an enrolled one without its key, the sentence that says so."""
        file = _key_store.path(folder, host, client)
        text = _key_store.read(file, self._loader)
        if text is not None or not _key_store.enrolled(file.parent):
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
