# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.key; the work is done on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: key
short_description: Make the keys of a host's clients on the controller, once
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Makes a symmetric key (AES-256 and HMAC) for each client of a host, in a file of mode 0600 on the controller,
    plain or vaulted. An existing key is never made again.
  - Compares the enrolment mark of the host with the one that the controller keeps, and so tells a bare host from one
    that was reinstalled or that another controller enrolled.
  - Runs on the controller and does not connect to the host. Returns fingerprints, never keys.
options:
  host:
    description: Name of the host whose keys they are.
    type: str
    required: true
  clients:
    description: Names of the clients that get a key.
    type: list
    elements: str
    default: [controller]
  folder:
    description: Folder on the controller where the keys are kept.
    type: path
    default: ~/.config/doorward/keys
  vault_id:
    description:
      - Vault the files with the secret of this id, which ansible must have been given. Empty for plain files.
    type: str
    default: ""
  host_mark:
    description: The enrolment mark that the host has, empty where it has none.
    type: str
    default: ""
  reenroll:
    description: Go on although the host's mark says that it was reinstalled or enrolled by another controller.
    type: bool
    default: false
  enrolled:
    description: Remember (V(true)) that the host now has its mark, or forget it (V(false)).
    type: bool
attributes:
  check_mode:
    support: full
    description: Makes no keys in check mode, and returns the result of a real run.
  diff_mode:
    support: none
    description: Shows no differences, since they would be keys.
"""

EXAMPLES = r"""
- name: Make the keys of this host
  doorward.spa.key:
    host: "{{ inventory_hostname }}"
    clients:
      - controller
      - alice
"""

RETURN = r"""
fingerprints:
  description: One fingerprint a client. A client whose key would be made is missing in check mode.
  type: dict
  returned: success
made:
  description: Clients whose keys were made now.
  type: list
  elements: str
  returned: success
enrolment:
  description: The mark for the host.
  type: str
  returned: success
"""
