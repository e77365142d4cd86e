# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.revocation; the work is done on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: revocation
short_description: Remember on the controller who is revoked, and say where that is still to be done
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Keeps C(.revoked.json) beside the keys - for each revoked client its public keys, the fingerprints of its symmetric
    ones, and the hosts that may still accept it. Nothing in it is secret. M(doorward.spa.key) gives no host a key that
    stands there.
  - Runs on the controller and connects to nobody. Hosts are changed by M(doorward.spa.revoke).
options:
  state:
    description:
      - V(noted) remembers O(client) with the keys that inventory and controller have, for O(hosts) and every host that
        this controller enrolled. V(reported) prints where it is done, and fails where it is not.
    type: str
    choices: [noted, reported]
    required: true
  client:
    description: Name of the client; empty for everybody who was revoked.
    type: str
    default: ""
  hosts:
    description: Hosts of the run.
    type: list
    elements: str
    required: true
  controller:
    description: Name of the client that this controller is, which cannot be revoked from here.
    type: str
    default: controller
  private_key_file:
    description: File of the controller's own pair.
    type: path
    default: ~/.config/doorward/client.key
  private_key_command:
    description: Words of a program that prints the pair, instead of the file.
    type: raw
  folder:
    description: Folder on the controller where the keys are kept.
    type: path
    default: ~/.config/doorward/keys
attributes:
  check_mode:
    support: full
    description: Remembers nothing in check mode.
  diff_mode:
    support: none
    description: Shows no differences.
"""

EXAMPLES = r"""
- name: Note that alice is revoked, before any host is changed
  doorward.spa.revocation:
    state: noted
    client: alice
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
"""

RETURN = r"""
waiting:
  description: Hosts that may still accept a revoked client.
  type: list
  elements: str
  returned: O(state=reported)
"""
