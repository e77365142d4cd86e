# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.rotation; the work is done on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotation
short_description: Replace this controller's key pair once every host accepts the new one
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Makes a pair beside O(private_key_file), with C(.new) behind its name. Once each host has granted a knock with it,
    as M(doorward.spa.rotate) registered in C(rotate_done), puts it in the place of the old one, which is kept with
    C(.old) behind its name and noted as revoked (M(doorward.spa.revocation)).
  - Hosts that this controller enrolled count as well, whether they are in the run or not.
  - Runs on the controller and connects to nobody.
options:
  state:
    description: V(begun) makes the pair unless it is there, V(switched) puts it in the place of the old one.
    type: str
    choices: [begun, switched]
    required: true
  hosts:
    description: Hosts of the run.
    type: list
    elements: str
    required: true
  controller:
    description: Name of the client that this controller is.
    type: str
    default: controller
  private_key_file:
    description: File of the controller's own pair.
    type: path
    default: ~/.config/doorward/client.key
  private_key_command:
    description: Words of a program that prints the pair. Such a pair is refused, since it is replaced elsewhere.
    type: raw
  vault_id:
    description: Vault the new pair with the secret of this id. Empty for a plain file.
    type: str
    default: ""
  folder:
    description: Folder on the controller where the keys and the list of revoked clients are kept.
    type: path
    default: ~/.config/doorward/keys
attributes:
  check_mode:
    support: full
    description: Makes and replaces nothing in check mode.
  diff_mode:
    support: none
    description: Shows no differences, since they would be keys.
"""

EXAMPLES = r"""
- name: Make the new pair
  doorward.spa.rotation:
    state: begun
    hosts: "{{ ansible_play_hosts_all }}"
  register: pair
  run_once: true
"""

RETURN = r"""
old:
  description: The public key in use.
  type: str
  returned: O(state=begun)
new:
  description: The new public key; empty where only the end of an earlier rotation is left to do, or in check mode.
  type: str
  returned: O(state=begun)
new_file:
  description: File of the new pair.
  type: str
  returned: O(state=begun)
"""
