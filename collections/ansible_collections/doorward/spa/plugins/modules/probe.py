# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.probe; the work is done by the action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: probe
short_description: Tell whether a port answers the host that the task runs on
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Dials each address of a name once, from the host of the task, without a knock. Delegate it to see a hidden host
    with the eyes of another one, which needs Python.
options:
  host:
    description: Name or address that is dialled.
    type: str
    required: true
  port:
    description: TCP port that is dialled.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: Dials in check mode too.
  diff_mode:
    support: none
    description: Changes nothing that could be shown.
"""

EXAMPLES = r"""
- name: Look at the host from outside
  doorward.spa.probe:
    host: "{{ ansible_host }}"
    port: 22
  delegate_to: outsider
  register: seen

- name: Check that it is silent
  ansible.builtin.assert:
    that: seen.silent
"""

RETURN = r"""
silent:
  description: Whether no address answered. What cannot be told is not silence.
  type: bool
  returned: success
open:
  description: Whether an address accepted the connection.
  type: bool
  returned: success
words:
  description: What each address did.
  type: str
  returned: success
source:
  description: The address that the host of the task has towards it.
  type: str
  returned: success
"""
