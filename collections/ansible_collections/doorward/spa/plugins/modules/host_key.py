# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.host_key; the file is written on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_key
short_description: Keep the public key of a host in the inventory
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Writes C(HOST/doorward.yml) in the C(host_vars) folder of the inventory, with the variables C(doorward_host_key) and
    C(doorward_known_psk). They are the public half of the host's key pair, and hashes of the pre-shared keys that it
    knows of controllers. Neither is secret. Commit them.
  - Runs on the controller and does not connect to the host. The key is checked, since it came from the host and the
    file is read as templates.
options:
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
  public_key:
    description: The public key, as C(doorwardd keys show) prints it on the host.
    type: str
  folder:
    description: The C(host_vars) folder that the inventory reads.
    type: path
    required: true
  controller:
    description: Name of the client that this controller is.
    type: str
    default: controller
  psk_mark:
    description:
      - The mark of this controller's pre-shared key that the host knows, as M(doorward.spa.key) returns it. Empty where
        the controller is no client of this format. The marks of other controllers stay.
    type: str
    default: ""
  knock_format:
    description: The format in which this host knows the controller. V(fwknop) is written beside the key.
    type: str
    choices: [doorward1, fwknop]
    default: doorward1
  state:
    description: Whether the file is to be there.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Writes nothing in check mode, and returns the result of a real run.
  diff_mode:
    support: full
    description: Shows the file.
"""

EXAMPLES = r"""
- name: Read the host's public key
  ansible.builtin.command:
    argv: [doorwardd, keys, show]
  register: shown
  changed_when: false

- name: Keep it in the inventory
  doorward.spa.host_key:
    host: "{{ inventory_hostname }}"
    public_key: "{{ shown.stdout }}"
    folder: "{{ inventory_dir }}/host_vars"
"""

RETURN = r"""
path:
  description: Path of the file.
  type: str
  returned: success
"""
