# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.revoke; the work is done by the action plugin."""

from __future__ import annotations

DOCUMENTATION = r"""
module: revoke
short_description: Take revoked clients out of a host, with what they have open
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Takes whoever M(doorward.spa.revocation) has noted out of the host's access.conf, under the dead man's switch of
    M(doorward.spa.change). The rest of the file stays as it is, whatever the inventory says.
  - The host forgets their tags at once, and closes their grants. With O(sessions) the connections of the addresses that
    they were let in from end as well; others behind the same address have to connect again.
  - Where this controller has a symmetric key of theirs, or O(key_file), it knocks with it before and after. If it
    opened the host before, it has to open nothing now, while a good knock does.
  - Notes that the host is done, and puts the symmetric key aside as C(HOST/CLIENT.revoked).
options:
  client:
    description: Name of a client that is taken for revoked in check mode, in which nobody is noted.
    type: str
    default: ""
  folder:
    description: Folder on the controller where keys and the list of revoked clients are kept.
    type: path
    default: ~/.config/doorward/keys
  sessions:
    description:
      - End the TCP connections of the addresses that they have grants for, or were let in from as far back as the
        host's journal goes. Those of this controller's own address go on.
    type: bool
    default: false
  key_file:
    description: File of the client's own pair, to prove that it opens nothing.
    type: path
  deadline:
    description: Seconds until the host takes the change back without a confirmation.
    type: int
attributes:
  check_mode:
    support: full
    description: Tells who would be taken out, and does not knock.
  diff_mode:
    support: full
    description: Shows the names of the clients.
"""

EXAMPLES = r"""
- name: Take out of this host whoever is revoked
  doorward.spa.revoke:
    sessions: true
"""

RETURN = r"""
clients:
  description: Names of the clients that were taken out.
  type: list
  elements: str
  returned: success
proof:
  description: What knocks with the old keys have shown.
  type: str
  returned: success
ended:
  description: What was closed, by address.
  type: list
  elements: str
  returned: success
"""
