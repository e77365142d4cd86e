# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.preflight; it runs on the controller and asks the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Refuse a host or an inventory before anything is changed
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Reads the variables of doorward's roles (C(doorward_*)) and fails where one has a value that no host can be given,
    or a name that is nearly that of another one.
  - Then asks the host, with one shell script and as root, for its systemd, nftables, Python, capabilities, clock,
    interfaces, the port of its sshd now and after its next start, and other firewalls. Fails where doorward cannot run
    there, or would close or open another port than sshd's. Other firewalls are named in a warning.
  - Each problem is one sentence that begins with its variable. Nothing is changed.
  - The roles P(doorward.spa.daemon#role) and P(doorward.spa.firewall#role) begin with this.
options:
  stage:
    description: The role that asks; the message of a failure names it.
    type: str
    choices: [daemon, firewall]
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing that could be shown.
"""

EXAMPLES = r"""
- name: Check inventory and host
  doorward.spa.preflight:
    stage: daemon
  become: true
"""

RETURN = r"""
family:
  description: The family of the host's distribution - V(debian), V(redhat), V(suse), V(archlinux) or V(other).
  type: str
  returned: success
python:
  description: The Python that doorward runs with.
  type: str
  returned: success
"""
