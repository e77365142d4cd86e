# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.grant; it runs on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: grant
short_description: Open services of a hidden host for a while, or close them
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Opens services for an address without a knock of it, as C(doorward open) does, for example for a person whose device
    is lost, or for a monitoring system during a migration. The kernel closes them by itself.
  - Closes what is open for an address, as C(doorward close) does. Established connections live on without O(sessions).
  - Needs root on the host.
options:
  source:
    description: Address that is let in, or V(any) for everybody.
    type: str
    required: true
  services:
    description: Services to open, such as V(tcp/22). By default the port of sshd, as the host sees this connection.
    type: list
    elements: str
  window:
    description: Seconds for which they are open. Needed with O(state=opened).
    type: int
  renew_below:
    description:
      - With O(state=opened) a grant that lasts at least this many seconds more is left as it is, and nothing is
        changed. By default half of O(window).
    type: int
  sessions:
    description:
      - With O(state=closed) ends the address's TCP connections too. Refused where they are those of this controller.
    type: bool
    default: false
  state:
    description:
      - V(opened) opens O(services) for O(source). V(closed) closes all grants of O(source), and with O(source=any)
        everybody's.
    type: str
    choices: [opened, closed]
    default: opened
attributes:
  check_mode:
    support: partial
    description: Says what would be opened or closed. Sessions that would end cannot be counted.
  diff_mode:
    support: none
    description: The result lists what was opened and closed.
"""

EXAMPLES = r"""
- name: Let a colleague in for an hour
  doorward.spa.grant:
    source: 192.0.2.7
    services: [tcp/22, tcp/5432]
    window: 3600
  become: true

- name: Close it again, and end the connections
  doorward.spa.grant:
    source: 192.0.2.7
    state: closed
    sessions: true
  become: true
"""

RETURN = r"""
source:
  description: The address as the host shows it, or V(any).
  type: str
  returned: success
services:
  description: The services that are open now.
  type: list
  elements: str
  returned: state=opened
opened:
  description: Those of them that were opened or renewed.
  type: list
  elements: str
  returned: state=opened
closed:
  description: The grants that were closed, as C(doorward status --json) has them.
  type: list
  elements: dict
  returned: state=closed
"""
