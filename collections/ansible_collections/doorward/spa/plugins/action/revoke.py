# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.revoke: revoked clients are taken out of a host, with what they have open."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.doorward.spa.plugins.action.change import ActionModule as ChangeAction
from ansible_collections.doorward.spa.plugins.plugin_utils import (
    _host_access,
    _identity,
    _key_store,
    _key_text,
    _revocations,
    _silence,
)
from ansible_collections.doorward.spa.plugins.plugin_utils._access_action import AccessAction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_OPTIONS = {
    "client": {"type": "str", "default": ""},
    "folder": {"type": "path", "default": "~/.config/doorward/keys"},
    "sessions": {"type": "bool", "default": False},
    "key_file": {"type": "path"},
    "deadline": {"type": "int"},
}
# Where a client was let in, as far back as the journal goes: a session can be older than its grant.
_LET_IN = """
journalctl -u doorwardd.service -o cat --no-pager | grep -F verdict=granted | grep -F " name=$1 " |
    sed -n -e h -e 's/.* source=\\([^ ]*\\).*/let-in=\\1/p' \\
        -e g -e 's/.* second_source=\\([^ ]*\\).*/let-in=\\1/p' | sort -u
"""


class _Proof(NamedTuple):
    """A key of a revoked client that this controller has: the client's arguments for it, and what it may open."""

    client: str
    arguments: tuple[str, ...]
    services: tuple[str, ...]


class ActionModule(AccessAction):
    """The action `doorward.spa.revoke`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Take out of this host whoever is revoked; what ends the connection is a failure, so that a run stops."""
        super(ChangeAction, self).run(tmp, task_vars)
        self._note_python(task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        self._host = (task_vars or {}).get("inventory_hostname", "")
        try:
            return self._revoked(options)
        except AnsibleConnectionFailure as error:
            msg = f"the connection was lost while clients were revoked, and nothing more is known: {error}"
            raise AnsibleActionFail(msg) from error

    def _revoked(self, options: dict) -> dict:
        known = self._access()
        revoked = _revocations.read(options["folder"])
        if self._task.check_mode and options["client"]:  # in which nobody was noted
            revoked += (_revocations.Revoked(options["client"], "", waiting=frozenset({self._host})),)
        going = [each for each in known.clients if any(one.accepts(self._host, each.name, each.key) for one in revoked)]
        names = [each.name for each in known.clients]
        gone = [one.name for one in revoked if any(one.accepts(self._host, each.name, each.key) for each in going)]
        result = {"clients": gone, "changed": bool(going), "proof": "", "ended": []}
        after = [each.name for each in known.clients if each not in going]
        result["diff"] = {"before": _lines(names), "after": _lines(after), "before_header": f"clients of {self._host}"}
        if known.elsewhere:
            msg = (
                f"the host reads clients from {', '.join(known.elsewhere)} as well, which is not searched: take them "
                "out there, and out of access.conf. Nothing was changed"
            )
            raise AnsibleActionFail(msg)
        if self._task.check_mode:
            return result
        if going:
            self._take_out(going, options, result)
        else:
            result["proof"] = self._proven(list(self._proofs(self._held(options, revoked), options)))
        for one in revoked:
            mine = [each.key for each in going if each.key and one.accepts(self._host, each.name, each.key)]
            _revocations.done(options["folder"], self._host, one.name, mine)
            _key_store.retire(_key_store.path(options["folder"], self._host, one.name), self._loader, one.keys)
        return result

    def _take_out(self, going: Sequence[_host_access.Known], options: dict, result: dict) -> None:
        """Change the files under the dead man's switch, end what is open, and prove that the old keys open nothing."""
        places = self._places(going, sessions=options["sessions"])
        proofs = [each for each in self._proofs(going, options) if self._opens(each.arguments, each.services)]
        self._change(going, options["deadline"])
        result["ended"] = list(self._ended(places, sessions=options["sessions"]))
        result["proof"] = self._proven(proofs)

    def _change(self, going: Sequence[_host_access.Known], deadline: int | None) -> None:
        """Write access.conf without them, and keep it once this controller has come in anew."""
        self._edit(deadline, *{each.key or each.name for each in going})
        left = [each.name for each in self._access().clients if each.key in {one.key for one in going if one.key}]
        if left:
            msg = f"{', '.join(left)} is still in access.conf"
            raise AnsibleActionFail(msg)

    # ---- what is open ------------------------------------------------------------------------------------------------

    def _places(self, going: Iterable[_host_access.Known], *, sessions: bool) -> list[str]:
        """Return the addresses that these clients have anything open for, and with sessions those they ever had."""
        names, status = {each.name for each in going} - {""}, self._doorward_status()
        found = {one["source"] for one in (*status["grants"], *status["cycles"]) if one.get("name") in names}
        for name in names if sessions else ():
            said = self._on_host("sh", "-c", _LET_IN, "sh", name).text
            found |= set(re.findall(r"^let-in=([0-9a-fA-F.:/]+)$", said, re.MULTILINE))
        return sorted(found)

    def _ended(self, places: Iterable[str], *, sessions: bool) -> Iterator[str]:
        """Close the grants of addresses, and their sessions where asked; yield in words what was done."""
        own = self._peer().source
        for place in places:
            if "/" in place or place == "any":
                yield f"{place}: a network, whose grants end with the key; sessions go on"
                continue
            is_ended = sessions and place != own
            outcome = self._doorward("close", "--from", place, *(["--sessions"] if is_ended else []))
            if outcome.code:
                msg = f"what {place} has open could not be closed: {outcome.text[-300:]}. The client itself is gone"
                raise AnsibleActionFail(msg)
            if sessions and not is_ended:
                yield f"{place}: closed; this controller has the same address, so its sessions go on"
            else:
                yield f"{place}: {'closed, sessions ended' if sessions else 'closed'}"

    # ---- proof -------------------------------------------------------------------------------------------------------

    def _proofs(self, going: Iterable[_host_access.Known], options: dict) -> Iterator[_Proof]:
        """Yield the keys of these clients that this controller has."""
        if not getattr(self._connection, "knocks", False):
            return
        for each in going:
            services = (self._connection.spa_service(),)
            services = services if services[0] in each.opens else each.opens[:1] or services
            if each.key.startswith("SHA256:"):
                file = _key_store.path(options["folder"], self._host, each.name)
                text = _key_store.read(file, self._loader)
                if text is not None and _key_text.fingerprint(text) == each.key:
                    yield _Proof(each.name, self._arguments(text), services)
            elif options["key_file"]:
                shown = self._on_host("/usr/sbin/doorwardd", "keys", "show")
                file = _identity.at_hand(_identity.Place.of(options["key_file"], None), self._loader)
                line = re.search(_key_text.PUBLIC_FORM, shown.text)
                text = _key_text.of_public(_key_text.public(line[0] if line else shown.text), file)
                yield _Proof(each.name, self._arguments(text), services)

    def _held(self, options: dict, revoked: Iterable[_revocations.Revoked]) -> Iterator[_host_access.Known]:
        """Yield revoked clients whose key for this host is here, where the host is not known to refuse it."""
        for one in revoked:
            file = _key_store.path(options["folder"], self._host, one.name)
            text = _key_store.read(file, self._loader) if self._host in one.waiting else None
            if text is not None and _key_text.fingerprint(text) in one.keys:
                yield _host_access.Known(one.name, _key_text.fingerprint(text))

    def _proven(self, proofs: Sequence[_Proof]) -> str:
        """Return in words what the old keys open; a good knock is heard, which shows that they would have been.

        Raises:
            AnsibleActionFail: one of them opens the host still, or it hears no knock at all.
        """
        for each in proofs:
            if self._opens(each.arguments, each.services):
                msg = f"the old key of {each.client} still opens {', '.join(each.services)}"
                raise AnsibleActionFail(msg)
            self._refuse_an_answer(each)
        if not proofs:
            return "no knock with an old key: this controller has none of theirs that opened the host before"
        self._hears()
        names = ", ".join(each.client for each in proofs)
        return f"a knock with the old key of {names} opens nothing, and a good one opens the host"

    def _refuse_an_answer(self, proof: _Proof) -> None:
        """Fail where what the client asked for answers this controller, which nobody has let in now."""
        dialled = self._connection.spa_dialled()
        if self._connection.jumps or proof.services[0] != self._connection.spa_service():
            return
        against = _silence.broken(_silence.probe(dialled.host, dialled.port, dialled.bind_address))
        if against:
            msg = f"after a knock with the old key of {proof.client}: {against}"
            raise AnsibleActionFail(msg)

    def _hears(self) -> None:
        """Fail where a good knock opens nothing either: that the old key opens nothing would prove nothing."""
        if not self._opens(self._connection.spa_key_arguments(), [self._connection.spa_service()]):
            msg = "a good knock opens nothing either, so that nothing is proven of the old key"
            raise AnsibleActionFail(msg)


def _lines(names: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in names)
