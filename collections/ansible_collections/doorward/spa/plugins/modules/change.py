# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.change; it runs on the controller and on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: change
short_description: Change doorward's files on a host under a dead man's switch
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - With O(state=staged) copies all of doorward's files on the host into a folder, where tasks change them. Waits while
    another change of the host is not confirmed.
  - With O(state=applied) compares the folder with the copy. Where something differs, arms a rollback on the host, swaps
    the files, restarts the daemon, and confirms with a fresh knock and a new SSH connection. Without the confirmation
    the host puts all files back within O(deadline), also after a reboot, and the task fails.
  - Files that somebody else has changed meanwhile are not overwritten. The task fails and nothing is changed.
  - The role P(doorward.spa.daemon#role) does this. Needs root on the host.
options:
  state:
    description: V(staged) begins a change, V(applied) puts it into force.
    type: str
    choices: [staged, applied]
    required: true
  folder:
    description: The folder that O(state=staged) has returned, for O(state=applied).
    type: str
  deadline:
    description:
      - Seconds after which the host puts the old files back by itself. By default three times the connection's
        C(timeout) and 30 more, at least 60.
    type: int
  python:
    description: The Python that doorward runs with on the host.
    type: str
    default: /usr/bin/python3
attributes:
  check_mode:
    support: full
    description: Stages and changes nothing. RV(root) is empty, so that tasks compare with the files in force.
  diff_mode:
    support: none
    description: The tasks that write into the folder show their differences.
"""

EXAMPLES = r"""
- name: Begin a change of the host's files
  doorward.spa.change:
    state: staged
  register: change

- name: Write the settings
  ansible.builtin.copy:
    src: doorwardd.conf
    dest: "{{ change.root }}/etc/doorward/doorwardd.conf"
    mode: "0644"

- name: Put them into force, prove that this controller still gets in, and keep them
  doorward.spa.change:
    state: applied
    folder: "{{ change.folder }}"
"""

RETURN = r"""
folder:
  description: The folder of the change on the host.
  type: str
  returned: state=staged
root:
  description: What stands before the path of a file to be changed; empty in check mode.
  type: str
  returned: state=staged
paths:
  description: The files that were changed.
  type: list
  elements: str
  returned: state=applied
deadline:
  description: The seconds that the host would have waited.
  type: int
  returned: state=applied
"""
