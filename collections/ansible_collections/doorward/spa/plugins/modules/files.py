# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module doorward.spa.files: several small files of root's, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Write several small files of root's at once
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Writes files whose content is given, and removes others, in one round trip to the host instead of two for each.
  - Every file is checked before the first is written, and each is replaced in one step. A folder that is missing is
    made with mode 0755.
  - Not for secrets, since the differences are shown. Needs root on the host.
options:
  root:
    description: What stands before the path of each file.
    type: str
    default: ''
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where the file is, from C(/).
        type: str
        required: true
      content:
        description: All of its content, for a file that is V(present).
        type: str
      mode:
        description: Its mode, in octal.
        type: str
        default: '0644'
      validate:
        description: A command that must end well with the new content; C(%s) is where it is.
        type: str
      state:
        description: Whether the file is there.
        type: str
        choices: [present, absent]
        default: present
attributes:
  check_mode:
    support: full
    description: Compares, and runs no O(files[].validate).
  diff_mode:
    support: full
    description: Shows each file that differs.
"""

EXAMPLES = r"""
- name: Write a unit and its drop-in
  doorward.spa.files:
    files:
      - path: /etc/systemd/system/example.service
        content: "{{ lookup('ansible.builtin.template', 'example.service.j2') }}"
      - path: /etc/systemd/system/example.service.d/old.conf
        state: absent
  become: true
"""

RETURN = r"""
paths:
  description: The files that differed, without O(root).
  type: list
  elements: str
  returned: success
"""

import os
import shlex
import stat
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

_FILE = {
    "path": {"type": "str", "required": True},
    "content": {"type": "str"},
    "mode": {"type": "str", "default": "0644"},
    "validate": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
_OPTIONS = {
    "root": {"type": "str", "default": ""},
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": _FILE,
        "required_if": [("state", "present", ("content",))],
    },
}


class Wanted:
    """One file as it is and as it shall be."""

    def __init__(self, root: str, said: dict) -> None:
        """Look at the file.

        Raises:
            ValueError: its path or mode is none.
            OSError: it cannot be read.
        """
        if not said["path"].startswith("/"):
            msg = f"{said['path']!r} does not begin with /"
            raise ValueError(msg)
        self.path, self.place = said["path"], Path(root + said["path"])
        self.content = said["content"].encode() if said["state"] == "present" else None
        self.mode, self.validate = int(said["mode"], 8), said["validate"]
        self.present, self.attributes = _look(self.place)

    @property
    def differs(self) -> bool:
        """Whether there is something to do."""
        if self.content is None or self.content != self.present:
            return self.content != self.present
        return self.attributes != (self.mode, 0, 0)

    @property
    def difference(self) -> dict:
        """Both contents, as Ansible shows them; or both modes and owners."""
        before, after = self.present, self.content
        if before == after:
            before, after = f"{self.attributes}\n".encode(), f"{(self.mode, 0, 0)}\n".encode()
        return {
            "before": (before or b"").decode(errors="replace"),
            "after": (after or b"").decode(errors="replace"),
            "before_header": self.path,
            "after_header": self.path,
        }

    def write(self, module: AnsibleModule) -> None:
        """Replace or remove the file."""
        if self.content is None:
            self.place.unlink()
            return
        _make(self.place.parent)
        with tempfile.NamedTemporaryFile(dir=module.tmpdir, delete=False) as made:
            made.write(self.content)
        module.atomic_move(made.name, str(self.place))  # which keeps the modes of what was there
        os.chown(self.place, 0, 0)
        self.place.chmod(self.mode)

    def check(self, module: AnsibleModule) -> None:
        """Fail where the command that shall judge the content does not end well."""
        if self.content is None or not self.validate:
            return
        with tempfile.NamedTemporaryFile(dir=module.tmpdir) as made:
            made.write(self.content)
            made.flush()
            code, out, err = module.run_command(self.validate.replace("%s", shlex.quote(made.name)))
        if code:
            module.fail_json(msg=f"{self.path} is not valid, and nothing was changed: {err or out}", rc=code)


def _make(folder: Path) -> None:
    """Make a folder and those above it."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _look(place: Path) -> tuple:
    """Content of a file, and its mode, owner and group; None for each where there is none."""
    try:
        with place.open("rb") as stream:
            found = os.fstat(stream.fileno())
            return stream.read(), (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    except FileNotFoundError:
        return None, None


def main() -> None:
    """Compare all, check all, then write."""
    module = AnsibleModule(_OPTIONS, supports_check_mode=True)
    try:
        every = [Wanted(module.params["root"], said) for said in module.params["files"]]
        differing = [wanted for wanted in every if wanted.differs]
        if not module.check_mode:
            for wanted in differing:
                wanted.check(module)
            for wanted in differing:
                wanted.write(module)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    shown = [wanted.difference for wanted in differing]
    module.exit_json(changed=bool(differing), paths=[wanted.path for wanted in differing], diff=shown)


if __name__ == "__main__":
    main()
