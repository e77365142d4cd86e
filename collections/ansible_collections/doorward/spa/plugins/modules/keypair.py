# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.keypair; it runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keypair
short_description: Make a client's key pair on the controller, once
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Makes a key pair of the format doorward 1 where there is none, in a file of mode 0600, plain or vaulted. Returns its
    public half alone, which goes into C(doorward_clients). A pair that is there is never made again.
  - Runs on the controller and connects to nobody. The pair that the roles use is made by them. This is for further
    clients, such as a CI system whose pair the controller hands out.
options:
  path:
    description: File of the pair.
    type: path
    default: ~/.config/doorward/client.key
  comment:
    description: The name behind the public key; letters, digits and C(_.@:+%[]-).
    type: str
    default: controller
  vault_id:
    description: Vault a new pair with the secret of this id.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Makes nothing; RV(public_key) is empty where there is no pair yet.
  diff_mode:
    support: none
    description: A difference would show a key.
"""

EXAMPLES = r"""
- name: Make the pair of the CI system
  doorward.spa.keypair:
    path: ~/fleet/ci.key
    comment: ci
    vault_id: fleet
  register: ci

- name: Show what goes into doorward_clients
  ansible.builtin.debug:
    msg: "{{ ci.public_key }}"
"""

RETURN = r"""
path:
  description: File of the pair.
  type: str
  returned: success
public_key:
  description: Its public half, C(doorward1 BASE64 NAME).
  type: str
  returned: success
"""
