# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin doorward.spa.host_key: the public key of a host in the inventory."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive, _key_store, _key_text
from ansible_collections.doorward.spa.plugins.plugin_utils._local_action import LocalAction

_OPTIONS = {
    "host": {"type": "str", "required": True},
    "public_key": {"type": "str"},
    "folder": {"type": "path", "required": True},
    "controller": {"type": "str", "default": "controller"},
    "psk_mark": {"type": "str", "default": ""},
    "knock_format": {"type": "str", "choices": ["doorward1", "fwknop"], "default": "doorward1"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
_FILE = "doorward.yml"
_TEXT = """---
# Written by the role doorward.spa.keys: the public half of the host's key pair, which is no secret. Commit it.
doorward_host_key: "{key}"
"""
_KNOWN = "doorward_known_psk: # hashes of the pre-shared keys that the host knows, by controllers\n"
_MARK = re.compile(r"none|SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_FWKNOP = "doorward_knock_format: fwknop # in which this host knows the controller\n"
_TO_COME = "made on the host by the roll-out"
_SHADOWED = ("", ".yml", ".yaml", ".json")


class ActionModule(LocalAction):
    """The action `doorward.spa.host_key`."""

    def run(self, tmp: object = None, task_vars: dict | None = None) -> dict:
        """Write or remove the one file; nothing is connected."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        _key_store.path("/", options["host"], options["controller"])  # the name could leave the folder
        folder = Path(options["folder"]).expanduser()
        if not folder.is_absolute():
            msg = "the inventory is in no folder: set doorward_host_vars to the host_vars folder that ansible reads"
            raise AnsibleActionFail(msg)
        file = folder / options["host"] / _FILE
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        after = self._text(options, before)
        if after and not before:
            _refuse_to_shadow(file.parent)
        if before != after and not self._task.check_mode:
            _put(file, after)
        shown = {"before": before, "after": after, "before_header": str(file), "after_header": str(file)}
        return {"changed": before != after, "path": str(file), "diff": shown}

    def _text(self, options: dict, before: str) -> str:
        """Return what the file is to have. The key came from the host, and a line of YAML could be a template."""
        if options["state"] == "absent":
            return ""
        marks = _marks(before) | {options["controller"]: options["psk_mark"]}
        known = "".join(f'  "{name}": "{mark}"\n' for name, mark in sorted(marks.items()) if _MARK.fullmatch(mark))
        more = (_KNOWN + known if known else "") + (_FWKNOP if options["knock_format"] == "fwknop" else "")
        if self._task.check_mode and not options["public_key"]:
            return _TEXT.format(key=_TO_COME) + more
        try:
            return _TEXT.format(key=_key_text.public(options["public_key"] or "")) + more
        except _key_text.KeyTextError as error:
            msg = f"{options['host']}: {error}"
            raise AnsibleActionFail(msg) from error


def _marks(text: str) -> dict[str, str]:
    """Return the marks of all controllers in a text of the file; none where it is damaged, and is made again."""
    try:
        found = yaml.safe_load(text)["doorward_known_psk"]
        return {
            name: mark for name, mark in found.items() if _key_store.path("/", name, "any") and isinstance(mark, str)
        }
    except (yaml.YAMLError, AnsibleError, TypeError, KeyError, AttributeError):
        return {}


def _refuse_to_shadow(folder: Path) -> None:
    """Fail where ansible would no longer read a file of the host's variables because there is a folder beside it."""
    for ending in _SHADOWED:
        beside = folder.with_name(folder.name + ending)
        if beside.is_file():
            kept = f"{folder.name}/main{ending or '.yml'}"
            msg = (
                f"{beside} is a file, which ansible does not read once there is a folder {folder}: make the folder and "
                f"move the file into it, as {kept}. Nothing was changed"
            )
            raise AnsibleActionFail(msg)


def _put(file: Path, text: str) -> None:
    """Write the file, whole or not at all, with the mode of any other new file; or remove it where there is no text."""
    if not text:
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    _archive.write_whole(file, text, 0o644)
