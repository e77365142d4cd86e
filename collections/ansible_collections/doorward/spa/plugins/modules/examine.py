# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.examine; the work is done by the action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: examine
short_description: Tell how a hidden host looks from this controller, and what it says of itself
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Closes what is open for this controller, and dials the host - it has to be silent. Knocks, and sees that the host
    grants it and the port answers. Closes it again, and the host has to be silent again. What cannot be told is not
    silence.
  - Asks the host for the state of its daemon and table, for ports that other programs forward, for the clients in its
    access.conf, the age of its keys, its clock and its version. A client that M(doorward.spa.revoke) should have taken
    out is named.
  - Never fails for what it finds. A host that cannot be reached is a finding as well. M(doorward.spa.report)
    shows the findings of all hosts.
options:
  services:
    description: Services that a knock may open. Its TCP ports have to be silent beside the one that ssh dials.
    type: list
    elements: str
    default: []
  public:
    description: Those among them that are open to everybody.
    type: list
    elements: str
    default: []
  let_in:
    description: Networks that are let in without a knock. A controller in one of them cannot see silence.
    type: list
    elements: str
    default: []
  mode:
    description: The mode that the host's table is to have. With V(observe) it is open.
    type: str
    choices: [drop, guard, observe]
    default: drop
  expect_closed:
    description: Whether this controller is to meet silence. Set it to V(false) where other rules let it in.
    type: bool
    default: true
  max_age:
    description: Seconds that clocks may differ. From half of it on the host's clock is wrong.
    type: int
    default: 120
  key_max_age:
    description: Days after which a key is too old. V(0) only tells the age.
    type: int
    default: 0
  folder:
    description: Folder on the controller where symmetric keys and the list of revoked clients are kept.
    type: path
    default: ~/.config/doorward/keys
  private_key_file:
    description: File of the controller's own pair, whose age is told.
    type: path
    default: ~/.config/doorward/client.key
attributes:
  check_mode:
    support: full
    description: Knocks in check mode too; nothing lasting is changed.
  diff_mode:
    support: none
    description: Changes nothing that could be shown.
"""

EXAMPLES = r"""
- name: Look at the host
  doorward.spa.examine:
  register: found

- name: Show what is wrong
  ansible.builtin.debug:
    msg: "{{ found.findings | selectattr('state', 'equalto', 'wrong') }}"
"""

RETURN = r"""
findings:
  description: What was looked at.
  type: list
  elements: dict
  returned: success
  contains:
    topic:
      description: V(reached), V(dark), V(knock), V(open), V(closed), V(forwarded), V(daemon), V(clients), V(keys),
        V(clock) or V(version).
      type: str
    state:
      description: V(ok), V(note) for what somebody should know, or V(wrong).
      type: str
    short:
      description: The finding in a word or two.
      type: str
    text:
      description: The finding in a sentence.
      type: str
clients:
  description: Names of the clients in the host's access.conf.
  type: list
  elements: str
  returned: success
is_open:
  description: Whether the host is open, as the inventory says.
  type: bool
  returned: success
dialled:
  description: C(host) and C(port) that ssh dials; empty where the connection does not knock.
  type: dict
  returned: success
services:
  description: The service that a knock asks for; empty where the connection does not knock.
  type: list
  elements: str
  returned: success
"""
