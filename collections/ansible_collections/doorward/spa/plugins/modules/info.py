# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.info; it asks the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: info
short_description: Tell what a host says of its doorward
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Reads C(doorward status) and C(doorwardd check) on a host, and the versions there and on the controller.
  - Changes nothing, and does not fail where something is wrong with the host. Needs root there.
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing that could be shown.
"""

EXAMPLES = r"""
- name: Ask the host
  doorward.spa.info:
  become: true
  register: doorward

- name: Report a host that is not closed and well
  ansible.builtin.debug:
    msg: "{{ doorward.status.causes | map(attribute='text') | join(', ') }}"
  when: doorward.installed and not doorward.status.well
"""

RETURN = r"""
installed:
  description: Whether doorward is on the host; without it there is only RV(controller_version).
  type: bool
  returned: success
version:
  description: Version of doorward on the host.
  type: str
  returned: where it is installed
controller_version:
  description: Version that a roll-out of this collection installs.
  type: str
  returned: success
is_current:
  description: Whether both versions are the same.
  type: bool
  returned: where it is installed
status:
  description: The object that C(doorward status --json) prints, such as RV(status.well), RV(status.causes),
    RV(status.grants) and RV(status.table).
  type: dict
  returned: where it is installed
  contains:
    well:
      description: Whether the host is closed and well.
      type: bool
      returned: success
    causes:
      description: What keeps it from that, each with C(word) and C(text).
      type: list
      elements: dict
      returned: success
    table:
      description: The table in force, such as V(drop), V(guard), V(observe) or V(absent).
      type: str
      returned: success
    grants:
      description: What is open, each with C(source), C(service) and C(remaining) seconds.
      type: list
      elements: dict
      returned: success
check:
  description: What C(doorwardd check) says of the host's files.
  type: dict
  returned: where it is installed
  contains:
    ok:
      description: Whether doorwardd would start with them.
      type: bool
      returned: success
    problems:
      description: Why it would not, such as C(/etc/doorward/access.conf:3) and its cause.
      type: list
      elements: str
      returned: success
    warnings:
      description: What it warns of.
      type: list
      elements: str
      returned: success
"""
