# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.access; it runs on the controller and on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: access
short_description: Write or remove one stanza of a host's access.conf
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Gives one client access to a host, or takes it away, without a roll-out and without an entry in C(doorward_clients).
  - The stanza is a file of its own, C(/etc/doorward/access.d/NAME.conf), which access.conf includes at its end. No
    other stanza is touched. The role P(doorward.spa.daemon#role), which writes access.conf as a whole, keeps it, and
    M(doorward.spa.revoke) takes it out like any other. Where another stanza of the host has the name, the task fails.
  - The host's own C(doorwardd check) reads all of the files before any of them is in force. What it refuses is named
    by file and line, and nothing is changed.
  - The change is made under the dead man's switch of M(doorward.spa.change). It is kept once this controller has come
    in by a fresh knock and a new SSH connection. Otherwise the host puts the old files back, and the task fails.
  - Needs root on the host.
options:
  name:
    description: The stanza's NAME, and that of the client in the log.
    type: str
    required: true
  state:
    description:
      - V(present) writes the stanza, V(absent) removes it. To end what a client has open as well, and to keep its key
        from coming back, run the playbook C(doorward.spa.revoke) instead.
    type: str
    choices: [present, absent]
    default: present
  public_key:
    description:
      - The client's public key, V(doorward1 BASE64), as C(doorward keys show) prints it for the client. With
        O(state=present) either this or O(key) is needed.
    type: str
  psk:
    description: A pre-shared key beside O(public_key), 32 bytes in base64.
    type: str
  one_time_code:
    description:
      - What the client's authenticator app and the host share, in base32, as C(doorward keys otp) prints it. Each knock
        then needs a code as well. Goes with O(public_key).
    type: str
  key:
    description:
      - The key of a client that knocks in the format of fwknop. The two lines KEY_BASE64 and HMAC_KEY_BASE64, as
        P(doorward.spa.key#lookup) returns them and C(doorward keys generate) prints them.
    type: str
  services:
    description:
      - Services that the client may open, such as V(tcp/22) or V(udp/60000-60010). By default the port of sshd, as the
        host sees this connection. An empty list is for a client that runs O(commands) and opens nothing.
    type: list
    elements: str
    aliases: [open_ports]
  window:
    description: Seconds that a grant lasts, where the knock does not ask for another time.
    type: int
    default: 30
    aliases: [timeout]
  max_window:
    description: The longest time in seconds that a knock may ask for. By default 300.
    type: int
  expires:
    description: Day from which the client is refused, as V(12/31/2030). It begins at midnight UTC.
    type: str
  sources:
    description: Addresses and networks that the client may knock from. By default all.
    type: list
    elements: str
  require_source:
    description: Refuse knocks that name no address, and so would let in the address that they seem to come from.
    type: bool
    default: true
  max_prefix4:
    description: The client may have an IPv4 network let in, with a prefix of this length or longer. By default none.
    type: int
  max_prefix6:
    description: The same for IPv6.
    type: int
  session_max:
    description: Seconds after which a connection through a grant is ended. By default never.
    type: int
  keep_while_used:
    description: A grant lives on while there are connections through it.
    type: bool
    default: false
  forward_to:
    description:
      - Address and port, as V(192.168.7.5 22), to which the client's connections are forwarded. Needs
        ENABLE_IPT_FORWARDING or ENABLE_IPT_LOCAL_NAT in doorwardd.conf.
    type: str
  nat_targets:
    description:
      - Addresses and ports to which the client may have its connections forwarded, such as V(10.0.0.0/24:443). Without
        it all of them, where doorwardd.conf allows forwarding.
    type: list
    elements: str
  commands:
    description: Commands that the client may run by their names. Goes with O(public_key).
    type: dict
  command_user:
    description: Account that runs O(commands). By default the least privileged one.
    type: str
  command_group:
    description: Group that runs O(commands).
    type: str
  folder:
    description:
      - Where the controller keeps keys and the list of revoked clients. A client that is revoked is not written again.
    type: path
    default: ~/.config/doorward/keys
  deadline:
    description:
      - Seconds after which the host puts the old files back by itself. By default three times the connection's
        C(timeout) and 30 more, at least 60.
    type: int
attributes:
  check_mode:
    support: full
    description: The host checks a copy of its files with the stanza in it, and removes the copy.
  diff_mode:
    support: full
    description:
      - Shows the lines of the stanza. The values of keys, secrets and commands are hidden, and those that were not
        there before are marked.
notes:
  - Stanzas in files that access.conf includes by other lines are not searched for the name.
  - With a jump host or without SPA the new connection alone is the proof.
seealso:
  - module: doorward.spa.change
  - module: doorward.spa.revoke
"""

EXAMPLES = r"""
- name: Let a contractor reach the database for some weeks
  doorward.spa.access:
    name: contractor@laptop
    public_key: doorward1 nJJV1J7F2pDZ4euw2Afs/TdLA0LKKEkTn2id6DA+swc=
    services: [tcp/22, tcp/5432]
    sources: [192.0.2.0/24]
    expires: 12/31/2030
  become: true

- name: Let a build server in that knocks in the format of fwknop
  doorward.spa.access:
    name: build
    key: "{{ lookup('doorward.spa.key', client='build') }}"
    services: [tcp/22]
  become: true

- name: Let an operator restart a service, with the code of an app at each knock
  doorward.spa.access:
    name: operator
    public_key: doorward1 /PxJ/H8KpPtdzqDifVgUyYnHMlZEPGDl3uZ24+lThQw=
    one_time_code: "{{ operator_code }}"
    services: []
    commands:
      restart-web: /usr/bin/systemctl restart nginx
    command_user: root
  become: true

- name: Take the contractor's stanza away
  doorward.spa.access:
    name: contractor@laptop
    state: absent
  become: true
"""

RETURN = r"""
path:
  description: The file of the stanza on the host.
  type: str
  returned: success
paths:
  description: The files that were changed.
  type: list
  elements: str
  returned: changed
deadline:
  description: The seconds that the host would have waited.
  type: int
  returned: changed
"""
