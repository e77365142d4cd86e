# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup plugin doorward.spa.merged: what all groups of a host say of one variable."""

from __future__ import annotations

DOCUMENTATION = r"""
name: merged
short_description: Merge what the groups of a host say of one variable
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Of two groups of a host that set the same variable, Ansible takes one. This lookup merges all variables of the host
    whose names begin with a term and C(_), such as C(doorward_clients_web) and C(doorward_clients_db).
  - Lists are joined. Entries with the same C(name) become one, and so do mappings. What only one of them has is taken,
    lists in them are joined, and everything else has to be the same. Otherwise the lookup fails and names both
    variables.
  - Variables are taken in the order of their names.
options:
  _terms:
    description: The beginning of the names, without the last C(_).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
# group_vars/all.yml; doorward_clients_all is one of them
doorward_clients: "{{ lookup('doorward.spa.merged', 'doorward_clients') }}"
doorward_clients_all:
  - name: controller

# group_vars/db.yml
doorward_clients_db:
  - name: alice
    public_key: doorward1 h/yozOJfYSSFS2rMzgmR1+OYr9xOBcVsxPwCOUpLpGM= alice@laptop
    services: [tcp/22, tcp/5432]
"""

RETURN = r"""
_raw:
  description: For each term the merged list or mapping; an empty list where no variable begins with it.
  type: list
  elements: raw
"""

from typing import TYPE_CHECKING

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.doorward.spa.plugins.plugin_utils import _merging

if TYPE_CHECKING:
    from collections.abc import Mapping


class LookupModule(LookupBase):
    """The lookup `doorward.spa.merged`."""

    def run(self, terms: list[str], variables: Mapping | None = None, **kwargs: object) -> list:  # noqa: ARG002  the signature is ansible's
        """Return one value for each term."""
        known = variables or {}
        try:
            return [self._merged(term, known) for term in terms]
        except _merging.ContraryError as error:
            raise AnsibleError(str(error)) from error

    def _merged(self, term: str, known: Mapping) -> list | dict:
        names = sorted(name for name in known if name.startswith(f"{term}_"))
        return _merging.merged({name: self._templar.template(known[name]) for name in names}) if names else []
