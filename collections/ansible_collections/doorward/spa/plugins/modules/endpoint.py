# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.endpoint; ssh is asked on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint
short_description: Tell where the connection of a host leads
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Asks ssh (C(ssh -G)), with the arguments of the host's connection, which address, port and user it uses. What only
    C(ssh_config) says is in the answer.
  - Runs on the controller and connects to nobody. For a connection that is not ssh the answer is the host's address
    and port 22.
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing that could be shown.
"""

EXAMPLES = r"""
- name: Ask where ssh connects
  doorward.spa.endpoint:
  register: endpoint

- name: Show the port
  ansible.builtin.debug:
    msg: "{{ endpoint.port }}"
"""

RETURN = r"""
host:
  description: Name or address that ssh dials.
  type: str
  returned: success
port:
  description: Port that ssh dials.
  type: int
  returned: success
user:
  description: User that ssh logs in as, empty for a connection that is not ssh.
  type: str
  returned: success
is_spa:
  description: Whether the connection is P(doorward.spa.ssh#connection).
  type: bool
  returned: success
service:
  description: Service that a knock asks for.
  type: str
  returned: success
spa_host:
  description: Name or address that is knocked at.
  type: str
  returned: success
spa_port:
  description: UDP port that is knocked at.
  type: int
  returned: success
host_key:
  description: Public key of the host that a knock is for; empty where it is in fwknop's format, or in a file's profile.
  type: str
  returned: success
psk_mark:
  description: Hash of the pre-shared key beside it, V(none) without one; empty where there is no O(ignore:host_key).
  type: str
  returned: success
"""
