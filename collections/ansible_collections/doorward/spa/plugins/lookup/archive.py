# Copyright: The doorward authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup plugin doorward.spa.archive: where the one archive is on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: archive
short_description: Path of the doorward archive on the controller
version_added: 0.1.0
author: The doorward authors (!UNKNOWN)
description:
  - Returns the path of the archive that the role P(doorward.spa.daemon#role) installs. It is the archive of the
    collection's tarball, or else one made from an installed Python package C(doorward).
options:
  _terms:
    description: Takes none.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Show where the archive is
  ansible.builtin.debug:
    msg: "{{ lookup('doorward.spa.archive') }}"
"""

RETURN = r"""
_raw:
  description: The path.
  type: list
  elements: path
"""

from typing import TYPE_CHECKING

from ansible.plugins.lookup import LookupBase
from ansible_collections.doorward.spa.plugins.plugin_utils import _archive

if TYPE_CHECKING:
    from collections.abc import Mapping


class LookupModule(LookupBase):
    """The lookup `doorward.spa.archive`."""

    def run(self, terms: list[str], variables: Mapping | None = None, **kwargs: object) -> list[str]:  # noqa: ARG002  the signature is ansible's
        """Return the path."""
        return [str(_archive.find())]
