# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports modules of this package from compiled code, as ansible-core imports plugins.

What plugins import from a collection it compiles anew, in the worker of each task. So this is imported before them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

NEEDED = ("_archive", "_key_text", "_ssh_arguments", "_key_store")  # by all tasks; each after those that it imports


def load(name: str) -> ModuleType:
    """Return a module of this package, imported as Python does where it is not imported yet.

    Raises:
        OSError: there is none of this name.
    """
    full_name = f"{__package__}.{name}"
    if full_name in sys.modules:
        return sys.modules[full_name]
    spec = importlib.util.spec_from_file_location(full_name, _file(name))
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    setattr(sys.modules[__package__], name, module)  # as an import does
    return module


def _file(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.py")


for _name in NEEDED:
    load(_name)
