# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.firewall_apply; it runs on the controller and on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_apply
short_description: Replace a host's firewall table under a dead man's switch
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Compares the table in force, the table that the host loads at boot and the wanted one, each as the kernel lists it.
    Does nothing where they are the same.
  - Otherwise arms a timer on the host that restores the old table, swaps the tables in one transaction, and confirms
    with a fresh knock and a new SSH connection. Only then is the table kept for the next boot. Without the
    confirmation the old table is back within O(deadline) and the task fails.
  - Touches the table C(inet doorward) and no other. Needs root on the host, and P(doorward.spa.ssh#connection).
options:
  content:
    description: The table, as a file for C(nft -f) that first adds and deletes C(table inet doorward).
    type: str
    required: true
  deadline:
    description:
      - Seconds after which the host restores the old table by itself. By default three times the connection's
        C(timeout) and 30 more, at least 60.
    type: int
  expect_closed:
    description:
      - Also require that the host does not answer the controller before the knock. Turn it off where the new table lets
        the controller in without one.
    type: bool
    default: true
  let_in:
    description: Networks that O(content) lets in without a knock. A controller in one gets an answer either way.
    type: list
    elements: str
    default: []
  force:
    description: Swap and confirm even where nothing would change.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Loads the table into a network namespace of its own to check and compare it. Never arms or swaps.
  diff_mode:
    support: full
    description: Shows both tables as the kernel lists them. They contain no secrets and no live grants.
"""

EXAMPLES = r"""
- name: Close the host
  doorward.spa.firewall_apply:
    content: "{{ lookup('ansible.builtin.template', 'firewall.nft.j2') }}"
  become: true
"""

RETURN = r"""
stage:
  description: The last stage reached - V(unchanged), V(checked), V(apply), V(closed), V(confirm) or V(confirmed).
  type: str
  returned: always
deadline:
  description: The seconds that the host would have waited.
  type: int
  returned: changed
"""
