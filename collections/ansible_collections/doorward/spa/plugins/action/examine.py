# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.examine: how a host looks from this controller, and what it says of itself."""

from __future__ import annotations

import ipaddress
import re
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible_collections.doorward.spa.plugins.action.knock import ActionModule as KnockAction
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive, _host_access, _revocations, _silence
from ansible_collections.doorward.spa.plugins.plugin_utils._report import NOTE, OK, REACHED, WRONG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_OPTIONS = {
    "services": {"type": "list", "elements": "str", "default": []},
    "public": {"type": "list", "elements": "str", "default": []},
    "let_in": {"type": "list", "elements": "str", "default": []},
    "mode": {"type": "str", "choices": ["drop", "guard", "observe"], "default": "drop"},
    "expect_closed": {"type": "bool", "default": True},
    "max_age": {"type": "int", "default": 120},
    "key_max_age": {"type": "int", "default": 0},
    "folder": {"type": "path", "default": "~/.config/doorward/keys"},
    "private_key_file": {"type": "path", "default": "~/.config/doorward/client.key"},
}
_HOST_KEY = "/etc/doorward/host.key"
_FOLDER = "/etc/doorward"
_DAY = 86_400
_NUMBER = re.compile(r"^[0-9]+(?:\.[0-9]+)?$", re.MULTILINE)
_NO_FAULTS = frozenset({"foreign"})  # causes of `doorward status` that are for somebody to know
_KNOCK = {"host": None, "port": None, "source": None, "timeout": 10}
_SEEN = 5.0  # seconds after a grant in which the port must answer


class ActionModule(KnockAction):
    """The action `doorward.spa.examine`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Look, knock and look again; a host that is not well, or not reached, is a finding and no failure."""
        super(KnockAction, self).run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        self._host = (task_vars or {}).get("inventory_hostname", "")
        result = {"changed": False, "findings": [], "clients": [], "is_open": False, "dialled": {}, "services": []}
        self._found: list[dict[str, str]] = result["findings"]
        try:
            source = self._reached()
            for step in (self._from_inside, self._from_here):
                self._taken(step, options, source, result)
        except AnsibleConnectionFailure as error:
            self._found[:] = [each for each in self._found if each["topic"] != REACHED]
            self._say(REACHED, WRONG, "no", f"{error}")
        return result

    def _reached(self) -> str:
        """Connect, and return the address that the host sees this controller at."""
        began = time.monotonic()
        source = self._peer().source
        self._say(REACHED, OK, "yes", f"reached in {time.monotonic() - began:.1f} s, seen at {source}")
        return source

    def _taken(self, step: Callable[[dict, str, dict], None], *words: object) -> None:
        """Take a step; what it stumbles over is a finding, unless it is the connection."""
        try:
            step(*words)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:
            self._say("daemon", WRONG, "no", f"{error}")

    def _say(self, topic: str, state: str, short: str, text: str) -> None:
        self._found.append({"topic": topic, "state": state, "short": short, "text": text})

    # ---- from this controller ----------------------------------------------------------------------------------------

    def _from_here(self, options: dict, source: str, result: dict) -> None:
        """Dark, a knock, open, dark again."""
        if not getattr(self._connection, "knocks", False):
            self._say("knock", WRONG, "no", "its connection does not knock: it has no key, or another connection")
            return
        asked = self._connection.spa_service()
        dialled = self._connection.spa_dialled()
        result["dialled"] = {"host": dialled.host, "port": dialled.port}
        result["services"] = [asked]
        ports = self._ports(options, dialled.port)
        closed = self._is_to_be_closed(options, source)
        if not closed:
            result["is_open"] = options["mode"] == "observe"
        self._close(source)
        self._look_for_silence("dark", ports, closed=closed)
        try:
            knocked = self._verified(_KNOCK, [asked])
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:
            self._say("knock", WRONG, "no", f"{error}")
            return
        self._say("knock", OK, f"{knocked['knocks']}", f"{asked} is granted to {source} by {_counted(knocked)}")
        self._look_for_an_answer(ports[0])
        self._close(source)
        self._look_for_silence("closed", ports, closed=closed)

    def _close(self, source: str) -> None:
        """Close what is open for this controller, which would be taken for a host that answers strangers."""
        outcome = self._doorward("close", "--from", source)
        if outcome.code:
            msg = f"`doorward close` on the host ended with {outcome.code}: {outcome.text[-500:]}"
            raise AnsibleActionFail(msg)

    def _ports(self, options: dict, dialled: int) -> list[int]:
        """Return the port that ssh dials, then those of other TCP services that a knock may open."""
        named = [name.partition("/") for name in options["services"] if name not in options["public"]]
        behind_a_gateway = self._connection.get_option("spa_service") or self._connection.get_option("spa_nat")
        others = [] if behind_a_gateway else [int(number) for kind, _slash, number in named if kind == "tcp"]
        return list(dict.fromkeys([dialled, *others]))

    def _is_to_be_closed(self, options: dict, source: str) -> bool:
        """Tell whether this controller is to meet silence where it has not knocked."""
        address = ipaddress.ip_address(source)
        is_let_in = any(address in ipaddress.ip_network(each, strict=False) for each in _networks(options["let_in"]))
        return options["mode"] != "observe" and options["expect_closed"] and not is_let_in

    def _look_for_silence(self, topic: str, ports: Sequence[int], *, closed: bool) -> None:
        """Note whether every port is silent; what cannot be told is no silence."""
        if not closed:
            text = "not to be seen from here: this controller is let in without a knock, as the inventory says"
            self._say(topic, NOTE, "-", text)
            return
        if self._connection.jumps:
            is_silent = self._connection.spa_is_silent_behind_the_jump()
            text = f"{'no' if is_silent else 'AN'} answer to the jump host without a knock"
            self._say(topic, OK if is_silent else WRONG, "yes" if is_silent else "no", text)
            return
        against = "; ".join(filter(None, (_silence.broken(self._probes(port)) for port in ports)))
        shown = ", ".join(map(str, ports))
        text = against or f"no answer without a knock (tcp {shown})"
        self._say(topic, WRONG if against else OK, "no" if against else "yes", text)

    def _look_for_an_answer(self, port: int) -> None:
        """Note whether the port answers once a knock was granted: else its silence would prove nothing."""
        if self._connection.jumps:
            self._say("open", NOTE, "-", "granted, and not dialled from here: the way leads through a jump host")
            return
        end = time.monotonic() + _SEEN
        while not _silence.is_open(probes := self._probes(port)):
            if time.monotonic() > end:
                text = f"granted, and it does not answer: {'; '.join(map(str, probes))}"
                self._say("open", WRONG, "no", text)
                return
        self._say("open", OK, "yes", f"answers after a knock (tcp {port})")

    def _probes(self, port: int) -> list[_silence.Probe]:
        dialled = self._connection.spa_dialled()
        return _silence.probe(dialled.host, port, dialled.bind_address)

    # ---- from the host itself ----------------------------------------------------------------------------------------

    def _from_inside(self, options: dict, _source: str, result: dict) -> None:
        """What the host says of its daemon, its clients, keys, clock and version."""
        self._clock(options["max_age"] / 2)
        status = self._doorward_status()
        self._daemon(status, options["mode"])
        self._forwarded(status)
        self._version(status["version"])
        known = self._clients(options["folder"], result)
        self._keys(options, {each.name for each in known if each.key.startswith("SHA256:")})

    def _daemon(self, status: dict, mode: str) -> None:
        expected = _NO_FAULTS | ({"observe"} if mode == "observe" else set())
        causes = status["causes"]
        faults = [each["text"] for each in causes if each["word"] not in expected]
        if status["table"] != mode:
            faults.append(f"the table is {status['table']}, and {mode} in the inventory")
        notes = [each["text"] for each in causes if each["word"] in _NO_FAULTS]
        if faults:
            self._say("daemon", WRONG, "no", "; ".join(faults))
        else:
            text = "; ".join(["doorwardd runs", *notes])
            self._say("daemon", NOTE if notes else OK, "runs", text)

    def _forwarded(self, status: dict) -> None:
        """Ports that lead elsewhere: what other programs forward must be closed too."""
        forwarded = status["forwarded"]
        is_open = [each for each in forwarded if not (each["closed"] and status["closes_forwarded"])]
        if is_open:
            names = ", ".join(f"{each['service'] or 'a rule'} to {each['target']}" for each in is_open)
            self._say("forwarded", WRONG, f"{len(is_open)} open", f"forwarded without a grant: {names}")
        else:
            text = f"{len(forwarded)} forwarded, each closed without a grant" if forwarded else "none"
            self._say("forwarded", OK, str(len(forwarded)), text)

    def _version(self, there: str) -> None:
        here = _version_here()
        is_same = here in {"", there}
        text = f"doorward {there}" if is_same else f"doorward {there}, and this collection has {here}: roll out"
        self._say("version", OK if is_same else NOTE, there, text)

    def _clock(self, tolerated: float) -> None:
        """Compare the host's clock with this controller's; the answer's way takes time, half of it at most is error."""
        before = time.time()
        outcome = self._on_host("date", "+%s.%N", become=False)
        after = time.time()
        told = _NUMBER.search(outcome.text)  # ssh may say something beside it
        if outcome.code or told is None:
            self._say("clock", WRONG, "?", f"the host does not tell its time: {outcome.text[-100:]}")
            return
        ahead = float(told[0]) - (before + after) / 2
        error = (after - before) / 2
        is_wrong = abs(ahead) - error > tolerated
        where = "ahead of" if ahead > 0 else "behind"
        text = f"{abs(ahead):.1f} s {where} this controller's (give or take {error:.1f} s)"
        more = f", and knocks are refused from {2 * tolerated:.0f} s on" if is_wrong else ""
        self._say("clock", WRONG if is_wrong else OK, f"{ahead:+.1f} s", text + more)

    def _keys(self, options: dict, symmetric: Iterable[str]) -> None:
        """The age of the host's pair, of this controller's, and of the symmetric keys that the host knows."""
        now, days = time.time(), {}
        shown = self._on_host("stat", "-c", "%Y", _HOST_KEY)
        if shown.code == 0 and (made := _NUMBER.search(shown.text)):
            days["the host's pair"] = (now - float(made[0])) / _DAY
        held = Path(options["folder"]).expanduser() / self._host
        files = {f"the symmetric key of {name}": held / f"{name}.key" for name in sorted(symmetric)}
        if getattr(self._connection, "knocks", False) and self._connection.spa_host_key():
            files["this controller's pair"] = Path(options["private_key_file"]).expanduser()
        for words, file in files.items():
            if file.is_file():
                days[words] = (now - file.stat().st_mtime) / _DAY
        oldest = max(days.values(), default=0)
        is_old = 0 < options["key_max_age"] < oldest
        text = (
            ", ".join(f"{words}: {age:.0f} days" for words, age in days.items()) or "no key of the host is known here"
        )
        more = f"; older than {options['key_max_age']} days" if is_old else ""
        self._say("keys", WRONG if is_old else OK if days else NOTE, f"{oldest:.0f} d" if days else "-", text + more)

    def _clients(self, folder: str, result: dict) -> Sequence[_host_access.Known]:
        """Return the clients that the host knows, and note those among them that were revoked."""
        try:
            known = _host_access.read(self._on_host(*_host_access.words(_FOLDER)).text)
        except ValueError as error:
            self._say("clients", WRONG, "?", str(error))
            return ()
        names = list(dict.fromkeys(each.name or "a client without a name" for each in known.clients))
        result["clients"] = names
        revoked = list(_still_accepted(folder, self._host, known.clients))
        more = f"; and those in {', '.join(known.elsewhere)}, which were not read" if known.elsewhere else ""
        if revoked:
            self._say("clients", WRONG, f"{len(names)}", f"still accepts {', '.join(revoked)}, who is revoked{more}")
        else:
            self._say("clients", NOTE if more else OK, f"{len(names)}", f"{', '.join(names)}{more}")
        return known.clients


def _still_accepted(folder: str, host: str, clients: Sequence[_host_access.Known]) -> Iterator[str]:
    """Yield the names of revoked clients that a host accepts, each once."""
    revoked = _revocations.read(folder)
    yield from dict.fromkeys(
        gone.name for each in clients for gone in revoked if gone.accepts(host, each.name, each.key)
    )


def _networks(names: Sequence[str]) -> Iterator[str]:
    """Yield those of the fallback sources that are addresses or networks."""
    for name in names:
        try:
            ipaddress.ip_network(name, strict=False)
        except ValueError:
            continue
        yield name


def _counted(knocked: dict) -> str:
    return "a knock" if knocked["knocks"] == 1 else f"{knocked['knocks']} knocks"


def _version_here() -> str:
    """Return the version of the archive that a roll-out would put on hosts; empty where it cannot be told."""
    try:
        with zipfile.ZipFile(_archive.find()) as archive:
            text = archive.read("doorward/__init__.py").decode()
    except (AnsibleError, OSError, KeyError, zipfile.BadZipFile):
        return ""
    return text.partition('__version__ = "')[2].partition('"')[0]
