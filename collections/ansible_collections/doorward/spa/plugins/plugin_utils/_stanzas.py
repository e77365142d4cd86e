# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stanzas a host has: one for each client and format; standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.doorward.spa.plugins.plugin_utils import _key_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PRESENT, PREVIOUS, NONE = "present", "previous", "none"
_FORMATS = {"doorward1": ("doorward1",), "fwknop": ("fwknop",), "both": ("doorward1", "fwknop")}


class ClientError(ValueError):
    """An entry of doorward_clients that no stanza can be made of."""


class Client(NamedTuple):
    """An entry of doorward_clients: the formats it knocks in, and its public key where the inventory has it."""

    name: str
    formats: tuple[str, ...]
    public_key: str = ""
    psk: str = ""
    previous_psk: str = ""


class Stanza(NamedTuple):
    """One stanza: `client` is the number of its entry in doorward_clients.

    It is the controller's own where `is_own`. It `leaves` where it is there for connections that still knock in this
    format, or with this pre-shared key, until a knock in the other way is proven. `psk` says which pre-shared key it
    has: the present one, if there is one, the previous one, or none.
    """

    client: int
    name: str
    format: str
    public_key: str = ""
    is_own: bool = False
    leaves: bool = False
    psk: str = PRESENT


def client(entry: str | Mapping, usual: str) -> Client:
    """Read an entry of doorward_clients, or a client's name; `usual` is the format of clients that say none.

    Raises:
        ClientError: it has no name, or no such format.
        KeyTextError: its public key is none.
    """
    entry = {"name": entry} if isinstance(entry, str) else entry
    name, line = str(entry.get("name") or ""), str(entry.get("public_key") or "")
    chosen = str(entry.get("format") or ("doorward1" if line else usual))
    if chosen not in _FORMATS:
        msg = f"the format of {name} is {chosen!r}, and is one of {', '.join(_FORMATS)}"
        raise ClientError(msg)
    if line and chosen == "fwknop":
        msg = (
            f"{name} has a public key, and format: fwknop, which knows none: take one of them away, or set format: both"
        )
        raise ClientError(msg)
    key = " ".join(_key_text.public(line).split()[:2]) if line else ""
    return Client(name, _FORMATS[chosen], key, str(entry.get("psk") or ""), str(entry.get("previous_psk") or ""))


def planned(clients: Sequence[Client], controller: str, now: str, psk_now: str = PRESENT) -> list[Stanza]:
    """Return the stanzas of a host, the public key of the controller still missing.

    `now` is the format that this controller's connections knock in, empty where they do not, and `psk_now` the
    pre-shared key that they use: its stanza stays until a knock in another format, or with the present key, is proven.

    Raises:
        ClientError: a client that is not this controller has no public key.
    """
    stanzas = []
    for number, each in enumerate(clients):
        is_own = each.name == controller
        if "doorward1" in each.formats and not (each.public_key or is_own):
            msg = (
                f"{each.name} has no public_key in doorward_clients: write there what `doorward keys show` prints for "
                "that client, or mark it format: fwknop"
            )
            raise ClientError(msg)
        if is_own and (each.psk or each.previous_psk):
            msg = f"{each.name} is this controller, whose pre-shared key is doorward_psk, not psk in doorward_clients"
            raise ClientError(msg)
        stanzas += [Stanza(number, each.name, one, each.public_key, is_own) for one in each.formats]
        if "doorward1" in each.formats and each.previous_psk not in {"", each.psk or NONE}:
            psk = NONE if each.previous_psk == NONE else PREVIOUS
            stanzas.append(Stanza(number, each.name, "doorward1", each.public_key, psk=psk))
        if is_own and now and (now not in each.formats or (now == "doorward1" and psk_now != PRESENT)):
            stanzas.append(Stanza(number, each.name, now, each.public_key, is_own, leaves=True, psk=psk_now))
    return stanzas


def with_public_key(stanza: Stanza, own: str) -> Stanza:
    """Return a stanza with the public half of the controller's own pair, where it is the controller's.

    Raises:
        ClientError: the inventory names another public key for this controller.
    """
    if not stanza.is_own or stanza.format != "doorward1":
        return stanza
    key = " ".join(own.split()[:2])
    if key and stanza.public_key and key != stanza.public_key:
        msg = f"the public key of {stanza.name} in doorward_clients is not that of this controller's own pair"
        raise ClientError(msg)
    return stanza._replace(public_key=key or stanza.public_key)
