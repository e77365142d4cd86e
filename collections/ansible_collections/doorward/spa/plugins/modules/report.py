# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.report; the report is made on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Show what was found of hosts, as a table, JSON and a page
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Takes what M(doorward.spa.examine) registered as C(verify_found) for each host, prints a table and a line a host,
    and fails where a host is not well. A host of which nothing is known is one that was not reached.
  - Is the end of the playbook C(doorward.spa.verify), and connects to nobody.
options:
  hosts:
    description: The hosts of the report.
    type: list
    elements: str
    required: true
  outsider:
    description: The host that looked as well, whose results are C(verify_outside_dark) and so on.
    type: str
    default: ""
  seen_by:
    description: What the report calls this controller.
    type: str
    default: controller
  files:
    description:
      - Files on the controller that the report is written to, with mode 0600. One that ends in C(.json) gets JSON, any
        other one a page of HTML, which needs nothing from elsewhere.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    support: full
    description: Writes the files in check mode too.
  diff_mode:
    support: none
    description: Shows no differences.
"""

EXAMPLES = r"""
- name: Show what was found
  doorward.spa.report:
    hosts: "{{ ansible_play_hosts_all }}"
    files: [~/doorward.html, ~/doorward.json]
  run_once: true
"""

RETURN = r"""
msg:
  description: How the hosts are, in one sentence.
  type: str
  returned: always
"""
