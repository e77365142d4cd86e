# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup plugin doorward.spa.key: the key text of one client for one host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: key
short_description: The key that this controller holds for a host
version_added: 0.1.0
author: The doorward authors
description:
  - Returns the two lines of a key that M(doorward.spa.key) made, decrypted where it is vaulted.
  - Returns an empty text where there is no key yet, so that a host can be reached as plain ssh for its first roll-out.
options:
  _terms:
    description:
      - Names of hosts. Without one it is the host whose variable is being worked out. That is also right for tasks that
        are delegated, where C(inventory_hostname) names another host.
    type: list
    elements: str
  client:
    description: The client whose key is wanted.
    type: str
    default: controller
    vars:
      - name: doorward_controller
  folder:
    description: Folder on the controller where the keys are kept.
    type: str # as a path, a template that is still to be worked out would be taken for a relative one
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

from typing import TYPE_CHECKING

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.doorward.spa.plugins.plugin_utils import _key_store

if TYPE_CHECKING:
    from collections.abc import Mapping


class LookupModule(LookupBase):
    """The lookup `doorward.spa.key`."""

    def run(self, terms: list[str], variables: Mapping | None = None, **kwargs: object) -> list[str]:
        """Return one key text a host."""
        variables = variables or {}
        self.set_options(var_options=variables, direct=kwargs)
        folder, client = (self._templar.template(self.get_option(name)) for name in ("folder", "client"))
        files = [_key_store.path(folder, host, client) for host in terms or [self._host(variables)]]
        return [_key_store.read(file, self._loader) or "" for file in files]

    def _host(self, variables: Mapping) -> str:
        """Return the name of the host whose variables these are.

        For a delegated task ansible-core gives the variables of the host that is delegated to, but leaves the other
        host's name in `inventory_hostname`; its short name and address are its own and give it away.
        """
        name = variables["inventory_hostname"]
        hosts = variables.get("hostvars") or {}
        short = variables.get("inventory_hostname_short", _short(name))
        address = self._templar.template(variables.get("ansible_host", ""))
        if short == _short(name) and (not address or address == _address(hosts, name)):
            return name
        fitting = [host for host in hosts if short == _short(host) and address in {"", _address(hosts, host)}]
        if len(fitting) != 1:
            msg = f"doorward.spa.key cannot tell which host is meant by {short!r} at {address!r}: name it as a term"
            raise AnsibleLookupError(msg)
        return fitting[0]


def _short(name: str) -> str:
    return name.partition(".")[0]


def _address(hosts: Mapping, name: str) -> str:
    return hosts[name].get("ansible_host", name) if name in hosts else name
