# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.rotate; the work is done by the action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotate
short_description: Have a host accept a new key of this controller beside the old one, and prove it
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Adds a line with the new public key to access.conf wherever the old one stands, under the dead man's switch of
    M(doorward.spa.change), and knocks with the new pair. The host has to grant it.
  - Connections use the old pair meanwhile. M(doorward.spa.rotation) puts the new one in its place, and
    M(doorward.spa.revoke) takes the old key out.
  - A host that knows this controller by a symmetric key is left as it is.
options:
  old:
    description: The public key in use, without a name.
    type: str
    required: true
  new:
    description: The new public key, without a name.
    type: str
    required: true
  new_file:
    description: File of the new pair on the controller, plain or vaulted.
    type: path
    required: true
  psk:
    description: The pre-shared key of this controller and the host.
    type: str
    default: ""
  deadline:
    description: Seconds until the host takes the change back without a confirmation.
    type: int
attributes:
  check_mode:
    support: full
    description: Tells whether the new key would be added, and does not knock.
  diff_mode:
    support: none
    description: Shows no differences.
"""

EXAMPLES = r"""
- name: Accept the new key beside the old one
  doorward.spa.rotate:
    old: "{{ pair.old }}"
    new: "{{ pair.new }}"
    new_file: "{{ pair.new_file }}"
"""

RETURN = r"""
accepted:
  description: Whether the host grants a knock with the new pair.
  type: bool
  returned: success
symmetric:
  description: Whether the host knows this controller by a symmetric key, or not at all.
  type: bool
  returned: success
"""
