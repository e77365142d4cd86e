# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action doorward.spa.key; the work is done on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: key
short_description: Make the keys of a host's clients on the controller, once, and tell the host's stanzas
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Makes the controller's own key pair of the format doorward 1 where the controller is a client of that format and has
    none, in a file of mode 0600, plain or vaulted. The one pair is for all hosts.
  - Makes a symmetric key (AES-256 and HMAC) for each client of fwknop's format, in a file of mode 0600 on the
    controller, plain or vaulted. An existing key is never made again.
  - Tells which stanzas the host is to have. Where connections still knock in the format, or with the pre-shared key,
    that is to be left, its stanza is among them, with C(leaves). It is to stay until a knock the other way is proven.
  - Leaves out a public key that M(doorward.spa.revocation) has noted as revoked, with a warning, and puts a symmetric
    one aside. With O(enrolled) the host is noted as one that accepts no revoked client.
  - Compares the enrolment mark of the host with the one that the controller keeps, and so tells a bare host from one
    that was reinstalled or that another controller enrolled.
  - Runs on the controller and does not connect to the host. Returns fingerprints, never keys.
options:
  host:
    description: Name of the host whose keys they are.
    type: str
    required: true
  clients:
    description:
      - The host's clients - entries of C(doorward_clients), or names. C(name), C(format) (V(doorward1), V(fwknop) or
        V(both)) and C(public_key) are read.
    type: list
    elements: raw
    default: [controller]
  format:
    description: Format of clients that say none and have no public key.
    type: str
    choices: [doorward1, fwknop]
    default: doorward1
  controller:
    description: Name of the client that this controller is. Its public key is that of its own pair.
    type: str
    default: controller
  host_key:
    description:
      - The host's public key where the controller's connections knock with it. Empty where they knock with a symmetric
        key, or do not knock yet.
    type: str
    default: ""
  psk:
    description: The pre-shared key of this controller and the host, empty for none.
    type: str
    default: ""
  previous_psk:
    description: The one before, which the host may still know.
    type: str
    default: ""
  known_psk:
    description: The RV(psk_mark) of the one that the host knows, empty where that is O(psk).
    type: str
    default: ""
  private_key_file:
    description: File of the controller's own pair.
    type: path
    default: ~/.config/doorward/client.key
  private_key_command:
    description: Words of a program that prints the pair, instead of the file. The pair is not made then.
    type: raw
  folder:
    description: Folder on the controller where the keys are kept.
    type: path
    default: ~/.config/doorward/keys
  vault_id:
    description:
      - Vault the files with the secret of this id, which ansible must have been given. Empty for plain files.
    type: str
    default: ""
  host_mark:
    description: The enrolment mark that the host has, empty where it has none.
    type: str
    default: ""
  reenroll:
    description: Go on although the host's mark says that it was reinstalled or enrolled by another controller.
    type: bool
    default: false
  enrolled:
    description: Remember (V(true)) that the host now has its mark, or forget it (V(false)).
    type: bool
attributes:
  check_mode:
    support: full
    description: Makes no keys in check mode, and returns the result of a real run.
  diff_mode:
    support: none
    description: Shows no differences, since they would be keys.
"""

EXAMPLES = r"""
- name: Make the keys of this host
  doorward.spa.key:
    host: "{{ inventory_hostname }}"
    clients:
      - controller
      - name: alice
        format: fwknop
"""

RETURN = r"""
fingerprints:
  description: One fingerprint a symmetric key. A client whose key would be made is missing in check mode.
  type: dict
  returned: success
made:
  description: Clients whose symmetric keys were made now, and the file of the controller's pair if that was made.
  type: list
  elements: str
  returned: success
enrolment:
  description: The mark for the host.
  type: str
  returned: success
stanzas:
  description: The host's stanzas, in their order.
  type: list
  elements: dict
  returned: success
  contains:
    client:
      description: Number of the client's entry in O(clients), from 0.
      type: int
    name:
      description: Name of the client.
      type: str
    format:
      description: V(doorward1) or V(fwknop).
      type: str
    public_key:
      description: The client's public key, without a name. Empty in check mode where it would be made.
      type: str
    is_own:
      description: Whether it is the stanza of this controller.
      type: bool
    leaves:
      description: Whether it goes once a knock in the other format, or with the other pre-shared key, is proven.
      type: bool
    psk:
      description: Which pre-shared key it has - the V(present) one, if there is one, the V(previous) one, or V(none).
      type: str
moving:
  description: Whether one of the stanzas leaves.
  type: bool
  returned: success
psk_mark:
  description: A hash of O(psk) that tells it from others, V(none) where it is empty.
  type: str
  returned: success
"""
