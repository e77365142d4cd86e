# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.knock; the packet is sent by the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: knock
short_description: Knock at a host from the controller
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Sends one Single Packet Authorization packet from the controller. With P(doorward.spa.ssh#connection) no task needs
    it to connect. It is for opening other services, and for proving that a knock works.
  - Everything that is not given is taken from the host's connection, P(doorward.spa.ssh#connection).
options:
  host:
    description: Name or address that is knocked at.
    type: str
  port:
    description: UDP port that is knocked at.
    type: int
  services:
    description: Services to ask for, such as V(tcp/22).
    type: list
    elements: str
  source:
    description: Address to ask for - V(auto), V(packet) or an IP address.
    type: str
  verify:
    description:
      - Look through the host's existing SSH connection whether the knock took effect, with C(doorward status) as root.
      - Closes what is open for this controller first, so that an older grant proves nothing. Established connections
        are not touched.
    type: bool
    default: false
  timeout:
    description: Seconds in which the knock must take effect with O(verify=true). Knocks again every two seconds.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
    description: Knocks in check mode too, because it changes nothing that lasts.
  diff_mode:
    support: none
    description: Changes nothing that could be shown.
"""

EXAMPLES = r"""
- name: Open the database for a moment
  doorward.spa.knock:
    services:
      - tcp/5432

- name: Prove that the knock works on this host
  doorward.spa.knock:
    verify: true
  become: true
"""

RETURN = r"""
services:
  description: The services that were asked for.
  type: list
  elements: str
  returned: success
source:
  description: The address that the host sees and has let in.
  type: str
  returned: when O(verify=true)
knocks:
  description: How many packets were sent.
  type: int
  returned: success
"""
